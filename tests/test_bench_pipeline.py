"""The pipeline benchmark: its ideals are right, what it measures with is what it says, and it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from cluster.bench import pipeline
from cluster.bench.commands import bench
from cluster.bench.emulated import LONGEST, Emulated, emulate
from cluster.bench.emulated_service import write_target
from cluster.bench.instant import InstantEngine
from cluster.bench.pipeline import Pipeline, Result
from cluster.bench.streams import Measured, Tally
from common.engine.emulation import StepTimes
from common.messages import Draft, Propose, Verdict, Verify
from common.types import Progress, SpeculationStats
from serve.router import TargetModel

SMALL = emulate(verify_ms=2.0, verify_token_ms=0.0, draft_ms=0.2, acceptance=0.8, runner_up=0.5)


def test_the_ideal_of_7b_timings() -> None:
    emulated = Emulated()
    assert emulated.best_length(1) == 7
    tokens = 1 + 0.8 + 0.8**2 + 0.8**3 + 0.8**4 + 0.8**5 + 0.8**6 + 0.8**7
    assert emulated.ideal(1) == pytest.approx(tokens / (25e-3 + 7 * 1.5e-3))
    assert emulated.ideal(32) == pytest.approx(32 * emulated.ideal(1))


@given(st.floats(0.0, 1.0), st.integers(1, 64), st.floats(0.0, 1e-3))
def test_no_length_beats_the_ideal_and_dearer_tokens_do_not_lengthen_it(
    acceptance: float, streams: int, token_s: float
) -> None:
    free = Emulated(acceptance=acceptance)
    dear = Emulated(acceptance=acceptance, verify=StepTimes(base_s=25e-3, token_s=token_s))
    assert all(dear.tokens_per_s(n, streams) <= dear.ideal(streams) for n in range(LONGEST + 1))
    assert dear.best_length(streams) <= free.best_length(streams)


def test_without_acceptance_nothing_is_worth_drafting() -> None:
    assert Emulated(acceptance=0.0).best_length(1) == 0
    assert Emulated(acceptance=0.0).ideal(1) == pytest.approx(40.0)


def test_rounds_count_for_what_their_drafts_are_worth() -> None:
    tally = Tally(SMALL)
    first = Progress(tokens=(1, 2), stats=SpeculationStats(rounds=1, drafted_tokens=4))
    tally.add(first, Progress(tokens=(), stats=SpeculationStats()))
    tally.add(Progress(tokens=(3,), stats=SpeculationStats(rounds=2, drafted_tokens=4)), first)
    measured = tally.end()
    assert (measured.rounds, measured.drafted, measured.tokens) == (2, 4, 3)
    assert measured.expected_tokens == pytest.approx(SMALL.expected_tokens(4) + 1)
    tally.begin()
    assert tally.end().rounds == 0


def test_the_instant_engine_answers_all_at_once_and_says_what_it_would_have_taken() -> None:
    engine = InstantEngine(StepTimes(base_s=1.0, token_s=0.5))
    engine.handle("a", Propose(session=1, base=3, committed=(3, 4), count=2))
    engine.handle("b", Verify(session=2, base=7, draft=(7, 8, 9)))
    engine.handle("c", Verify(session=3, base=8))
    (_, draft), (_, verdict), (_, plain) = engine.step()
    assert isinstance(draft, Draft) and isinstance(verdict, Verdict) and isinstance(plain, Verdict)
    assert (draft.base, draft.tokens, draft.cost.seconds) == (5, (5, 6), 3.0)
    assert verdict.next_token == 7 + verdict.accepted <= 10
    assert plain.accepted == 0
    assert verdict.cost == plain.cost and (verdict.cost.seconds, verdict.cost.tokens) == (3.5, 5)
    assert not engine.busy


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--emulate"),
        (["--emulate", "--acceptance", "2"], "acceptance"),
        (["--emulate", "--streams", "x"], "numbers with commas"),
    ],
)
def test_bad_options_are_named(arguments: list[str], named: str) -> None:
    result = CliRunner().invoke(bench, ["pipeline", *arguments])
    assert result.exit_code == 2
    assert named in result.output


class Measuring(Pipeline):
    """Says that 97 tokens are written a second, or 100 where the draft length is fixed."""

    def texts(self, streams: int, *, run_ahead: int = 0) -> Measured:
        is_fixed = self._settings.speculation.draft_length is not None
        return Measured(seconds=1.0, rounds=30, tokens=100, expected_tokens=100.0 if is_fixed else 97.0)


@pytest.mark.parametrize(("acceptance", "best"), [(0.8, 7), (0.0, 0), (1.0, 8)])
def test_the_regret_is_what_is_lost_of_the_best_length_that_the_controller_may_choose(
    acceptance: float, best: int, tmp_path: Path
) -> None:
    emulated, result = Emulated(acceptance=acceptance), Result()
    measuring = Measuring(emulated, 1.0, TargetModel(str(write_target(tmp_path))))
    rows = pipeline._efficiencies(emulated, 1, measuring, result)
    pipeline._efficiencies(emulated, 32, measuring, result)
    assert result.regret == {"one": 0.03, "many": 0.03}
    assert rows[1][0] == f"serial, always {best}"


def test_it_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(pipeline, "WARM_UP_S", 0.2)
    pipeline.main(SMALL, [2], 0.3, ["efficiency"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures.pop("provenance")
    assert figures.pop("efficiency_batched") > 0
    assert figures.pop("regret").keys() == {"many"}
    names = {"efficiency_serial", "efficiency_run_ahead", "never_accepted", "rounds_per_s"}
    assert figures == dict.fromkeys(names)
