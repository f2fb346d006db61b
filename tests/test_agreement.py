"""What texts that go in step draft together: each alone would be wrong about it."""

from __future__ import annotations

from collections.abc import Callable
from statistics import mean, median

import pytest
from draft_length_simulation import MAX_LENGTH, Simulation, World, fixed

from serve.drafting.agreement import Agreement
from serve.drafting.settings import SpeculationSettings

SEEDS = range(3)
LEGS_ALONE = SpeculationSettings(doubt=0.0)
"""What the A/B test on the clock makes of it, is another matter."""


def agreement() -> Agreement:
    return Agreement(hysteresis=0.01, min_gain=0.1)


def test_a_single_text_decides_for_itself() -> None:
    heard = agreement()
    for values, length in [([10.0, 12.0], 1), ([10.0, 9.0], 0), ([10.0, 12.0, 14.0], 2), ([10.0, 10.5, 10.5], 0)]:
        assert heard.hear(values, 1) == length == heard.length
        assert heard.gain == values[length] / values[0]


def test_texts_that_differ_do_the_same() -> None:
    heard = agreement()
    for _ in range(8):
        for values in ([10.0, 13.0], [10.0, 11.5], [10.0, 9.5], [10.0, 12.5]):
            heard.hear(values, 4)
    assert {heard.hear([10.0, value], 4) for value in (13.0, 11.5, 9.5, 12.5)} == {1}
    assert heard.gain == pytest.approx(1.16, abs=0.02)


def test_a_load_that_has_become_one_text_is_decided_by_that_one() -> None:
    heard = agreement()
    for _ in range(100):
        heard.hear([10.0, 5.0, 3.0], 32)
    assert heard.hear([20.0, 30.0, 40.0], 1) == 2


def test_who_knows_of_longer_drafts_is_heard_on_them() -> None:
    heard = agreement()
    heard.hear([10.0, 12.0], 4)
    assert heard.hear([10.0, 12.0, 15.0], 4) == 2
    assert heard.hear([10.0, 12.0], 4) == 2


def on_a_line(tokens: int) -> float:
    return 0.010 + 0.001 * tokens


def as_on_a_cpu(tokens: int) -> float:
    return 0.010 if tokens == 1 else 0.014 + 0.002 * tokens


@pytest.mark.parametrize(
    ("step_s", "texts", "acceptance"),
    [(on_a_line, 8, 0.81), (on_a_line, 16, 0.89), (as_on_a_cpu, 4, 0.72), (as_on_a_cpu, 8, 0.86)],
)
def test_a_small_gain_is_had_although_texts_estimate_it_differently(
    step_s: Callable[[int], float], texts: int, acceptance: float
) -> None:
    """One or two tokens, the best, gain 13 to 20 %."""
    world = World(step_s=step_s, acceptance=acceptance)
    lengths = [fixed(world, n, texts=texts) for n in range(MAX_LENGTH + 1)]
    assert lengths.index(max(lengths)) in (1, 2) and 1.13 < max(lengths) / lengths[0] < 1.23
    reached = []
    for seed in SEEDS:
        simulation = Simulation(world, LEGS_ALONE, texts=texts, seed=seed)
        simulation.run(100)
        reached.append(simulation.run(400).tokens_per_s)
    assert mean(reached) >= 0.98 * max(lengths)


@pytest.mark.parametrize("seed", range(9))
@pytest.mark.parametrize("french_acceptance", [0.0, 0.3])
def test_texts_whose_own_drafter_is_bad_stop_while_others_go_on(french_acceptance: float, seed: int) -> None:
    french, others = _drafted(french_acceptance, LEGS_ALONE, seed)
    assert french < 0.1 and others > 1.8


@pytest.mark.parametrize("french_acceptance", [0.0, 0.3])
def test_the_same_where_a_trial_holds_all_of_them_back_at_times(french_acceptance: float) -> None:
    french, others = zip(*(_drafted(french_acceptance, SpeculationSettings(), seed) for seed in range(9)), strict=True)
    assert max(french) < 0.1
    assert median(others) > 1.9
    assert min(others) > 1.3, "at most two of the six windows of that time are held back"


def _drafted(french_acceptance: float, settings: SpeculationSettings, seed: int) -> tuple[float, float]:
    """Mean lengths of four texts in French and of eight others."""
    world = World(step_s=lambda tokens: 0.02 + 0.0008 * tokens, french_acceptance=french_acceptance)
    simulation = Simulation(world, settings, texts=12, french=4, seed=seed)
    simulation.run(100)
    run = simulation.run(200)
    french, all_lengths = sum(run.french_lengths), sum(run.lengths)
    num_french = len(run.french_lengths)
    return french / num_french, (all_lengths - french) / (len(run.lengths) - num_french)
