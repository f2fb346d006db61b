"""What drafting is believed to cost, by how many texts there are."""

from __future__ import annotations

import pytest

from common.types import StepCost
from serve.drafting.drafter_costs import KNOWN_AFTER, DrafterCosts


def observe(costs: DrafterCosts, times: int, sessions: int, step_s: float, wall_s: float) -> None:
    """Drafts of two tokens."""
    for _ in range(times):
        costs.note_choice(sessions)
        costs.add(sessions, 2, 0, StepCost(step_s, 2), wall_s)


def two_s(costs: DrafterCosts, sessions: int) -> float:
    return costs.leg(sessions).seconds(2)[2]


def test_the_draft_leg_is_paid_only_for_a_draft() -> None:
    costs = DrafterCosts()
    for _ in range(50):
        costs.add(1, 4, 0, StepCost(0.006, 4), 0.0065)
    assert costs.leg(1).seconds(3) == pytest.approx([0.0, 0.002, 0.0035, 0.005])


def test_what_drafts_took_many_texts_says_nothing_of_one() -> None:
    costs = DrafterCosts()
    observe(costs, 50, sessions=8, step_s=0.004, wall_s=0.030)
    assert two_s(costs, 8) == pytest.approx(0.030)
    assert two_s(costs, 1) == pytest.approx(0.030 / 15), "the lowest that it can be, so it is tried"
    assert two_s(costs, 30) == pytest.approx(0.030)
    observe(costs, 50, sessions=1, step_s=0.003, wall_s=0.004)
    assert two_s(costs, 1) == pytest.approx(0.004, rel=0.05)
    assert two_s(costs, 8) == pytest.approx(0.030)
    assert two_s(costs, 30) == pytest.approx(0.030), "no less than of 8"


@pytest.mark.parametrize("loads", [(8, 15), (15, 8)])
def test_the_lowest_cost_does_not_depend_on_who_came_first(loads: tuple[int, int]) -> None:
    """Eight texts and fifteen are about as many."""
    costs = DrafterCosts()
    for sessions in loads:
        observe(costs, 100, sessions, step_s=0.0, wall_s=0.030)
    assert two_s(costs, 1) == pytest.approx(0.002)


@pytest.mark.parametrize("late_s", [0.1, 0.4, 1.0])
def test_a_late_first_draft_is_not_taken_for_the_rule(late_s: float) -> None:
    costs = DrafterCosts()
    observe(costs, 1, sessions=1, step_s=0.002, wall_s=late_s)
    observe(costs, KNOWN_AFTER - 2, sessions=1, step_s=0.002, wall_s=0.003)
    assert not costs.known
    observe(costs, 1, sessions=1, step_s=0.002, wall_s=0.003)
    assert costs.known and two_s(costs, 1) < 0.003 + late_s / 30
    observe(costs, 100, sessions=1, step_s=0.002, wall_s=0.003)
    observe(costs, 1, sessions=2, step_s=0.002, wall_s=late_s)
    assert two_s(costs, 2) < 0.006, "the first at this load"


def test_what_was_not_confirmed_for_long_is_soon_put_right() -> None:
    costs = DrafterCosts()
    observe(costs, 100, sessions=1, step_s=0.002, wall_s=0.050)
    for _ in range(3000):
        costs.note_choice(1)
    observe(costs, 4, sessions=1, step_s=0.002, wall_s=0.003)
    assert two_s(costs, 1) < 0.015


def test_a_draft_that_was_given_up_is_as_dear_as_the_wait() -> None:
    costs = DrafterCosts()
    observe(costs, 50, sessions=1, step_s=0.002, wall_s=0.003)
    for _ in range(50):
        costs.add(1, 0, 0, StepCost(), 1.0)
    assert 0.5 < two_s(costs, 1) < 1.01


def test_a_drafter_that_never_answers_is_known_for_it() -> None:
    costs = DrafterCosts()
    for _ in range(KNOWN_AFTER):
        costs.add(1, 0, 0, StepCost(), 1.0)
    assert costs.known and two_s(costs, 1) == pytest.approx(1.0)
