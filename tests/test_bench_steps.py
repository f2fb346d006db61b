"""`polydraft bench steps`: all ways are timed, and what cannot be is refused."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from cluster.bench import steps
from cluster.bench.commands import bench
from common.settings import SettingsError

TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(bench, ["steps", *arguments])
    return result.exit_code, result.output


def test_all_ways_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "SHAPES", {"tiny": TINY})
    monkeypatch.setattr(steps, "_BYTES", 2**20)
    ways = ("plain", "prepacked", "int8")
    code, output = run("--target", "tiny", "--drafter", "tiny", "--turns", "1", *(f"--way={way}" for way in ways))
    assert code == 0, output
    figures = json.loads(output.splitlines()[-1])
    assert tuple(figures["ways"]) == ways
    for way in figures["ways"].values():
        assert {*way} == {*steps.VERIFIED, *steps.DRAFTED, "verify_6_over_decode_1", "bandwidth_share"}
        assert all(figure > 0.0 for figure in way.values())
        assert way["draft_5"] > way["decode_1"], "five steps take longer than one"


def test_a_shape_that_is_not_known_is_told() -> None:
    code, output = run("--target", "gpt-5")
    assert code == 2
    assert "--target gpt-5: there are llama-68m" in output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--way", "fast"], "--way fast: on cpu in float32 there are plain, prepacked"),
        (["--way", "int8", "--dtype", "bfloat16"], "--way int8: on cpu in bfloat16 there are plain, compiled"),
    ],
)
def test_a_way_that_the_device_does_not_have_is_told(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(bench, ["steps", *arguments])
    assert isinstance(result.exception, SettingsError)
    assert told in str(result.exception)
