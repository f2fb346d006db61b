"""An engine waits for the texts it has just answered as long as that can save a step, and no longer."""

from __future__ import annotations

from serve.stream.gathering import Gathering


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def after_rounds(delay_s: float, step_s: float, rounds: int = 200) -> tuple[Gathering, Clock]:
    """Two texts that ask again `delay_s` after each step."""
    clock = Clock()
    gathering = Gathering(clock)
    for _ in range(rounds):
        clock.now += step_s
        gathering.answered(["a", "b"], step_s)
        clock.now += delay_s
        gathering.came("a", clock.now)
        gathering.came("b", clock.now)
    gathering.answered(["a", "b"], step_s)
    return gathering, clock


def test_texts_that_come_back_sooner_than_a_step_takes_are_waited_for() -> None:
    gathering, clock = after_rounds(delay_s=0.002, step_s=0.010)
    assert 0.0019 < gathering.patience() <= 0.0041
    gathering.came("a", clock.now)
    assert gathering.patience() > 0
    gathering.came("b", clock.now)
    assert gathering.patience() == 0
    gathering.answered(["a", "b"], 0.010)
    clock.now += 0.005
    assert gathering.patience() == 0


def test_texts_that_take_longer_than_a_step_are_not_waited_for() -> None:
    gathering, _ = after_rounds(delay_s=0.011, step_s=0.010)
    assert gathering.patience() == 0


def test_no_more_is_waited_than_the_cheapest_step_costs() -> None:
    gathering, _ = after_rounds(delay_s=0.009, step_s=0.010)
    gathering.answered(["a"], 0.5)
    assert gathering.patience() <= 0.0102


def test_before_anything_is_known_nothing_is_waited_for() -> None:
    gathering = Gathering(Clock())
    assert gathering.patience() == 0
    gathering.answered(["a"], 0.01)
    assert gathering.patience() == 0


def test_a_cheapest_step_that_is_no_longer_to_be_had_is_forgotten() -> None:
    gathering, clock = after_rounds(delay_s=0.002, step_s=0.001)
    assert gathering.patience() == 0
    for _ in range(200):
        clock.now += 0.010
        gathering.answered([], 0.010)
    gathering.answered(["a"], 0.010)
    assert gathering.patience() > 0


def test_groups_that_take_turns_are_brought_together() -> None:
    """Each comes back during the other's step, so that neither is ever waited for by chance."""
    clock = Clock()
    gathering = Gathering(clock)
    for turn in range(200):
        group, other = ("a", "b") if turn % 2 else ("b", "a")
        clock.now += 0.010
        gathering.answered([group], 0.010)
        if turn:
            gathering.came(other, clock.now - 0.010 + 0.004)
    assert 0.0039 < gathering.patience() <= 0.0081


def test_what_has_ended_is_forgotten() -> None:
    clock = Clock()
    gathering = Gathering(clock)
    gathering.answered(["a"], 0.010)
    gathering.came("a", 0.0)
    gathering.came("a", 5.0)
    gathering.answered(["b"], 0.010)
    assert gathering.patience() == 0
