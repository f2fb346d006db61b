"""Ctrl-C and SIGTERM to a run: what is being trained is saved first, and goes on from there."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
import ray
from killed_run import up_to
from rich.console import Console
from tiny_recipe import tiny_recipe, write_text
from tiny_target import save_target

import train.executor
from cluster.config import Config, load_config
from cluster.run import make_run
from train.display import Display
from train.executor import Executor
from train.pipeline import Pipeline
from train.progress import log_path, read_progress
from train.recipe import Recipe
from train.step import Step
from train.stop_file import StopFile
from train.trainer import TrainingFailure

REPLACE = msgspec.structs.replace
STAGE = "de/pretrain"
STEPS = 400


def recipe(checkpoint_every: int) -> Recipe:
    tiny = tiny_recipe()
    loop = REPLACE(tiny.pretrain, steps=STEPS, checkpoint_every=checkpoint_every, log_every=1)
    return REPLACE(tiny, pretrain=loop)


def pipeline(folder: Path, config: Config, stage: str = STAGE) -> Pipeline:
    """As far as `stage`; text and target lie in the folder."""
    run = make_run("tiny", config, folder=str(folder / "run"), target=str(folder / "target"))
    return Pipeline(up_to(stage, run.plan(str(folder)).steps))


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_run_that_is_sent_sigterm_goes_on_and_ends_with_the_same_weights(ray_cluster: None, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for folder in (whole, stopped):
        folder.mkdir()
        save_target(folder / "target")
        write_text(folder, "de", "Die Nummer {} ist hier.")
    # None is due: the only checkpoint is the one that the signal brings about.
    config = REPLACE(load_config("quickstart"), languages=("de",), train=recipe(checkpoint_every=10 * STEPS))
    model = stopped / "run" / STAGE / "model"
    status, told = _signalled(signal.SIGTERM, stopped, config, when=lambda: read_progress(model))
    assert status == 128 + signal.SIGTERM, told
    assert "SIGTERM" in told and "de pretrain: stopped" in told
    lines = log_path(model).read_bytes()
    assert not model.exists() and lines.count(b"\n") < STEPS

    pipeline(stopped, config).run()

    assert log_path(model).read_bytes().startswith(lines), "what was done is not done again"
    alone = REPLACE(config, train=recipe(checkpoint_every=0))
    pipeline(whole, alone).run()

    weights = (whole / "run" / STAGE / "model" / "model.safetensors").read_bytes()
    assert (model / "model.safetensors").read_bytes() == weights


def _signalled(number: int, folder: Path, config: Config, when: Callable[[], object]) -> tuple[int, str]:
    """The command, sent a signal when `when` is true; its exit status and standard error."""
    (folder / "tiny.yaml").write_bytes(msgspec.json.encode(config))
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    options = {"config": "tiny.yaml", "data": folder, "target": folder / "target", "run": folder / "run"}
    arguments = [f"--{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "cluster.cli", "train", *arguments]
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: when() or process.poll() is not None)
        process.send_signal(number)
        _, told = process.communicate(timeout=120)
    return process.returncode, told


class Trainer:
    """In the place of `fit_all`: a training that has done a step, or none, and ends when it is told to."""

    def __init__(self, *, begun: bool) -> None:
        self.begun = begun
        self.ended, self.trains = threading.Event(), threading.Event()

    def __call__(self, jobs: dict[str, Any], _: Any, __: Any, given_up: threading.Event) -> dict[str, TrainingFailure]:
        (job,) = jobs.values()
        if self.begun:
            StopFile(job.output).listen()
        self.trains.set()
        wait_for(lambda: self.ended.is_set() or given_up.is_set())
        return {language: TrainingFailure(name=language, message="stopped") for language in jobs}


@pytest.fixture
def training(tmp_path: Path) -> Step:
    """A step with nothing left to do but to train."""
    save_target(tmp_path / "target")
    config = REPLACE(load_config("quickstart"), languages=("de",), train=recipe(checkpoint_every=1))
    step = pipeline(tmp_path, config).steps[STAGE]
    step.stage.begin()
    (step.stage.folder / "rows").mkdir()
    return step


@pytest.fixture
def begin(training: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Trainer], asyncio.Task[None]]:
    def begun(trainer: Trainer) -> asyncio.Task[None]:
        monkeypatch.setattr(train.executor, "fit_all", trainer)
        executor = Executor(Display(Console(file=StringIO())))
        return asyncio.create_task(executor.carry_out(training))

    return begun


async def _cancel(task: asyncio.Task[None], trainer: Trainer) -> bool:
    """Once it trains. Returns whether it ends at once."""
    await asyncio.to_thread(trainer.trains.wait, 60)
    task.cancel()
    return bool((await asyncio.wait({task}, timeout=0.3))[0])


async def test_a_training_that_is_cancelled_is_asked_to_save_and_waited_for(
    begin: Callable[[Trainer], asyncio.Task[None]], training: Step
) -> None:
    trainer = Trainer(begun=True)
    task = begin(trainer)
    assert not await _cancel(task, trainer)
    assert StopFile(training.stage.folder / "model").asked()
    trainer.ended.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)


async def test_it_is_not_waited_for_when_cancelled_again_or_for_too_long(
    begin: Callable[[Trainer], asyncio.Task[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(begun=True)
    task = begin(trainer)
    assert not await _cancel(task, trainer) and await _cancel(task, trainer)
    monkeypatch.setattr(train.executor, "STOP_WITHIN_S", 0.1)
    trainer = Trainer(begun=True)
    assert await _cancel(begin(trainer), trainer)


async def test_a_training_that_has_nothing_to_save_is_given_up_at_once(
    begin: Callable[[Trainer], asyncio.Task[None]],
) -> None:
    trainer = Trainer(begun=False)
    assert await _cancel(begin(trainer), trainer)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_run_at_once(number: signal.Signals, tmp_path: Path, training: Step) -> None:
    cancelled = []

    class Stubborn(Executor):
        async def carry_out(self, step: Step) -> None:
            os.kill(os.getpid(), number)
            for _ in range(2):
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    cancelled.append(step.stage.name)
                    os.kill(os.getpid(), number)
            raise asyncio.CancelledError

    before = signal.getsignal(number)
    run = Pipeline({STAGE: REPLACE(training, needs=())})
    vars(run)["_executor"] = Stubborn(Display(Console(file=StringIO())))
    with pytest.raises(SystemExit) as ended:
        run.run()
    assert ended.value.code == 128 + number
    assert cancelled == [STAGE, STAGE]
    assert signal.getsignal(number) is before
