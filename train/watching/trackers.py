"""Where the figures of a run go beside its log: TensorBoard always, Weights & Biases and MLflow where asked for.

Their packages are imported only then.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

import msgspec
from torch.utils.tensorboard import SummaryWriter

from train.job import TrainingJob

PROJECT = "polydraft"


class Tracker(Protocol):
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Figures, by name, of the steps until `step`."""

    def close(self) -> None: ...


def tensorboard_folder(output: str) -> str:
    """Where TensorBoard finds the run that makes the model folder `output`."""
    return f"{output}.tensorboard"


def open_trackers(job: TrainingJob, resumed_step: int) -> list[Tracker]:
    """All that `job` is told to; what they know of steps after `resumed_step` is done again."""
    chosen: dict[str, type[WandB] | type[MLflow]] = {"wandb": WandB, "mlflow": MLflow}
    return [TensorBoard(job.output, resumed_step), *(chosen[name](job) for name in job.settings.trackers)]


class TensorBoard:
    def __init__(self, output: str, resumed_step: int) -> None:
        self._writer = SummaryWriter(tensorboard_folder(output), purge_step=resumed_step + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WandB:
    """Resumed under the same name."""

    def __init__(self, job: TrainingJob) -> None:
        wandb: Any = import_module("wandb")
        settings = msgspec.to_builtins(job.settings)
        self._run: Any = wandb.init(project=PROJECT, name=job.name, id=job.name, resume="allow", config=settings)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """A run of the experiment `polydraft`; a resumed one is another run of the same name."""

    def __init__(self, job: TrainingJob) -> None:
        self._mlflow: Any = import_module("mlflow")
        self._mlflow.set_experiment(PROJECT)
        self._mlflow.start_run(run_name=job.name)
        self._mlflow.log_params({name: str(value) for name, value in msgspec.to_builtins(job.settings).items()})

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self._mlflow.end_run()
