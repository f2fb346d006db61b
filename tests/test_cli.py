"""The command line: bad input is one clear line that names what is wrong, before any work starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.config import SHIPPED, load_config


def polydraft(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "RAY_ADDRESS": "nowhere:1"}
    command = [sys.executable, "-m", "cluster.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "--config", "nope"], "--config nope: no such file"),
        (["train", "--config", "broken.yaml"], "broken.yaml"),
        (["train", "--set", "train.finetune.stepz=3"], "unknown setting `train.finetune.stepz`"),
        (["train", "--set", "train.finetune.steps=many"], "setting `train.finetune.steps`"),
        (["train", "--set", "languages=[de, xx]"], "unknown language `xx`"),
        (["train", "--config", "tatoeba"], "--target"),
        (["train", "--config", "tatoeba", "--target", "missing"], "missing: no such folder"),
        (["serve"], "no such model; train it first"),
        (["drafters", "show", "de"], "de"),
    ],
)
def test_bad_input_is_named(arguments: list[str], named: str, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("languages: [de\n", encoding="utf8")
    result = polydraft(*arguments, cwd=tmp_path)
    assert result.returncode != 0
    assert named in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configurations_are_valid(path: Path) -> None:
    assert load_config(path.stem).languages
