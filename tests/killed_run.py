"""A run of the tiny recipe that kills itself: ``python killed_run.py FOLDER EVENT STAGE``.

Only what STAGE needs is done before. SIGKILL comes when it is told to `begin`, when its work first tells how far it is
(`update`), or in the middle of its training, behind some checkpoints (`train`).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import msgspec
import ray
from tiny_recipe import tiny_recipe

import train.pipeline
from train.display import Display
from train.job import LoopSettings
from train.pipeline import Pipeline
from train.plan import Plan
from train.progress import Progress
from train.step import Step

STEPS, CHECKPOINT_EVERY = 400, 50
"""Some seconds of training, so that it is told of while it goes on."""


class Killer(Display):
    """Told to by what the run tells it."""

    event, stage = "", ""

    def _hear(self, event: str, language: str, stage: str) -> None:
        if (event, f"{language}/{stage}") == (self.event, self.stage):
            os.kill(os.getpid(), signal.SIGKILL)

    def begin(self, language: str, stage: str) -> None:
        self._hear("begin", language, stage)

    def update(self, language: str, stage: str, done: int, total: int) -> None:
        self._hear("update", language, stage)

    def train(self, language: str, stage: str, progress: Progress) -> None:
        if 2 * CHECKPOINT_EVERY <= progress.step < STEPS:
            self._hear("train", language, stage)


def long(loop: LoopSettings) -> LoopSettings:
    return msgspec.structs.replace(loop, steps=STEPS, checkpoint_every=CHECKPOINT_EVERY, log_every=1)


def plan(folder: Path) -> Plan:
    """Of one language; text and target lie in the folder."""
    recipe = tiny_recipe()
    return Plan(
        msgspec.structs.replace(recipe, pretrain=long(recipe.pretrain), finetune=long(recipe.finetune)),
        ["de"],
        run=folder / "run",
        data=str(folder),
        target=folder / "target",
        registry=str(folder / "registry"),
    )


def up_to(stage: str, steps: dict[str, Step]) -> dict[str, Step]:
    """The stage and all that it needs: no other one is in progress when the run is killed."""
    names = {stage}
    for name, step in reversed(steps.items()):
        if name in names:
            names |= {need.name for need in step.needs}
    return {name: step for name, step in steps.items() if name in names}


def main(folder: Path, event: str, stage: str) -> None:
    Killer.event, Killer.stage = event, stage
    vars(train.pipeline)["Display"] = Killer
    ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="warning")
    Pipeline(up_to(stage, plan(folder).steps)).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
