"""All shards of one language, in this process or on Ray Data's actors."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import ray

from train.distillation.answers import DistillationError, Prompt
from train.distillation.settings import DistillSettings, estimate_bytes
from train.distillation.shards import Distillation, ShardMaker
from train.distillation.store import Counts, begin, missing, read_counts
from train.stages import Stage

logger = logging.getLogger(__name__)


def distill(work: Distillation) -> Iterator[Counts]:
    """Make the shards that are not there yet; yields the counts so far, first of what is there already.

    An interrupted run goes on after its whole shards and ends with the same files as an undisturbed one, whatever
    the number of actors: a shard is made in the same way everywhere, and the seed of an answer is its number.

    Raises DistillationError if too many questions have no answer, if no answer is left, if the disk is full, or if
    the folder holds answers made from something else; ValueError for settings that do not fit the target.
    """
    settings = work.settings
    at_most = estimate_bytes(settings, len(work.prompts), settings.max_tokens)
    logger.info("%s: %d answers, at most about %d bytes", work.folder, work.total, at_most)
    begin(work.folder, work.inputs)
    counts = read_counts(work.folder)
    yield counts
    numbers = missing(work.folder, work.shards)
    for made in _on_actors(work, numbers) if settings.on_actors else _in_process(work, numbers):
        counts += made
        yield counts
    assert counts.total == work.total, "every question is accounted for"
    if not counts.success:
        raise DistillationError(f"{work.folder}: no answer left, {counts.error} errors, {counts.skipped} skipped")


def distill_stage(
    stage: Stage, prompts: Sequence[Prompt], language: str, target: Path, settings: DistillSettings
) -> Iterator[tuple[int, int]]:
    """The whole work of a stage that holds answers; yields (done, total)."""
    work = Distillation(
        folder=stage.folder / "answers",
        target=target,
        target_key=stage.inputs["target"],
        language=language,
        prompts=prompts,
        settings=settings,
    )
    for counts in distill(work):
        yield counts.total, work.total
    stage.finish(**msgspec.to_builtins(counts))


def _in_process(work: Distillation, numbers: list[int]) -> Iterator[Counts]:
    """One engine needs no actor: the stage's process would only wait for it, and a small machine has room for one."""
    if numbers:
        yield from map(ShardMaker(work).make, numbers)


def _on_actors(work: Distillation, numbers: list[int]) -> Iterator[Counts]:
    if not numbers:
        return
    # This process may hold a CPU that the actors need: waiting for another task gives it back, waiting for Ray Data
    # does not, and many languages would wait for each other for ever.
    pool = ray.remote(num_cpus=0, num_returns="streaming", max_retries=0)(_pool)
    try:
        for made in pool.remote(work, numbers):
            yield ray.get(made)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # what would have been raised in this process


def _pool(work: Distillation, numbers: list[int]) -> Iterator[Counts]:
    """The numbers go to whichever actor is free; each stores its shards and sends back only the counts."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True
    settings = work.settings
    made = ray.data.from_items([{"shard": n} for n in numbers], override_num_blocks=len(numbers)).map_batches(
        _ShardActor,
        fn_constructor_args=(ray.put(work),),
        batch_size=1,
        # From one actor on: with many languages at once there may never be room for all.
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=settings.actors, initial_size=settings.actors, max_tasks_in_flight_per_actor=1
        ),
        num_cpus=settings.cpus_per_actor,
        num_gpus=settings.gpus_per_actor,
    )
    try:
        for row in made.iter_rows():
            yield msgspec.convert(row, Counts)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


class _ShardActor:
    """`ShardMaker` in the form that Ray Data calls."""

    def __init__(self, work: ray.ObjectRef[Distillation]) -> None:
        self._maker = ShardMaker(ray.get(work))

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, list[int]]:
        [number] = batch["shard"].tolist()
        return {name: [count] for name, count in msgspec.to_builtins(self._maker.make(number)).items()}
