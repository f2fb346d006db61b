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
from train.stop_file import StopFile
from train.tasks import VALIDATION, Steps
from train.trainer import TrainingFailure, fit_all

T = TypeVar("T")

STOP_WITHIN_S = 60.0
"""Longest wait for the checkpoint of a training that is broken off: a step, the writing, and Ray Train's end."""


class StepFailure(RuntimeError):
    """A step that did not end well; the message says why."""


class Executor:
    """Ray queues what its resources do not allow at the moment, so everything that can be begun is."""

    def __init__(self, display: Display) -> None:
        self._display = display

    async def carry_out(self, step: Step) -> None:
        """Raises StepFailure. Cancelled, it cancels the work; what is being trained is saved first.

        That takes at most STOP_WITHIN_S; cancelled again, it waits no longer.
        """
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
        except asyncio.CancelledError:
            self._display.end(step.owner, step.label, "stopped")
            raise
        self._display.end(step.owner, step.label)

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
        given_up = threading.Event()

        def on_progress(_: str, progress: Progress) -> None:
            self._display.train(step.owner, step.label, progress)

        trained = _in_thread(lambda: fit_all({step.owner: job}, resources, on_progress, given_up))
        try:
            outcome = (await asyncio.shield(trained))[step.owner]
        except asyncio.CancelledError:
            await _break_off(job, trained, given_up)
            raise
        if isinstance(outcome, TrainingFailure):
            raise StepFailure(outcome.message)
        step.stage.finish(training=msgspec.to_builtins(outcome))
        shutil.rmtree(checkpoints, ignore_errors=True)


async def _break_off(job: TrainingJob, trained: asyncio.Future[Any], given_up: threading.Event) -> None:
    """Have a training save its state, if it has one; then, or once this is cancelled, give it up."""
    try:
        if StopFile(job.output).ask():
            await asyncio.wait({trained}, timeout=STOP_WITHIN_S)
    finally:
        given_up.set()
        # Its thread asks Ray every second; after this process has left the cluster, that would start another one.
        await asyncio.wait({trained})


def _in_thread(work: Callable[[], T]) -> asyncio.Future[T]:
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
    return asyncio.wrap_future(future)


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
