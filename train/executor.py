"""Carrying out one stage for all languages at the same time, on Ray; what failed is remembered, not raised."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import ray

from train.display import Display
from train.job import LoopSettings, TrainingJob
from train.progress import Progress
from train.recipe import WorkerSettings
from train.stages import Stage
from train.tasks import Steps
from train.trainer import Resources, TrainingFailure, fit_all


class Executor:
    """Stages are given by language; one that is done, or whose language has failed before, is skipped."""

    def __init__(self, storage: Path, display: Display) -> None:
        """`storage` is for Ray Train's checkpoints; every machine sees it."""
        self._storage = storage
        self._display = display
        self.failures: dict[str, str] = {}
        """Why, by language."""

    def run(
        self,
        title: str,
        stages: dict[str, Stage],
        work: Callable[..., Steps],
        arguments: Callable[[str], tuple[Any, ...]],
    ) -> None:
        """Run `work(stage, *arguments(language))` as one Ray task per stage."""
        pending = self._pending(stages)
        if not pending:
            return
        task = ray.remote(num_cpus=1, num_returns="streaming", max_retries=0)(_steps)
        with self._display.stage(title, list(pending)) as bars:
            running = {task.remote(work, s, arguments(lang)): lang for lang, s in pending.items()}
            while running:
                [ready], _ = ray.wait(list(running), num_returns=1)
                try:
                    done, total = ray.get(next(ready))
                    bars.update(running[ready], done, total)
                except StopIteration:
                    del running[ready]
                except ray.exceptions.RayTaskError as error:
                    self._fail(running.pop(ready), title, str(error.cause))
                except ray.exceptions.RayError as error:
                    self._fail(running.pop(ready), title, str(error))

    def train(
        self,
        title: str,
        stages: dict[str, Stage],
        initial: dict[str, Path],
        loops: dict[str, LoopSettings],
        workers: WorkerSettings,
    ) -> None:
        """Train ``<stage>/model`` from `initial` on ``<stage>/rows``, one trainer per stage."""
        pending = self._pending(stages)
        if not pending:
            return
        resources = Resources(storage=str(self._storage), **msgspec.structs.asdict(workers))
        jobs = {lang: _job(s, initial[lang], loops[lang]) for lang, s in pending.items()}
        with self._display.stage(title, list(pending)) as bars:

            def on_progress(lang: str, p: Progress) -> None:
                bars.update(lang, p.step, p.steps, f"loss {p.loss:.3f}, {p.tokens_per_second:,.0f} tokens/s")

            outcomes = fit_all(jobs, resources, on_progress)
        for lang, outcome in outcomes.items():
            if isinstance(outcome, TrainingFailure):
                self._fail(lang, title, outcome.message)
            else:
                pending[lang].finish(training=msgspec.to_builtins(outcome))

    def alive(self, stages: dict[str, Stage]) -> dict[str, Stage]:
        """Those of languages that have not failed."""
        return {lang: s for lang, s in stages.items() if lang not in self.failures}

    def _pending(self, stages: dict[str, Stage]) -> dict[str, Stage]:
        pending = {lang: s for lang, s in self.alive(stages).items() if not s.done}
        for s in pending.values():
            s.begin()
        return pending

    def _fail(self, language: str, title: str, message: str) -> None:
        self.failures[language] = f"{title}: {message}"
        self._display.say(f"[red]{language} failed in {title}[/red]: {message}")


def _steps(work: Callable[..., Steps], stage: Stage, arguments: tuple[Any, ...]) -> Iterable[tuple[int, int]]:
    yield from work(stage, *arguments)


def _job(stage: Stage, initial: Path, loop: LoopSettings) -> TrainingJob:
    return TrainingJob(
        name=f"{stage.name.replace('/', '-')}-{stage.key[:12]}",
        init=str(initial),
        data=str(stage.folder / "rows"),
        output=str(stage.folder / "model"),
        settings=loop,
    )
