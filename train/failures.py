"""What a training run fails with by itself, and why that is not tried again."""

from __future__ import annotations

from typing import Any

from ray.exceptions import RayError
from ray.train import UserCallback


class TrainingDiverged(ValueError):
    """The loss or the gradient is no longer a finite number; the message names the step."""


class CheckpointError(ValueError):
    """A checkpoint could not be written; the message names its step. Those before it are whole."""


class EndAtOnce(UserCallback):
    """Ends a run that would fail in the same way again: numbers that diverge, a disk that is full.

    What a callback raises is the controller's own failure, which Ray Train does not try again, unlike a worker's.
    """

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """See UserCallback."""
        errors = worker_exceptions.values()
        # A worker that dies tears the others out of whatever they do together, a checkpoint for example.
        if not any(isinstance(error, RayError) for error in errors):
            for error in errors:
                if isinstance(error, TrainingDiverged | CheckpointError):
                    raise error
