"""The measured costs of a round."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.types import StepCost
from serve.drafting.costs import Average, StepTable, VerifierCosts, _bracket


def table(seconds: dict[int, float]) -> StepTable:
    steps = StepTable()
    for tokens, spent in seconds.items():
        steps.add(StepCost(spent, tokens), 1.0)
    return steps


@settings(deadline=None)
@given(values=st.lists(st.floats(0.5, 1.5), min_size=1, max_size=100))
def test_an_average_stays_among_its_values_and_starts_at_the_first(values: list[float]) -> None:
    average = Average()
    assert not average.known
    average.add(values[0])
    assert average.known and average.mean == values[0]
    for value in values[1:]:
        average.add(value)
    assert min(values) - 1e-9 <= average.mean <= max(values) + 1e-9


def test_one_wild_value_moves_an_average_little_and_a_lasting_one_moves_it_all_the_way() -> None:
    average = Average()
    for _ in range(50):
        average.add(1.0)
    average.add(1000.0)
    assert average.mean < 1.3
    for _ in range(200):
        average.add(1000.0)
    assert average.mean == pytest.approx(1000.0, rel=0.01)


def test_the_first_cold_value_is_forgotten_within_ten() -> None:
    average = Average()
    for value in [1.0] + [0.01] * 10:
        average.add(value)
    assert average.mean < 0.03


def test_a_size_of_step_that_did_not_occur_for_long_is_learned_anew() -> None:
    steps = table({1: 0.01, 50: 0.05})
    for tokens in [1] * 50 + [50] * 3000:
        steps.add(StepCost(0.01 if tokens == 1 else 0.05, tokens), 1.0)
    for _ in range(3):
        steps.add(StepCost(0.002, 1), 1.0)
    assert steps.seconds([1])[0] < 0.005


@settings(deadline=None)
@given(tokens=st.integers(1, 10**6))
def test_brackets_ascend_and_are_at_most_a_quarter_wide(tokens: int) -> None:
    assert 0 <= _bracket(tokens + 1) - _bracket(tokens) <= 1
    assert _bracket(tokens) < _bracket(tokens + tokens // 4 + 1)


@settings(deadline=None)
@given(
    sizes=st.sets(st.integers(1, 300), min_size=1, max_size=12),
    base=st.floats(0.0, 0.1),
    slope=st.floats(1e-5, 1e-2),
    asked=st.lists(st.floats(0.5, 400.0), min_size=1, max_size=9).map(sorted),
)
def test_a_table_interpolates_and_is_hopeful_beyond(
    sizes: set[int], base: float, slope: float, asked: list[float]
) -> None:
    def cost(tokens: float) -> float:
        return base + slope * tokens

    steps = table({tokens: cost(tokens) for tokens in sizes})
    low, high = min(sizes), max(sizes)
    for tokens, seconds in zip(asked, steps.seconds(asked), strict=True):
        if low <= tokens <= high and len({_bracket(size) for size in sizes}) == len(sizes):
            assert seconds == pytest.approx(cost(tokens))
        assert seconds <= cost(tokens) * (1 + 1e-9)


def test_a_table_extends_small_steps_in_proportion_and_large_ones_flat() -> None:
    assert table({8: 0.8, 16: 1.0}).seconds([2, 8, 12, 16, 100]) == pytest.approx([0.2, 0.8, 0.9, 1.0, 1.0])


def test_a_step_with_a_long_prompt_changes_neither_small_steps_nor_the_batch() -> None:
    costs = VerifierCosts()
    for prompt in [0, 0, 512] * 30:
        tokens = 5 + prompt
        costs.add(1, 4, StepCost(0.01 + 0.001 * tokens, tokens), 0.01 + 0.001 * tokens)
    assert costs.seconds(1, 4)[4] == pytest.approx(0.015, rel=0.35)


def test_the_batch_is_what_texts_share_a_step() -> None:
    """Of 8 texts 4 are in each step, with 0 to 8 drafted tokens each; the others wait for it and for their own."""
    costs = VerifierCosts()
    for drafted in range(9):
        tokens = 4 * (1 + drafted)
        for _ in range(20):
            costs.add(8, drafted, StepCost(0.001 * tokens, tokens), 0.002 * tokens)
    assert costs.seconds(8, 8) == pytest.approx([0.002 * 4 * (1 + n) for n in range(9)], rel=0.05)
    assert costs.seconds(1, 1) == pytest.approx([0.001, 0.002], rel=0.05), "a text alone has a step of its own"


def test_the_wire_is_paid_once_a_leg() -> None:
    costs = VerifierCosts()
    for _ in range(50):
        costs.add(1, 0, StepCost(0.02, 1), 0.0203)
    assert costs.seconds(1, 2) == pytest.approx([0.0203] * 3)
