"""Sampling: one distribution for all parameters, and noise that is a function of (seed, position, token)."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from common.sampling import draw, draw_two, gumbel_noise, law, log_law
from common.types import SamplingParams

VOCABULARY = 50


def logits(rows: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


@settings(deadline=None)
@given(
    temperature=st.floats(0.1, 3),
    min_p=st.floats(0, 1),
    top_k=st.integers(1, VOCABULARY),
    top_p=st.floats(0.05, 1),
    seed=st.integers(0, 1000),
)
def test_law_equals_transformers_warpers_in_order(
    temperature: float, min_p: float, top_k: int, top_p: float, seed: int
) -> None:
    raw = logits(seed=seed)
    expected = TemperatureLogitsWarper(temperature)(None, raw)
    expected = MinPLogitsWarper(min_p)(None, expected)
    expected = TopKLogitsWarper(top_k)(None, expected)
    expected = TopPLogitsWarper(top_p)(None, expected).softmax(-1) if top_p < 1 else expected.softmax(-1)
    ours = law(raw, [SamplingParams(temperature=temperature, min_p=min_p, top_k=top_k, top_p=top_p)])
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-9)


def law_of(probabilities: list[float], **sampling: float) -> list[float]:
    raw = torch.tensor([probabilities], dtype=torch.float64).log()
    return law(raw, [SamplingParams(**sampling)])[0].tolist()


def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest() -> None:
    law_by_hand = [0.5, 0.3, 0.12, 0.08]
    assert law_of(law_by_hand, min_p=0.2) == pytest.approx([0.5 / 0.92, 0.3 / 0.92, 0.12 / 0.92, 0])
    assert law_of(law_by_hand, min_p=1.0) == pytest.approx([1, 0, 0, 0])
    assert law_of([0.25] * 4, min_p=1.0) == pytest.approx([0.25] * 4)
    assert law_of(law_by_hand, min_p=0.0) == pytest.approx(law_by_hand)


def test_min_p_comes_after_temperature_and_before_top_p() -> None:
    """Of these (.64, .25, .11), temperature 2 makes (.8, .5, .33) / 1.63: only then do all pass min_p .4."""
    assert law_of([0.64, 0.25, 0.11], temperature=2.0, min_p=0.4)[2] > 0
    # Without the last two, the first alone reaches top_p; had top_p come first, it would have kept the second.
    assert law_of([0.5, 0.3, 0.1, 0.1], min_p=0.25, top_p=0.6) == pytest.approx([1, 0, 0, 0])


def test_a_top_k_beyond_any_vocabulary_keeps_all() -> None:
    torch.testing.assert_close(law(logits(), [SamplingParams(top_k=2**64)]), logits().softmax(-1))


def test_temperature_zero_is_the_one_hot_of_the_likeliest() -> None:
    raw = logits(rows=3)
    ours = law(raw, [SamplingParams(temperature=0), SamplingParams(), SamplingParams(temperature=0, top_p=0.5)])
    for row in (0, 2):
        assert ours[row, raw[row].argmax()] == 1 and ours[row].sum() == 1
    torch.testing.assert_close(ours[1], raw[1].softmax(-1))


def test_a_draw_does_not_depend_on_the_rows_beside_it() -> None:
    raw = logits(rows=4)
    params = [
        SamplingParams(temperature=t, top_k=k, min_p=p, seed=s)
        for t, k, p, s in ((0, 0, 0, 1), (1, 5, 0, 2), (0.7, 0, 0.3, 2), (1, 0, 0, 3))
    ]
    together = draw(raw, params, [10, 11, 12, 13]).tolist()
    alone = [int(draw(raw[i : i + 1], [params[i]], [10 + i])) for i in range(4)]
    assert together == alone


def plain_law(logits_RV: torch.Tensor, params: list[SamplingParams]) -> torch.Tensor:
    """The law as it is defined: every row sorted, stably, so that of equal logits the lower ids stay."""
    column = partial(torch.tensor, dtype=torch.float64)
    scaled = (logits_RV - logits_RV.amax(-1, keepdim=True)).double() / column([[p.temperature or 1] for p in params])
    scaled = scaled.masked_fill(scaled < column([[p.min_p] for p in params]).log(), float("-inf"))
    k, top_p = torch.tensor([[min(p.top_k or 2**31, 2**31)] for p in params]), column([[p.top_p] for p in params])
    values, order = scaled.sort(dim=-1, descending=True, stable=True)
    values = values.masked_fill(torch.arange(values.shape[-1]) >= k, float("-inf"))
    probs = values.softmax(-1)
    outside = (probs.cumsum(-1) - probs >= top_p) & (top_p < 1)
    outside[:, 0] = False
    law = torch.empty_like(scaled).scatter(-1, order, values.masked_fill(outside, float("-inf")))
    for row, p in enumerate(params):
        if p.greedy:
            law[row] = torch.where(torch.arange(law.shape[-1]) == logits_RV[row].argmax(), 0.0, float("-inf"))
    return law


@settings(deadline=None, max_examples=200)
@given(
    params=st.lists(
        st.builds(
            SamplingParams,
            temperature=st.sampled_from([0.0, 1e-3, 0.5, 1.0, 20.0]),
            min_p=st.sampled_from([0.0, 0.0, 0.01, 0.5]),
            top_k=st.sampled_from([0, 0, 1, 20, 1500, 2**63]),
            top_p=st.sampled_from([1.0, 1e-9, 0.25, 0.5, 0.9, 1 - 1e-12]) | st.floats(1e-9, 1),
            seed=st.integers(0, 99),
        ),
        min_size=1,
        max_size=4,
    ),
    vocabulary=st.sampled_from([2, 50, 2500, 9000]),
    step=st.sampled_from([0.0, 0.25, 2.0, 1000.0]),
    seed=st.integers(0, 1000),
)
def test_the_law_and_its_draws_are_those_of_the_definition_bit_by_bit(
    params: list[SamplingParams], vocabulary: int, step: float, seed: int
) -> None:
    """With thousands of equal logits too, and where top-p falls between tokens as likely as each other."""
    raw = torch.randn(len(params), vocabulary, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
    raw = (raw / step).round() * step if step else raw
    expected = plain_law(raw, params)
    assert torch.equal(log_law(raw, params), expected)
    positions = list(range(seed, seed + len(params)))
    noise = gumbel_noise(torch.tensor([p.seed for p in params]), torch.tensor(positions), vocabulary)
    assert torch.equal(draw(raw, params, positions), (expected + noise).argmax(dim=-1))


@pytest.mark.parametrize("temperature", [5e-324, 1e-308, 1e-30])
@pytest.mark.parametrize("offset", [-20.0, 0.0, 20.0])
@pytest.mark.parametrize("truncated", [{}, {"top_p": 0.9}, {"top_k": 3}, {"min_p": 0.5}])
def test_the_law_of_a_tiny_temperature_is_its_limit(
    temperature: float, offset: float, truncated: dict[str, float]
) -> None:
    """All logits over such a temperature are infinite."""
    raw = logits(rows=2) + offset
    params = [SamplingParams(temperature=temperature, **truncated)] * 2
    assert torch.equal(law(raw, params), law(raw, [SamplingParams(temperature=0)] * 2))
    assert torch.equal(draw(raw, params, [7, 8]), raw.argmax(dim=-1))


@pytest.mark.parametrize("truncated", [{}, {"top_p": 0.9}, {"top_k": 3}, {"min_p": 0.5}])
def test_a_row_that_is_not_a_number_disturbs_no_other(truncated: dict[str, float]) -> None:
    raw, params = logits(rows=2), SamplingParams(seed=3, **truncated)
    raw[0] = float("nan")
    assert draw(raw, [params] * 2, [4, 5])[1] == draw(raw[1:], [params], [5])
    assert 0 <= draw(raw[:1], [params], [4]) < VOCABULARY


@settings(deadline=None)
@given(
    params=st.lists(
        st.builds(
            SamplingParams,
            temperature=st.sampled_from([0.0, 0.7, 1.5]),
            top_k=st.sampled_from([0, 1, 5]),
            top_p=st.sampled_from([0.3, 1.0]),
            seed=st.integers(0, 99),
        ),
        min_size=1,
        max_size=4,
    ),
    excluded=st.sets(st.integers(0, VOCABULARY - 1), max_size=VOCABULARY - 1),
    position=st.integers(0, 99),
)
def test_a_draw_is_the_highest_sum_of_law_and_noise_over_the_whole_vocabulary(
    params: list[SamplingParams], excluded: set[int], position: int
) -> None:
    """Though noise is only computed for tokens that can be drawn."""
    raw = logits(len(params), seed=position)
    raw[:, list(excluded)] = float("-inf")
    positions = range(position, position + len(params))
    seeds = torch.tensor([p.seed for p in params])
    sums = law(raw, params).log() + gumbel_noise(seeds, torch.tensor(list(positions)), VOCABULARY)
    assert torch.equal(draw(raw, params, positions), sums.argmax(dim=-1))


@pytest.mark.parametrize("truncated", [{}, {"top_k": 20}])
def test_many_rows_are_drawn_a_few_at_a_time_as_they_would_be_alone(truncated: dict[str, int]) -> None:
    """Of a large vocabulary they do not fit into a processor's cache."""
    raw = torch.randn(7, 40_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    raw[3, :30_000] = -math.inf
    params = [SamplingParams(seed=row, **truncated) for row in range(7)]
    together = draw_two(raw, params, range(7))
    alone = [draw_two(raw[row : row + 1], params[row : row + 1], [row]) for row in range(7)]
    assert torch.equal(together, torch.cat(alone))
    assert together[3, 0] >= 30_000


def test_draws_follow_the_law() -> None:
    """Chi-square over 20,000 positions with one seed: noise of neighbouring positions must be independent enough."""
    params = SamplingParams(temperature=0.8, top_k=12, top_p=0.9, seed=5)
    count = 20_000
    expected = law(logits(), [params])[0] * count
    drawn = draw(logits().expand(count, -1), [params] * count, range(count))
    observed = torch.bincount(drawn, minlength=VOCABULARY)
    possible = expected > 0
    assert observed[~possible].sum() == 0
    chi_square = ((observed - expected)[possible] ** 2 / expected[possible]).sum()
    degrees = int(possible.sum()) - 1
    # Mean and spread of the chi-square law: five standard deviations above its mean.
    assert chi_square < degrees + 5 * (2 * degrees) ** 0.5


def test_noise_is_standard_gumbel_and_uncorrelated_between_seeds_positions_and_tokens() -> None:
    seeds, positions = torch.arange(40).repeat_interleave(40), torch.arange(40).repeat(40)
    noise = gumbel_noise(seeds, positions, 100)
    assert abs(float(noise.mean()) - 0.5772) < 0.02
    assert abs(float(noise.var()) - 1.6449) < 0.03
    for one, other in ((noise[:-1], noise[1:]), (noise[:-40], noise[40:]), (noise[:, :-1], noise[:, 1:])):
        assert abs(float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])) < 0.02


