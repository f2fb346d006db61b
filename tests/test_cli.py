"""The command line: bad input is one clear line that names what is wrong, before any work starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.cli import main
from cluster.config import SHIPPED, load_config

Ended = tuple[int, str, str]
"""Exit status, standard output, standard error."""


@pytest.fixture
def polydraft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """The command, in an empty folder, where no Ray can be reached."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "nowhere:1")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr("sys.argv", ["polydraft", *arguments])
        try:
            main()
        except SystemExit as end:
            assert isinstance(end.code, int)
            return (end.code, *capsys.readouterr())
        return (0, *capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "--config", "nope"], "--config nope: no such file"),
        (["train", "--config", "broken.yaml"], "broken.yaml"),
        (["train", "--set", "train.finetune.stepz=3"], "unknown setting `train.finetune.stepz`"),
        (["train", "--set", "train.finetune.steps=many"], "setting `train.finetune.steps`"),
        (["train", "--set", "languages=[de, xx]"], "unknown language `xx`"),
        (["train", "--language", "xx"], "--language xx: the configuration has de, fr"),
        (["train", "--from", "nowhere"], "'nowhere'"),
        (["train", "--from", "ngram"], "--from ngram: this configuration has no such stage"),
        (["train", "--from-traffic", "nowhere"], "nowhere: no such folder"),
        (["train", "--from-traffic", "."], "no captured prompts"),
        (["train", "--config", "tatoeba"], "--target"),
        (["train", "--config", "tatoeba", "--target", "missing"], "missing: no such folder"),
        (["serve"], "no such model; train it first"),
        (["drafters", "show", "de"], "de"),
    ],
)
def test_bad_input_is_named(polydraft: Callable[..., Ended], arguments: list[str], named: str, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("languages: [de\n", encoding="utf8")
    status, _, told = polydraft(*arguments)
    assert status != 0
    assert named in told.replace("\n", " ")


def test_a_dry_run_shows_the_stages_and_does_nothing(polydraft: Callable[..., Ended], tmp_path: Path) -> None:
    status, shown, told = polydraft("train", "--dry-run", "--language", "de", "--from", "finetune")
    assert status == 0, told
    lines = {line.split()[1]: line for line in shown.splitlines() if line.startswith("│")}
    assert "to do" in lines["de/distill"] and "again" in lines["de/finetune"]
    assert "fr/corpus" in lines and "fr/finetune" not in lines
    assert any(line.startswith("To do, ") and len(line) > 150 for line in shown.splitlines()), "as wide as the terminal"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configurations_are_valid(path: Path) -> None:
    assert load_config(path.stem).languages
