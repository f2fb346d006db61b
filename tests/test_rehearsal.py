"""What an operator does, in full, on a real cluster of its own, with token authentication: about two minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from cluster import rehearsal
from cluster.bench.faults import QUESTIONS
from cluster.local_cluster import ROOT, LocalCluster
from cluster.rehearsal import Rehearsed, main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rehearsal")


class Watched(LocalCluster):
    """Remembers what it answered without its token, and where it kept its things."""

    refused: int
    folder: bytes

    def _wait(self) -> None:
        super()._wait()
        Watched.folder = bytes(self._folder)
        try:
            urllib.request.urlopen(f"{self.dashboard}/api/jobs/", timeout=10)
        except urllib.error.HTTPError as error:
            Watched.refused = error.code


class Interrupted(LocalCluster):
    def _wait(self) -> None:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def rehearsed(run: Path) -> Rehearsed:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rehearsal, "LocalCluster", Watched)
        return main(str(run))


def test_a_language_is_promoted_under_load_and_no_request_fails(rehearsed: Rehearsed) -> None:
    assert rehearsed.promoted == "de/v0002"
    assert rehearsed.texts >= rehearsal.QUESTIONS
    assert (rehearsed.failed, rehearsed.unequal) == (0, 0)


def test_the_text_is_the_same_with_and_without_speculation(rehearsed: Rehearsed) -> None:
    assert rehearsed.equal


def test_the_cluster_answers_nobody_without_its_token(rehearsed: Rehearsed) -> None:
    assert Watched.refused == 401


def test_what_was_deployed_is_in_the_file(rehearsed: Rehearsed, run: Path) -> None:
    written = yaml.safe_load((run / "serve.yaml").read_text(encoding="utf8"))
    assert [each["name"] for each in written["applications"]] == ["polydraft", "drafter-de", "drafter-fr"]


def test_of_three_machines_one_can_die(rehearsed: Rehearsed, run: Path) -> None:
    """With the models of the rehearsal; in a process of its own, as this one may have a Ray already."""
    arguments = ("--config", rehearsal.CONFIG, "--run", str(run), "--data", str(run / "phrasebook"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, "-m", "cluster.cli", "bench", "nodes", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert (figures["failed"], figures["unequal"], figures["leaked"]) == (0, 0, 0)
    assert figures["kills"] == 3, "a verifier and both drafters"
    assert figures["texts"] > QUESTIONS


def test_nothing_of_the_cluster_is_left(rehearsed: Rehearsed) -> None:
    assert _left(Watched.folder) == []


def test_nothing_is_left_of_a_start_that_was_interrupted() -> None:
    cluster = Interrupted(num_cpus=1)
    with pytest.raises(KeyboardInterrupt), cluster:
        pass
    assert _left(bytes(cluster._folder)) == []


def _left(folder: bytes) -> list[Path]:
    """All processes of a cluster are told its folder."""
    running = [path for path in Path("/proc").glob("[0-9]*/cmdline") if folder in _read(path)]
    return running + [path for path in [Path(os.fsdecode(folder))] if path.exists()]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
