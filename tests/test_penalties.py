"""Bias and penalties: the vectorised form against the definition, token by token."""

from __future__ import annotations

import sys

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import RepetitionPenaltyLogitsProcessor

from common.engine import reference
from common.penalties import Context, adjust
from common.sampling import law
from common.types import SamplingParams

VOCABULARY = 12

_TOKENS = st.integers(0, VOCABULARY - 1)
_PENALTIES = st.floats(-2, 2) | st.just(0.0)
_SAMPLING = st.builds(
    SamplingParams,
    presence_penalty=_PENALTIES,
    frequency_penalty=_PENALTIES,
    repetition_penalty=st.floats(0.1, 10) | st.just(1.0),
    logit_bias=st.lists(st.tuples(_TOKENS, st.floats(-100, 100)), max_size=4).map(tuple),
)


@st.composite
def _contexts(draw: st.DrawFn) -> Context:
    tokens = draw(st.lists(_TOKENS, min_size=1, max_size=20))
    prompt_length = draw(st.integers(0, len(tokens)))
    return Context(draw(_SAMPLING), tokens, prompt_length, draw(st.lists(_TOKENS, max_size=8)))


def logits(rows: int, seed: int = 0, vocabulary: int = VOCABULARY) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def one(sampling: SamplingParams, row: list[float], tokens: list[int], prompt_length: int) -> list[float]:
    """The adjusted logits of a single row."""
    return adjust(torch.tensor([row], dtype=torch.float64), [Context(sampling, tokens, prompt_length)])[0].tolist()


@settings(deadline=None)
@given(
    contexts=st.lists(_contexts(), min_size=1, max_size=5),
    vocabulary=st.sampled_from([VOCABULARY, 20 * VOCABULARY]),
    seed=st.integers(0, 100),
)
def test_every_row_equals_the_definition(contexts: list[Context], vocabulary: int, seed: int) -> None:
    """Each drafted token is output to the rows after it, whatever other texts are in the batch."""
    raw = logits(sum(c.rows for c in contexts), seed, vocabulary)
    expected = [
        reference.adjusted(row, [*c.tokens, *c.draft[:i]], c.prompt_length, c.sampling)
        for c, rows in zip(contexts, raw.split([c.rows for c in contexts]), strict=True)
        for i, row in enumerate(rows.tolist())
    ]
    before = raw.clone()
    assert adjust(raw, contexts).tolist() == expected
    assert torch.equal(raw, before), "the raw logits are still wanted"


def test_a_row_by_hand() -> None:
    """Prompt (0, 1), output (1, 2, 2); the bias comes first, then repetition, frequency, presence."""
    sampling = SamplingParams(
        logit_bias=((0, 5.0), (3, -1.0)), repetition_penalty=2.0, frequency_penalty=0.25, presence_penalty=0.5
    )
    adjusted = one(sampling, [-1.0, -2.0, 3.0, 4.0], [0, 1, 1, 2, 2], 2)
    assert adjusted == [
        (-1.0 + 5.0) / 2.0,  # in the prompt alone: biased first, hence positive, hence divided
        -2.0 * 2.0 - 0.25 - 0.5,  # once in the output, negative: multiplied
        3.0 / 2.0 - 2 * 0.25 - 0.5,  # twice in the output
        4.0 - 1.0,  # nowhere: only biased
    ]


def test_frequency_and_presence_do_not_see_the_prompt() -> None:
    sampling = SamplingParams(frequency_penalty=2.0, presence_penalty=2.0)
    assert one(sampling, [1.0, 1.0], [0, 0, 0], 3) == [1.0, 1.0]
    assert one(sampling, [1.0, 1.0], [0, 0, 0], 1) == [1.0 - 2 * 2.0 - 2.0, 1.0]


@settings(deadline=None)
@given(tokens=st.lists(_TOKENS, min_size=1, max_size=20), penalty=st.floats(0.1, 10), prompt_length=st.integers(0, 20))
def test_repetition_penalty_equals_transformers(tokens: list[int], penalty: float, prompt_length: int) -> None:
    raw = logits(1)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([tokens]), raw.clone())
    context = Context(SamplingParams(repetition_penalty=penalty), tokens, min(prompt_length, len(tokens)))
    torch.testing.assert_close(adjust(raw, [context]), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_adjusted_logits_are_not_rounded_to_the_models_dtype(dtype: torch.dtype) -> None:
    raw = torch.full((1, 3), 100.0, dtype=dtype)
    adjusted = adjust(raw, [Context(SamplingParams(frequency_penalty=1e-6), [0], 0)])
    assert adjusted.tolist() == [[100.0 - 1e-6, 100.0, 100.0]]


def test_logits_that_nobody_asks_to_change_are_not_even_copied() -> None:
    raw = logits(3)
    sampling = SamplingParams(temperature=0.5, top_k=3, min_p=0.1, logprobs=2)
    assert adjust(raw, [Context(sampling, [1, 2], 1, [3, 4])]) is raw


def test_a_bias_beyond_the_vocabulary_meets_no_logit() -> None:
    sampling = SamplingParams(logit_bias=((2, 1.0), (1, 1.0), (2**70, 5.0)))
    assert one(sampling, [1.0, 1.0], [0], 1) == [1.0, 2.0]


def test_an_excluded_token_stays_excluded() -> None:
    sampling = SamplingParams(
        logit_bias=((0, 100.0),), repetition_penalty=2.0, presence_penalty=-2.0, frequency_penalty=2.0
    )
    assert one(sampling, [float("-inf"), 1.0], [0, 0], 0)[0] == float("-inf")


def test_no_repetition_penalty_makes_a_logit_infinite() -> None:
    """A law with two infinite logits is none."""
    sampling = SamplingParams(repetition_penalty=5e-324, presence_penalty=-2.0)
    adjusted = one(sampling, [3.0, 2.0, 1.0, -1.0], [0, 1, 3], 1)
    assert adjusted[0] == adjusted[1] == sys.float_info.max
    assert adjusted[2:] == [1.0, 2.0]
    sampled = msgspec.structs.replace(sampling, temperature=1.0, top_p=0.5)
    assert law(torch.tensor([adjusted], dtype=torch.float64), [sampled])[0].tolist() == [1.0, 0.0, 0.0, 0.0]
