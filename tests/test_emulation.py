"""Emulated models: what is stated about them holds, behind the real engine and its real roles."""

from __future__ import annotations

from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.engine.decoding import Decoder
from common.engine.drafting import Drafting
from common.engine.emulation import EmulatedDrafter, EmulatedEngine, EmulatedTarget, Pace, StepTimes
from common.engine.engine import Engine, Role
from common.engine.verification import Verification
from common.types import GenerationRequest, SamplingParams

WORDS = 50
TARGET = EmulatedTarget(words=WORDS)
PROBABILITIES = st.floats(0.0, 1.0)
POSITIONS = 4000
"""Shares of so many are known to 0.008, one standard deviation."""


def engine(model: EmulatedTarget | EmulatedDrafter, role: Role) -> Engine:
    """It takes no time."""
    return EmulatedEngine(model, role, StepTimes(base_s=0.0), vocabulary=WORDS + 1, context_length=512, kv_tokens=8192)


def request(**sampling: float) -> GenerationRequest:
    return GenerationRequest(
        prompt=(3, 1, 4, 1, 5), max_tokens=200, sampling=SamplingParams(**({"temperature": 0.0} | sampling))
    )


def shares(drafter: EmulatedDrafter) -> tuple[float, float]:
    """How often the first choice is the target's token, and the second where the first is not."""
    truths = [TARGET.choices((7, 7), position)[0] for position in range(POSITIONS)]
    choices = [drafter.choices((7, 7), position) for position in range(POSITIONS)]
    hits = [first == truth for (first, _), truth in zip(choices, truths, strict=True)]
    seconds = [second == truth for (_, second), truth, hit in zip(choices, truths, hits, strict=True) if not hit]
    return mean(hits), mean(seconds) if seconds else 0.0


@pytest.mark.parametrize(("acceptance", "runner_up"), [(0.8, 0.5), (0.3, 1.0), (0.5, 0.0)])
def test_a_drafter_is_right_as_often_as_stated(acceptance: float, runner_up: float) -> None:
    first, second = shares(EmulatedDrafter(target=TARGET, acceptance=acceptance, runner_up=runner_up))
    assert first == pytest.approx(acceptance, abs=0.04)
    assert second == pytest.approx(runner_up, abs=0.06)


@pytest.mark.parametrize("acceptance", [0.0, 1.0])
def test_a_drafter_may_be_always_wrong_or_always_right(acceptance: float) -> None:
    assert shares(EmulatedDrafter(target=TARGET, acceptance=acceptance, runner_up=0.5))[0] == acceptance


@given(PROBABILITIES, PROBABILITIES, st.integers(0, WORDS - 1), st.integers(1, 10**6))
def test_choices_are_two_tokens_and_always_the_same(acceptance: float, runner_up: float, name: int, at: int) -> None:
    drafter = EmulatedDrafter(target=TARGET, acceptance=acceptance, runner_up=runner_up)
    choices = drafter.choices((name, 0), at)
    assert choices == drafter.choices((name, 0), at)
    assert len(set(choices)) == 2 and all(0 <= token < WORDS for token in choices)


def test_texts_differ_and_so_do_seeds() -> None:
    def text(target: EmulatedTarget, name: int) -> list[int]:
        return [target.choices((name, 0), position)[0] for position in range(20)]

    assert text(TARGET, 1) == text(TARGET, 1)
    assert text(TARGET, 1) != text(TARGET, 2)
    assert text(TARGET, 1) != text(EmulatedTarget(words=WORDS, seed=1), 1)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("acceptance", [0.0, 0.8, 1.0])
def test_speculative_text_is_plain_text(temperature: float, acceptance: float) -> None:
    drafter = EmulatedDrafter(target=TARGET, acceptance=acceptance, runner_up=0.5)
    wanted = [request(temperature=temperature)]
    (plain,) = Decoder(engine(TARGET, Verification())).generate(wanted)
    (drafted,) = Decoder(engine(TARGET, Verification()), engine(drafter, Drafting())).generate(wanted)
    assert drafted.output == plain.output
    assert plain.output == tuple(TARGET.choices((3, 1), position)[0] for position in range(5, 205))
    assert drafted.stats.mean_acceptance_length == pytest.approx({0.0: 1.0, 0.8: 3.36, 1.0: 5.0}[acceptance], abs=0.4)


@pytest.mark.parametrize("field", ["acceptance", "runner_up"])
def test_a_probability_beyond_one_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        EmulatedDrafter(**({"target": TARGET, "acceptance": 0.5, "runner_up": 0.5} | {field: 1.1}))


def test_a_step_takes_no_negative_time() -> None:
    with pytest.raises(ValueError, match="negative"):
        StepTimes(base_s=-1.0)


class Sleeper:
    """A clock that only sleeping moves, each time a little further than asked for."""

    def __init__(self, late_s: float) -> None:
        self.now_s = 0.0
        self._late_s = late_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds + self._late_s


def paced(pace: Pace, sleeper: Sleeper, steps: int, tokens: int) -> float:
    """Seconds for so many steps."""
    start_s = sleeper.now_s
    for _ in range(steps):
        began_s = sleeper.now_s
        pace.wait(began_s, tokens)
        pace.settle(sleeper.now_s - began_s)
    return sleeper.now_s - start_s


def test_steps_take_their_time_on_average_however_late_a_sleep_ends() -> None:
    sleeper = Sleeper(late_s=1e-4)
    pace = Pace(StepTimes(base_s=1e-3, token_s=1e-4), clock=lambda: sleeper.now_s, sleep=sleeper.sleep)
    assert paced(pace, sleeper, 100, tokens=5) == pytest.approx(100 * 1.5e-3, abs=2e-4)


def test_a_process_that_stood_still_does_not_hurry_afterwards() -> None:
    sleeper = Sleeper(late_s=0.0)
    pace = Pace(StepTimes(base_s=1e-3), clock=lambda: sleeper.now_s, sleep=sleeper.sleep)
    pace.settle(10.0)
    assert paced(pace, sleeper, 100, tokens=1) >= 0.09
