"""What an operator does, in full, on a real cluster of its own, with token authentication: about two minutes."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from cluster import rehearsal
from cluster.local_cluster import LocalCluster
from cluster.rehearsal import Rehearsed, main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rehearsal")


@pytest.fixture(scope="module")
def refused() -> list[int]:
    """Status of what was asked of the cluster without its token."""
    return []


@pytest.fixture(scope="module")
def rehearsed(run: Path, refused: list[int]) -> Rehearsed:
    class Watched(LocalCluster):
        def __enter__(self) -> LocalCluster:
            made = super().__enter__()
            try:
                urllib.request.urlopen(f"{self.dashboard}/api/jobs/", timeout=10)
            except urllib.error.HTTPError as error:
                refused.append(error.code)
            return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rehearsal, "LocalCluster", Watched)
        return main(str(run))


def test_a_language_is_promoted_under_load_and_no_request_fails(rehearsed: Rehearsed) -> None:
    assert rehearsed.promoted == "de/v0002"
    assert rehearsed.texts >= rehearsal.QUESTIONS
    assert (rehearsed.failed, rehearsed.unequal) == (0, 0)


def test_the_text_is_the_same_with_and_without_speculation(rehearsed: Rehearsed) -> None:
    assert rehearsed.equal


def test_the_cluster_answers_nobody_without_its_token(rehearsed: Rehearsed, refused: list[int]) -> None:
    assert refused == [401]


def test_what_was_deployed_is_in_the_file(rehearsed: Rehearsed, run: Path) -> None:
    written = yaml.safe_load((run / "serve.yaml").read_text(encoding="utf8"))
    assert [each["name"] for each in written["applications"]] == ["polydraft", "drafter-de", "drafter-fr"]


def test_nothing_of_the_cluster_is_left(rehearsed: Rehearsed) -> None:
    """Processes are known by the cluster's folder, which all are told."""
    commands = (path for path in Path("/proc").glob("[0-9]*/cmdline") if path.parent.name != str(os.getpid()))
    assert not [path for path in commands if b"--temp-dir=" in _read(path) and b"/pd-" in _read(path)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
