"""Carrying out a plan: every step as soon as those that it needs are done, all on the cluster's resources.

So each language goes its own way from text to published drafter. What is done is not done again. What fails takes with
it only the steps that need it, and is told at the end.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Collection

from common.registry import Manifest
from train.capacity import check_cluster
from train.display import Display
from train.executor import Executor, StepFailure
from train.signals import on_signal
from train.step import Step


class PipelineError(RuntimeError):
    """Steps that failed; the message names each, with its language, and why."""


class Pipeline:
    """One run of a plan's steps, whose folders every machine sees."""

    def __init__(self, steps: dict[str, Step]) -> None:
        self.steps = steps
        self.failures: dict[str, str] = {}
        """Why, by the names of the stages."""
        self._display = Display()
        self._executor = Executor(self._display)
        self._begun: dict[str, asyncio.Task[None]] = {}
        self._signal: signal.Signals | None = None

    def run(self, again: Collection[str] = ()) -> dict[str, Manifest]:
        """Do what is not done yet, and some stages `again`; returns what is published, by name.

        Raises SettingsError, before anything is done, if the cluster is too small; PipelineError if something failed.
        For the main thread: SIGINT or SIGTERM breaks it off, once what is being trained is saved, in bounded time; a
        second signal at once. Then it raises SystemExit, 128 + the signal's number; the next run goes on from there.
        """
        to_do = [step for name, step in self.steps.items() if name in again or not step.done]
        check_cluster(request for step in to_do for request in step.requests)
        for name in again:
            self.steps[name].stage.forget()
        with self._display:
            asyncio.run(self._run())
        if self._signal is not None:
            raise SystemExit(128 + self._signal)
        if self.failures:
            raise PipelineError("; ".join(f"{name.replace('/', ': ')}: {why}" for name, why in self.failures.items()))
        return self.published()

    def published(self) -> dict[str, Manifest]:
        """What the steps have published so far, by name."""
        found = {step.place.name: step.published() for step in self.steps.values() if step.place is not None}
        return {name: manifest for name, manifest in found.items() if manifest is not None}

    async def _run(self) -> None:
        self._begun = {name: asyncio.create_task(self._do(step)) for name, step in self.steps.items()}
        with on_signal(self._break_off):
            try:
                await asyncio.gather(*self._begun.values())
            except asyncio.CancelledError:
                await asyncio.wait(self._begun.values())

    def _break_off(self, received: signal.Signals) -> None:
        """A step that is cancelled again waits for nothing any more."""
        if self._signal is None:
            self._display.say(f"{received.name}: saving what is being trained; a second signal ends this at once")
        self._signal = received
        for step in self._begun.values():
            step.cancel()

    async def _do(self, step: Step) -> None:
        if step.done:
            note = step.note()
            if note is not None:
                self._display.say(note)
            return
        await asyncio.gather(*(asyncio.shield(self._begun[need.name]) for need in step.needs))
        if not all(need.done for need in step.needs):
            return
        try:
            await self._executor.carry_out(step)
        except StepFailure as failure:
            self.failures[step.stage.name] = str(failure)
