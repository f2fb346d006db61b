"""The A/B test of drafting in a simulated service: texts write at stated speeds, with and without drafting."""

from __future__ import annotations

from random import Random

import pytest

from serve.drafting.trial import ENOUGH, MEASURED, SETTLING, DraftingTrial

WINDOW = SETTLING + MEASURED


DOUBT = 0.2
PROMISE = 1.2
"""By the legs."""


def run(
    trial: DraftingTrial, gain: float, *, sessions: int = 1, windows: int, promise: float = PROMISE, seed: int = 0
) -> float:
    """The share of `windows` that drafted, while drafting is `gain` times as fast as plain decoding."""
    random, drafting = Random(seed), 0
    for _ in range(windows):
        drafting += trial.drafting
        speed = 50.0 * (gain if trial.drafting else 1.0) * random.gauss(1.0, 0.08)
        tokens = 2 if trial.drafting else 1
        for _ in range(WINDOW * sessions):
            trial.observe(sessions, tokens, tokens / speed, promise)
    return drafting / windows


def test_drafting_is_allowed_at_first() -> None:
    assert DraftingTrial(DOUBT).drafting


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sessions", [1, 16])
def test_drafting_that_costs_more_than_it_brings_is_held_back(sessions: int, seed: int) -> None:
    trial = DraftingTrial(DOUBT, seed)
    run(trial, 0.8, sessions=sessions, windows=10, seed=seed)
    assert run(trial, 0.8, sessions=sessions, windows=200, seed=seed) < 0.08


@pytest.mark.parametrize("seed", range(4))
def test_drafting_that_pays_is_interrupted_for_less_than_a_thirtieth_of_the_time(seed: int) -> None:
    trial = DraftingTrial(DOUBT, seed)
    run(trial, 1.5, windows=10, seed=seed)
    assert run(trial, 1.5, windows=300, seed=seed) > 1 - 1 / 30


@pytest.mark.parametrize("seed", range(4))
def test_a_change_for_the_better_and_one_for_the_worse_are_found(seed: int) -> None:
    trial = DraftingTrial(DOUBT, seed)
    run(trial, 0.8, windows=100, seed=seed)
    run(trial, 1.5, windows=150, seed=seed)
    assert run(trial, 1.5, windows=50, seed=seed) > 0.9
    run(trial, 0.8, windows=50, seed=seed)
    assert run(trial, 0.8, windows=50, seed=seed) < 0.2


@pytest.mark.parametrize("seed", range(4))
def test_what_is_known_at_one_load_is_believed_at_the_next_until_it_is_measured(seed: int) -> None:
    trial = DraftingTrial(DOUBT, seed)
    run(trial, 0.7, sessions=4, windows=60, seed=seed)
    assert run(trial, 0.7, sessions=8, windows=20, seed=seed) < 0.3
    run(trial, 1.6, sessions=1, windows=60, seed=seed)
    assert run(trial, 1.6, sessions=1, windows=60, seed=seed) > 0.9
    assert run(trial, 0.7, sessions=8, windows=60, seed=seed) < 0.2


def test_a_promise_that_was_broken_at_one_load_is_not_believed_at_a_higher_one() -> None:
    tried = 0.0
    for seed in range(20):
        trial = DraftingTrial(DOUBT, seed)
        run(trial, 0.7, sessions=2, windows=20, seed=seed)
        tried += run(trial, 0.7, sessions=16, windows=12, seed=seed) / 20
    assert tried < 0.08, "less than one window in twelve"


def test_what_was_held_back_among_many_texts_is_allowed_for_one_at_once() -> None:
    """Of many texts a window is short; what was drawn for it would last a lone text for seconds."""
    allowed = 0
    for seed in range(40):
        trial = DraftingTrial(DOUBT, seed)
        while trial.drafting:
            run(trial, 0.7, sessions=32, windows=1, promise=1.05, seed=seed)
        trial.observe(32, 1, 0.02, 1.05)
        trial.observe(1, 1, 0.02, 2.0)
        allowed += trial.drafting
    assert allowed >= 36


def test_a_window_is_of_the_load_that_it_mostly_had() -> None:
    """Of two streams one is between two texts now and then."""
    alone, both = DraftingTrial(DOUBT), DraftingTrial(DOUBT)
    for place in range(40 * 2 * WINDOW):
        alone.observe(2, 1, 0.02 / (0.7 if alone.drafting else 1.0), PROMISE)
        both.observe(1 if place % 8 == 0 else 2, 1, 0.02 / (0.7 if both.drafting else 1.0), PROMISE)
    assert alone._levels.keys() == both._levels.keys() == {1}


def _window(trial: DraftingTrial, speed: float, *, drafting: bool) -> int:
    """Rounds that a window takes, of one kind and with that speed."""
    trial.drafting = drafting
    for rounds in range(1, WINDOW + 1):
        trial.observe(1, 1, 1.0 / speed, PROMISE)
        if not trial._window.rounds:
            return rounds
    raise AssertionError("it should have ended")


def test_a_window_that_is_far_slower_than_the_other_way_is_given_up() -> None:
    trial = DraftingTrial(DOUBT)
    assert _window(trial, 25.0, drafting=True) == WINDOW, "nothing else is known yet"
    for speed in (47.0, 50.0, 53.0):
        assert _window(trial, speed, drafting=False) == WINDOW
    assert _window(trial, 45.0, drafting=True) == WINDOW, "a little slower may be chance"
    assert _window(trial, 25.0, drafting=True) == SETTLING + ENOUGH


def test_a_clear_promise_that_is_kept_is_never_put_to_the_test() -> None:
    assert run(DraftingTrial(DOUBT), 2.0, windows=300, promise=2.0) == 1.0


def test_the_first_rounds_of_a_window_do_not_count() -> None:
    trial, other = DraftingTrial(DOUBT), DraftingTrial(DOUBT)
    for place in range(20 * WINDOW):
        trial.observe(1, 1, 0.02, PROMISE)
        other.observe(1, 1, 5.0 if place % WINDOW < SETTLING else 0.02, PROMISE)
        assert trial.drafting == other.drafting


def test_without_doubt_nothing_is_tried() -> None:
    assert run(DraftingTrial(0.0), 0.5, windows=50) == 1.0
