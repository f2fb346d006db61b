"""Carrying out one step on Ray: its work as a task, and the training that may follow."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

import msgspec
import ray

from train.display import Display
from train.job import TrainingJob, Validation
from train.progress import Progress
from train.run import Resources
from train.stages import Stage
from train.step import Step, Training
from train.tasks import VALIDATION, Steps
from train.trainer import TrainingFailure, fit_all

T = TypeVar("T")


class StepFailure(RuntimeError):
    """A step that did not end well; the message says why."""


class Executor:
    """Ray queues what its resources do not allow at the moment, so everything that can be begun is."""

    def __init__(self, display: Display) -> None:
        self._display = display
        self._ended = threading.Event()

    async def carry_out(self, step: Step) -> None:
        """Raises StepFailure. Cancelled, it cancels the work."""
        note = step.stage.begin()
        if note is not None:
            self._display.say(note)
        self._display.begin(step.owner, step.label)
        try:
            if step.training is None:
                await self._work(step)
            else:
                if not (step.stage.folder / "rows").exists():
                    await self._work(step)
                await self._train(step, step.training)
        except StepFailure as failure:
            self._display.end(step.owner, step.label, f"failed: {failure}")
            raise
        self._display.end(step.owner, step.label)

    def close(self) -> None:
        """Give up what is being trained."""
        self._ended.set()

    async def _work(self, step: Step) -> None:
        task = ray.remote(num_cpus=1, num_gpus=step.gpus, num_returns="streaming", max_retries=0)(_steps)
        updates = task.remote(step.work, step.stage, step.arguments)
        try:
            async for update in updates:
                self._display.update(step.owner, step.label, *(await update))
        except ray.exceptions.RayTaskError as error:
            raise StepFailure(str(error.cause)) from error
        except ray.exceptions.RayError as error:
            raise StepFailure(str(error)) from error
        except asyncio.CancelledError:
            ray.cancel(updates, force=True)
            raise

    async def _train(self, step: Step, training: Training) -> None:
        # In the stage's folder, so that what other inputs left behind goes with the rest and is never resumed.
        checkpoints = step.stage.folder / "ray"
        resources = Resources(storage=str(checkpoints), **msgspec.structs.asdict(training.workers))
        job = training_job(step, training)

        def on_progress(_: str, progress: Progress) -> None:
            if self._ended.is_set():
                raise SystemExit  # ends this thread silently, once the tasks are cancelled
            self._display.train(step.owner, step.label, progress)

        outcome = (await _in_thread(lambda: fit_all({step.owner: job}, resources, on_progress)))[step.owner]
        if isinstance(outcome, TrainingFailure):
            raise StepFailure(outcome.message)
        step.stage.finish(training=msgspec.to_builtins(outcome))
        shutil.rmtree(checkpoints, ignore_errors=True)


async def _in_thread(work: Callable[[], T]) -> T:
    """Unlike asyncio's own, the thread does not keep the process from ending."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work())
        finally:
            if not future.done():
                future.set_exception(StepFailure("broken off; see the error above"))

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(future)


def _steps(work: Callable[..., Steps], stage: Stage, arguments: tuple[Any, ...]) -> Iterable[tuple[int, int]]:
    yield from work(stage, *arguments)


def training_job(step: Step, training: Training) -> TrainingJob:
    """What trains the step's model."""
    return TrainingJob(
        name=step.job_name,
        init=str(training.initial),
        data=str(step.stage.folder / "rows"),
        output=str(step.stage.folder / "model"),
        settings=training.loop,
        teacher=None if training.target is None else str(training.target),
        validation=_validation(step.stage, training),
    )


def _validation(stage: Stage, training: Training) -> Validation | None:
    if not training.loop.validate_every or training.target is None:
        return None
    return Validation(
        target=str(training.target),
        prompts=str(stage.folder / VALIDATION),
        draft_length=training.evaluate.draft_length,
        max_tokens=training.evaluate.max_tokens,
        concurrency=training.evaluate.concurrency,
        dtype=training.evaluate.dtype,
    )
