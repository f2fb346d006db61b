"""The accept rules as pure functions, and the law of whole texts on a tabular model."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from common.acceptance import accept_coupled, accept_rejection
from common.engine.reference import generate_coupled, generate_plain, generate_rejection
from common.sampling import law
from common.types import GenerationRequest, SamplingParams, TokenIds

TOKENS = 3
LENGTH = 3


def tabular(seed: int) -> Tensor:
    """Logits [token before, token]: a model whose law can be written down."""
    return torch.randn(TOKENS, TOKENS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 1.5


def request(seed: int = 0, **sampling: float) -> GenerationRequest:
    return GenerationRequest(prompt=(0,), max_tokens=LENGTH, sampling=SamplingParams(seed=seed, **sampling))


def exact_law(table: Tensor, params: SamplingParams) -> dict[TokenIds, float]:
    """Probability of every text of LENGTH tokens."""
    rows = law(table, [params] * TOKENS)
    texts: dict[TokenIds, float] = {}
    for text in product(range(TOKENS), repeat=LENGTH):
        probability = 1.0
        for before, token in zip((0, *text), text, strict=False):
            probability *= float(rows[before, token])
        texts[text] = probability
    return texts


def chi_square_excess(observed: Counter[TokenIds], expected: dict[TokenIds, float]) -> float:
    """Standard deviations by which chi-square exceeds its mean under the expected law."""
    count = sum(observed.values())
    possible = {text: p * count for text, p in expected.items() if p > 0}
    assert set(observed) <= set(possible), "a text that the target cannot write"
    statistic = sum((observed[text] - e) ** 2 / e for text, e in possible.items())
    degrees = len(possible) - 1
    return (statistic - degrees) / (2 * degrees) ** 0.5


SAMPLING = [{}, {"temperature": 0.6}, {"top_k": 2}, {"top_p": 0.8}]


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_rejection_writes_texts_by_the_targets_law(sampling: dict[str, float], count: int) -> None:
    target, drafter = tabular(1), tabular(2)
    noise = torch.Generator().manual_seed(3)
    texts = Counter(
        generate_rejection(lambda t: target[list(t)], lambda t: drafter[list(t)], request(**sampling), count, noise)
        for _ in range(2000)
    )
    assert chi_square_excess(texts, exact_law(target, request(**sampling).sampling)) < 4


def test_the_test_sees_a_biased_rule() -> None:
    """Accepting drafts without asking the target must fail it."""
    drafter, noise = tabular(2), torch.Generator().manual_seed(3)
    texts = Counter(
        generate_rejection(lambda t: drafter[list(t)], lambda t: drafter[list(t)], request(), 2, noise)
        for _ in range(2000)
    )
    assert chi_square_excess(texts, exact_law(tabular(1), request().sampling)) > 50


@pytest.mark.parametrize("sampling", SAMPLING)
def test_coupled_writes_texts_by_the_targets_law_and_equals_plain(sampling: dict[str, float]) -> None:
    target = tabular(1)
    texts: Counter[TokenIds] = Counter()
    for seed in range(2000):
        text = generate_coupled(
            lambda t: target[list(t)], lambda t: ((t[-1] + 1) % TOKENS, 0), request(seed, **sampling)
        )
        assert text == generate_plain(lambda t: target[list(t)], request(seed, **sampling))
        texts[text] += 1
    assert chi_square_excess(texts, exact_law(target, request(**sampling).sampling)) < 4


@given(draws=st.lists(st.integers(0, 3), min_size=1, max_size=9), data=st.data())
def test_coupled_accepts_the_longest_common_prefix(draws: list[int], data: st.DataObject) -> None:
    draft = data.draw(st.lists(st.integers(0, 3), min_size=len(draws) - 1, max_size=len(draws) - 1))
    accepted, token = accept_coupled(draft, draws)
    assert draft[:accepted] == draws[:accepted] and token == draws[accepted]
    assert accepted == len(draft) or draft[accepted] != draws[accepted]


@given(seed=st.integers(0, 500), count=st.integers(0, 5))
def test_rejection_accepts_everything_from_a_perfect_drafter(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(count + 1, 4, generator=generator, dtype=torch.float64).softmax(-1)
    draft = torch.randint(0, 4, (count,), generator=generator).tolist()
    uniforms = torch.rand(count, generator=generator, dtype=torch.float64)
    assert accept_rejection(p, p[:count], draft, uniforms, torch.zeros(4)).accepted == count


def test_rejection_never_follows_a_refusal_with_a_token_that_the_drafter_overrates() -> None:
    p, q = torch.tensor([[0.5, 0.5], [0.5, 0.5]]), torch.tensor([[0.9, 0.1]])
    accepted, token = accept_rejection(p, q, [0], torch.tensor([0.99]), torch.tensor([100.0, 0.0]))
    assert (accepted, token) == (0, 1)
