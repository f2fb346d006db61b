"""Jobs: what is wrong is told before any work; the package is small; `polydraft job` is Ray's own command."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import get_excludes_from_ignore_files
from tiny_recipe import tiny_recipe, write_text
from tiny_target import save_target

from cluster import submit
from cluster.cli import main, run_job
from cluster.jobs import distill, evaluate, publish, train
from train.plan import Plan
from train.selection import until

ROOT = Path(__file__).parent.parent
JOBS = {"train": train.job, "distill": distill.job, "evaluate": evaluate.job, "publish": publish.job}
Ended = tuple[int, str]
"""Exit status and standard error."""


@pytest.fixture
def submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """A job, in an empty folder, where no Ray can be reached."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "nowhere:1")

    def run(name: str, *arguments: str) -> Ended:
        monkeypatch.setattr("sys.argv", [f"{name}.py", *arguments])
        try:
            run_job(JOBS[name])
        except SystemExit as end:
            return int(end.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "--run: name a folder on storage that every machine"),
        (("--run", "runs/x"), "--run runs/x: must be an absolute path"),
        (("--run", "/r", "--data", "text"), "--data text: must be an absolute path"),
        (("--run", "/r", "--config", "nope"), "--config nope: no such file"),
        (("--run", "/proc/r", "--config", "laptop", "--target", "/nope"), "/nope: no such folder"),
        (("--run", "/r", "--set", "train.finetune.stepz=3"), "unknown setting `train.finetune.stepz`"),
    ],
)
def test_a_wrong_path_is_told_before_any_work(
    submitted: Callable[..., Ended], name: str, arguments: tuple[str, ...], named: str
) -> None:
    status, told = submitted(name, *arguments)
    assert status == 1
    assert named in told


def test_a_folder_of_prompts_must_be_one_that_every_machine_sees(submitted: Callable[..., Ended]) -> None:
    status, told = submitted("train", "--run", "/r", "--from-traffic", "kept")
    assert status == 1 and "--from-traffic kept: must be an absolute path" in told


def test_every_file_that_is_missing_is_told_with_the_line_of_its_setting(
    submitted: Callable[..., Ended], tmp_path: Path
) -> None:
    target, data = save_target(tmp_path / "target"), tmp_path / "data"
    (data / "de").mkdir(parents=True)
    (data / "de" / "valid.tsv").write_text("Haus\thouse\n")
    paths = ("--run", str(tmp_path / "run"), "--target", str(target), "--data", str(data))
    status, told = submitted("train", "--config", "laptop", *paths)
    assert status == 1
    [line] = [line for line in told.splitlines() if "train.corpus.valid" in line]
    assert "laptop.yaml:10: train.corpus.valid: no such file" in line
    assert f"{data}/fr/valid.tsv" in line and f"{data}/de/valid.tsv" not in line
    assert "train.corpus.test: no such file" in told


def test_nothing_is_published_that_is_not_trained(submitted: Callable[..., Ended], tmp_path: Path) -> None:
    for language in ("de", "fr", "ja", "ru", "zh"):
        write_text(tmp_path, language, "Nummer {}")
    paths = ("--config", "quickstart", "--run", str(tmp_path / "run"), "--data", str(tmp_path))
    status, told = submitted("publish", *paths)
    assert status == 1
    assert "de/evaluate/finetune" in told and "not done" in told and "run the job train first" in told


def test_a_run_can_end_with_the_answers(tmp_path: Path) -> None:
    write_text(tmp_path, "de", "Nummer {}")
    registry = str(tmp_path / "registry")
    plan = Plan(tiny_recipe(), ("de",), run=tmp_path / "run", data=str(tmp_path), target=None, registry=registry)
    steps = plan.steps
    assert list(until(steps, "distill")) == ["de/corpus", "target", "de/distill"]
    assert list(until(steps, "publish")) == list(steps)


def test_the_package_holds_what_a_job_needs_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    excluded = get_excludes_from_ignore_files(ROOT, include_gitignore=True)
    sent = [path for path in ROOT.rglob("*") if path.is_file() and not any(e(path) for e in excluded)]
    names = {path.relative_to(ROOT).parts[0] for path in sent if ".git" not in path.parts}
    assert {"cluster", "common", "serve", "train"} <= names
    assert not names & {"tests", "docs", ".venv", "runs"}


def test_the_command_is_rays_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[list[str]] = []

    def ended(command: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(submit.subprocess, "run", ended)
    own = ["--config", "a b", "--force"]
    monkeypatch.setattr("sys.argv", ["polydraft", "job", "--address", "http://h:8265", "train", *own])
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 3, "the job's own status"
    assert "RAY_AUTH_TOKEN" not in os.environ, "the cluster has one already"
    written = "ray job submit --address http://h:8265 --working-dir . -- python -m cluster.jobs.train --config 'a b'"
    assert capsys.readouterr().err == f"{written} --force\n"
    assert ran == [[str(Path(sys.executable).with_name("ray")), *shlex.split(written)[1:], "--force"]]
