"""The plan beside the emulated service: a short mix comes near what is predicted, and what is told is what was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cluster.bench.capacity import Outcome, outcome, report_outcomes
from cluster.bench.commands import bench
from cluster.bench.emulated_service import write_target
from cluster.bench.mixes import MIXES, Mix, Texts, one_language
from cluster.bench.streams import Measured
from cluster.capacity.costs import Coordination, Leg
from common.engine.emulation import StepTimes
from serve.router import TargetModel

NOTHING = Coordination(verify=Leg(base_ms=0.0), draft=Leg(base_ms=0.0))


def test_a_mix_of_two_languages_comes_near_what_is_predicted(tmp_path: Path) -> None:
    """Loosely: the machine does other things as well."""
    mix = Mix(
        verify=StepTimes(base_s=40e-3),
        languages={
            "de": Texts(streams=3, acceptance=0.9, output_tokens=64, draft=StepTimes(base_s=2e-3)),
            "ja": Texts(streams=2, drafters=0, output_tokens=64),
        },
    )
    found = outcome(mix, Coordination(), TargetModel(str(write_target(tmp_path))), seconds=2.0, warm_up_s=1.0)
    assert found.predicted["de"].drafted > 0 == found.predicted["ja"].drafted
    assert found.measured["de"].drafted > 0 == found.measured["ja"].drafted
    assert 0.7 < found.figures()["ratio"] < 2.0


def test_a_mix_in_which_nothing_takes_any_coordination_is_as_fast_as_its_steps() -> None:
    [rounds] = one_language(8, 4).predicted(NOTHING).values()
    assert rounds.seconds == pytest.approx(one_language(8, 4).steps_s(4), rel=1e-3)
    assert (rounds.drafted, rounds.tokens) == (4, 5.0)


def test_every_mix_can_be_predicted_and_they_differ() -> None:
    predicted = {name: mix.predicted(Coordination()) for name, mix in MIXES.items()}
    assert len(MIXES) == 6
    assert {rounds.drafted for rounds in predicted["never worth it"].values()} == {0}
    held_up = {rounds.seconds for rounds in predicted["slow drafter"].values()}
    assert len(held_up) == 1, "all wait for the slow one"
    faster = Mix(
        verify=MIXES["slow drafter"].verify,
        languages={"fr": MIXES["slow drafter"].languages["fr"]},
    )
    assert faster.predicted(Coordination())["fr"].seconds < min(held_up)


def test_texts_of_a_mix_begin_differently() -> None:
    mix = MIXES["three languages"]
    begun = [next(texts).prompt[:2] for language in mix.languages for texts in mix.requests(language)]
    assert len(set(begun)) == len(begun) == 20


def test_the_texts_of_a_mix_end_one_after_another() -> None:
    mix = MIXES["long prompts"]
    streams = mix.requests("zh")
    assert [next(texts).max_tokens for texts in streams] == [round(256 * n / 12) for n in range(1, 13)]
    assert {next(texts).max_tokens for texts in streams} == {256}


def test_the_worst_ratio_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    mix = one_language(1, 0)
    predicted = mix.predicted(NOTHING)
    outcomes = {
        f"{speed}": Outcome(
            mix=mix, predicted=predicted, measured={"de": Measured(seconds=1.0, tokens=speed, rounds=speed)}
        )
        for speed in (40, 50)
    }
    report_outcomes(outcomes, NOTHING)
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["mixes"]["40"] == {"predicted": 40.0, "measured": 40.0, "ratio": 1.0}
    assert told["worst"] == told["mixes"]["50"]["ratio"] == 0.8


def test_an_unknown_mix_is_named() -> None:
    result = CliRunner().invoke(bench, ["capacity", "--mix", "none"])
    assert result.exit_code == 2
    assert "--mix none" in result.output
