"""One step of a run: a stage, what it needs, and the work that makes its results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from common.registry import Manifest
from train.capacity import Request
from train.evaluation.drafter import Evaluation
from train.job import LoopSettings
from train.publishing import Place
from train.recipe import EvaluateSettings, WorkerSettings
from train.stages import Stage
from train.tasks import Steps

STAGES = ("corpus", "target", "pretrain", "distill", "ngram", "finetune", "refresh", "evaluate", "publish")
"""Kinds of steps, in the order of the work."""
FACTS = {"evaluate": Evaluation}
"""What the facts of a record are read as, by the kind of the step, where they are."""


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """What follows on a step's work where a model is to be trained: on ``<stage>/rows``, into ``<stage>/model``."""

    initial: Path
    """Folder of the model to start from."""
    loop: LoopSettings
    workers: WorkerSettings
    target: Path | None
    """Teacher and judge of a drafter; None where the target itself is trained."""
    evaluate: EvaluateSettings
    """How checkpoints are judged, if the loop wants them to be."""

    @property
    def requests(self) -> list[Request]:
        """What it asks Ray for; checkpoints are judged beside the training, on no CPU of Ray's."""
        setting = "train.target.workers" if self.target is None else "train.workers"
        own, judged = self.workers, self.loop.validate_every and self.workers.validation_gpus
        training = Request(setting=setting, parts=own.workers, cpus=own.cpus_per_worker, gpus=int(own.use_gpu))
        judging = Request(setting=f"{setting}.validation_gpus", cpus=0, gpus=own.validation_gpus)
        return [training, judging] if judged else [training]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    stage: Stage
    needs: tuple[Stage, ...]
    work: Callable[..., Steps]
    arguments: tuple[Any, ...]
    """For `work`, after the stage."""
    gpus: float = 0.0
    """For `work`."""
    actors: Request | None = None
    """That `work` starts, if it does: at least one of them."""
    training: Training | None = None
    place: Place | None = None
    """Where the step publishes, if it does."""

    @property
    def owner(self) -> str:
        """The language, or what stands where a language would."""
        return self.stage.name.partition("/")[0]

    @property
    def label(self) -> str:
        """Its name without the owner's: ``evaluate/finetune``."""
        return self.stage.name.partition("/")[2] or self.stage.name

    @property
    def kind(self) -> str:
        """One of STAGES."""
        return self.label.partition("/")[0].partition("-")[0]

    @property
    def job_name(self) -> str:
        """Of the training run."""
        return f"{self.stage.name.replace('/', '-')}-{self.stage.key[:12]}"

    @property
    def requests(self) -> list[Request]:
        """What it asks Ray for, one after another."""
        work = [Request(setting="train.evaluate.gpus", gpus=self.gpus)] if self.gpus else []
        actors = [self.actors] if self.actors is not None else []
        return work + actors + (self.training.requests if self.training is not None else [])

    @property
    def done(self) -> bool:
        return self.stage.done and self._readable() and (self.place is None or self.published() is not None)

    def published(self) -> Manifest | None:
        """The version that it published."""
        assert self.place is not None
        return self.place.published(self.stage.key)

    def note(self) -> str | None:
        """What the user should know of a step that is done."""
        return None if self.place is None else self.place.note(self.stage.key)

    def _readable(self) -> bool:
        """Whether the record holds what is read from it today: an earlier version may have measured less."""
        if self.kind in FACTS:
            try:
                msgspec.convert(self.stage.facts(), FACTS[self.kind])
            except msgspec.ValidationError:
                return False
        return True
