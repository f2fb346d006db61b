"""Carrying out a step whose training is faked: what it leaves in the stage's folder, and what it finds there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from tiny_recipe import tiny_recipe

from train.display import Display
from train.executor import Executor, StepFailure
from train.job import TrainingJob
from train.progress import Progress
from train.run import Resources
from train.stages import stage
from train.step import Step, Training
from train.trainer import Outcome, TrainingFailure

RECIPE = tiny_recipe()
ENDED = Progress(step=3, steps=3, loss=1.0, tokens_per_second=1.0, learning_rate=0.0, gradient_norm=1.0, elapsed_s=1.0)


class FakeTraining:
    """Leaves a checkpoint where Ray Train would; `found` tells the ones that were there before."""

    def __init__(self) -> None:
        self.ends_well = True
        self.found: list[bool] = []

    def __call__(self, jobs: dict[str, TrainingJob], resources: Resources, *_: object) -> dict[str, Outcome]:
        [(owner, job)] = jobs.items()
        checkpoint = Path(resources.storage, job.name, "checkpoint")
        self.found.append(checkpoint.exists())
        checkpoint.mkdir(parents=True, exist_ok=True)
        return {owner: ENDED if self.ends_well else TrainingFailure(name=job.name, message="killed")}


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    fake = FakeTraining()
    monkeypatch.setattr("train.executor.fit_all", fake)
    return fake


def carry_out(run: Path, learning_rate: float) -> Step:
    """A pretraining whose rows are there already."""
    loop = msgspec.structs.replace(RECIPE.pretrain, learning_rate=learning_rate)
    step = Step(
        stage=stage(run, "de/pretrain", loop=loop),
        needs=(),
        work=lambda: iter(()),
        arguments=(),
        training=Training(
            initial=run / "initial", loop=loop, workers=RECIPE.workers, target=None, evaluate=RECIPE.evaluate
        ),
    )
    step.stage.begin()
    (step.stage.folder / "rows").mkdir(exist_ok=True)
    asyncio.run(Executor(Display()).carry_out(step))
    return step


def test_checkpoints_are_resumed_by_the_same_settings_only(tmp_path: Path, training: FakeTraining) -> None:
    training.ends_well = False
    for learning_rate in (0.1, 0.1, 0.2, 0.1):
        with pytest.raises(StepFailure, match="killed"):
            carry_out(tmp_path, learning_rate)
    assert training.found == [False, True, False, False], "what other settings left behind is gone"


def test_a_finished_stage_keeps_no_checkpoints(tmp_path: Path, training: FakeTraining) -> None:
    step = carry_out(tmp_path, 0.1)
    assert step.stage.done
    assert sorted(path.name for path in step.stage.folder.iterdir()) == ["rows", "stage.json", "started.json"]