@given(seed=st.integers(-(2**63), 2**63 - 1), position=st.integers(0, 2**20))
def test_noise_is_finite_and_reproducible(seed: int, position: int) -> None:
    one = gumbel_noise(torch.tensor([seed]), torch.tensor([position]), VOCABULARY)
    assert bool(one.isfinite().all())
    assert torch.equal(one, gumbel_noise(torch.tensor([seed]), torch.tensor([position]), VOCABULARY))


def splitmix64(state: int) -> int:
    """The generator's output function in plain integers."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
    return state ^ (state >> 31)


@given(seed=st.integers(-(2**63), 2**63 - 1), position=st.integers(0, 2**20), token=st.integers(0, VOCABULARY - 1))
def test_noise_is_splitmix64_as_published(seed: int, position: int, token: int) -> None:
    """A replay on another version must draw the same, so this may never change."""
    golden = 0x9E3779B97F4A7C15
    key = splitmix64((splitmix64(seed % 2**64) + golden * (position + 1)) % 2**64)
    bits = splitmix64((key + golden * (token + 1)) % 2**64) >> 11
    expected = -math.log(-math.log((bits + 0.5) * 2.0**-53))
    noise = gumbel_noise(torch.tensor([seed]), torch.tensor([position]), VOCABULARY)[0, token]
    assert math.isclose(float(noise), expected, rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", -1), ("temperature", float("nan")), ("top_p", 0), ("top_k", -1), ("seed", 2**63), ("min_p", 2)],
)
def test_parameters_out_of_range_are_named(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        SamplingParams(**{field: value})


@settings(deadline=None)
@given(
    temperatures=st.lists(st.sampled_from([0.0, 0.5, 1.5]), min_size=1, max_size=4),
    top_k=st.sampled_from([0, 2, 20]),
    seed=st.integers(0, 1000),
)
def test_a_runner_up_is_what_would_be_drawn_if_the_token_did_not_exist(
    temperatures: list[float], top_k: int, seed: int
) -> None:
    raw, positions = logits(len(temperatures), seed), range(len(temperatures))
    params = [SamplingParams(temperature=temperature, seed=seed) for temperature in temperatures]
    if top_k:  # before the draw, of which the law must not depend
        raw = torch.where(raw >= raw.topk(top_k).values[:, -1:], raw, float("-inf"))
    pairs = draw_two(raw, params, positions)
    drawn = draw(raw, params, positions)
    without = draw(raw.scatter(1, drawn.unsqueeze(1), float("-inf")), params, positions)
    assert pairs.tolist() == torch.stack([drawn, without], dim=1).tolist()


def test_a_token_that_is_certain_is_its_own_runner_up() -> None:
    assert draw_two(logits(), [SamplingParams(top_k=1, seed=3)], [5]).unique().numel() == 1
