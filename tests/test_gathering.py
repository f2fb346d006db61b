"""An engine waits for the texts it has just answered as long as that can save a step, and no longer."""

from __future__ import annotations

from serve.stream.gathering import Gathering, worth_waiting


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def away_for(step_s: float, **delays_s: float) -> tuple[Gathering, Clock]:
    """Texts that have always asked again so long after each step, and have just been answered."""
    clock = Clock()
    gathering = Gathering(clock)
    for _ in range(200):
        clock.now += step_s
        gathering.answered(delays_s, step_s)
        for key, delay_s in delays_s.items():
            gathering.came(key, clock.now + delay_s)
        clock.now += max(delays_s.values())
    gathering.answered(delays_s, step_s)
    return gathering, clock


def after_rounds(delay_s: float, step_s: float) -> tuple[Gathering, Clock]:
    """Two texts."""
    return away_for(step_s, a=delay_s, b=delay_s)


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


def test_each_text_is_waited_for_as_long_as_it_is_usually_away() -> None:
    """Of three texts two come back at once, on average all do after 3 ms: twice that is too soon for the third."""
    gathering, clock = away_for(0.025, a=0.001, b=0.001, c=0.008)
    assert 0.008 < gathering.patience() <= 0.0161
    gathering.came("c", clock.now)
    assert gathering.patience() <= 0.0021, "the others are not waited for so long"


def test_a_text_whose_draft_is_at_hand_at_times_is_waited_for_when_it_is_not() -> None:
    clock = Clock()
    gathering = Gathering(clock)
    for turn in range(200):
        clock.now += 0.025
        gathering.answered("a", 0.025)
        gathering.came("a", clock.now + (0.010 if turn % 3 == 0 else 0.001))
    gathering.answered("a", 0.025)
    assert gathering.patience() > 0.010


def test_a_text_that_is_away_for_longer_than_before_is_soon_waited_for() -> None:
    clock = Clock()
    gathering = Gathering(clock)
    waited = []
    for turn in range(20):
        clock.now += 0.025
        gathering.answered("a", 0.025)
        waited.append(gathering.patience() >= 0.012)
        gathering.came("a", clock.now + (0.003 if turn < 10 else 0.012))
    assert not any(waited[:10]) and all(waited[13:])


def test_one_of_which_nothing_is_known_is_waited_for_like_the_latest() -> None:
    gathering, _ = after_rounds(delay_s=0.002, step_s=0.010)
    gathering.answered(["new"], 0.010)
    assert 0.0019 < gathering.patience() <= 0.0041


def test_one_that_is_late_is_not_waited_for_though_all_others_are_back_before_that_is_asked() -> None:
    early = {f"early {number}": 0.001 for number in range(15)}
    gathering, clock = away_for(0.020, **early, late=0.015)
    for key in early:
        gathering.came(key, clock.now + 0.001)
    clock.now += 0.0015
    assert gathering.patience() == 0


def test_those_that_have_ended_make_nobody_late() -> None:
    gathering, _ = away_for(0.020, **{f"early {number}": 0.001 for number in range(15)}, late=0.015)
    for number in range(15):
        gathering.ended(f"early {number}")
    assert gathering.patience() > 0.014


def test_what_has_ended_is_not_waited_for_and_forgotten() -> None:
    gathering, _ = away_for(0.025, a=0.010, b=0.002)
    gathering.answered("a", 0.025)
    gathering.ended("a")
    assert gathering.patience() == 0
    gathering.answered("a", 0.025)  # another session of the same name, of which nothing is known
    assert 0.0019 < gathering.patience() <= 0.0041


def test_after_a_long_absence_a_text_and_new_ones_are_soon_waited_for() -> None:
    gathering, clock = after_rounds(delay_s=0.005, step_s=0.025)
    clock.now += 3.0
    gathering.came("a", clock.now)
    gathering.came("b", clock.now)
    for _ in range(5):
        gathering.answered("ab", 0.025)
        clock.now += 0.005
        gathering.came("a", clock.now)
        gathering.came("b", clock.now)
    gathering.answered("ab", 0.025)
    assert gathering.patience() > 0.005
    gathering.answered(["new"], 0.025)
    assert gathering.patience() > 0.005


def test_who_is_worth_waiting_for() -> None:
    assert worth_waiting([(0.002, 8.0)], 0.010) == 0.002
    assert worth_waiting([(0.012, 8.0)], 0.010) == 0.0, "another step is over sooner"
    assert worth_waiting([(0.001, 15.0), (0.015, 1.0)], 0.020) == 0.001, "15 are not held up for one"
    assert worth_waiting([(0.001, 15.0), (0.002, 1.0)], 0.020) == 0.002
    assert worth_waiting([(0.012, 8.0), (0.003, 8.0)], 0.025) == 0.012
    assert worth_waiting([(0.001, 1.0)] * 15 + [(0.015, 1.0)], 0.020) == 0.001
    assert worth_waiting([], 0.010) == 0.0
