"""Checkpoints of a DeepSpeed engine in Ray Train's storage: every worker saves its part, Ray merges them.

One holds DeepSpeed's state, `state.json`, and, if it is to be judged, `model`: a Hugging Face folder.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import ray.train
from ray.train import Checkpoint, CheckpointConsistencyMode, ReportedCheckpointStatus
from ray.train.collective import broadcast_from_rank_zero
from safetensors import SafetensorError
from torch import distributed

from train.export import appearing, save
from train.failures import CheckpointError
from train.job import TrainingJob

STATE = "state.json"
MODEL = "model"
SCORE = "acceptance"
"""The metric by which checkpoints are compared: mean acceptance length at temperature 0; 0 until it is known."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    step: int
    """Optimizer steps done."""
    workers: int
    """That saved it."""


def report(engine: Any, job: TrainingJob, step: int, *, judge: bool) -> None:
    """Checkpoint the state after `step` optimizer steps, to be judged or not.

    Every worker must call this at the same step. Raises CheckpointError if the disk is full or fails.
    """
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    task = ray.train.ValidationTaskConfig(fn_kwargs={"step": step}) if judge else False
    try:
        with tempfile.TemporaryDirectory() as folder:
            engine.save_checkpoint(folder, tag="state")
            if rank == 0:
                Path(folder, STATE).write_bytes(msgspec.json.encode(State(step=step, workers=workers)))
            if judge:
                save(engine.module.model, job, rank, Path(folder, MODEL))
            ray.train.report(
                {"step": step, SCORE: 0.0},
                checkpoint=Checkpoint.from_directory(folder),
                # Named, so that what an interrupted write left behind is written over.
                checkpoint_dir_name=f"checkpoint_{step:08d}_{workers}",
                validation=task,
            )
    except (OSError, RuntimeError, SafetensorError) as error:  # torch.save reports a full disk as a RuntimeError
        raise CheckpointError(f"{job.name}: the checkpoint of step {step} could not be written: {error}") from error


def awaits_judgement() -> bool:
    """Whether one of this run's checkpoints is being judged, or is still to be.

    Every worker must call this at the same step, and gets the same answer.
    """
    waiting = False
    if ray.train.get_context().get_world_rank() == 0:
        reported = ray.train.get_all_reported_checkpoints(consistency_mode=CheckpointConsistencyMode.COMMITTED)
        waiting = any(found.status is ReportedCheckpointStatus.PENDING_VALIDATION for found in reported)
    return broadcast_from_rank_zero(waiting)


def resume(build: Callable[[bool], Any], zero_stage: int) -> tuple[Any, int]:
    """The engine, with the state of this run's newest checkpoint if it has one, and the optimizer steps done.

    `build` makes an engine; told True, one that reads DeepSpeed's universal checkpoints, which do not depend on the
    number of workers.
    """
    found = ray.train.get_checkpoint()
    if found is None:
        return build(False), 0
    with found.as_directory() as folder:
        state = msgspec.json.decode(Path(folder, STATE).read_bytes(), type=State)
        resharded = zero_stage > 0 and state.workers != distributed.get_world_size()
        engine = build(resharded)
        if resharded:
            with _universal(folder) as converted:
                _load(engine, converted)
        else:
            _load(engine, folder)
    return engine, state.step


def publish(checkpoint: Checkpoint, output: str) -> None:
    """Make the model in a judged checkpoint the run's; `output` appears complete or not at all."""
    with checkpoint.as_directory() as folder, appearing(Path(output)) as model:
        for file in Path(folder, MODEL).iterdir():
            (model / file.name).write_bytes(file.read_bytes())


def _load(engine: Any, folder: str) -> None:
    path, _ = engine.load_checkpoint(folder)
    assert path is not None, f"Ray Train gave a checkpoint that DeepSpeed did not write: {folder}"
    # The folder may be one local copy for several workers; it goes when the first of them is done with it.
    distributed.barrier()


@contextmanager
def _universal(folder: str) -> Iterator[str]:
    """The checkpoint in `folder` without the division among workers; one copy for the workers of a machine."""
    from deepspeed.checkpoint.ds_to_universal import main as convert

    context = ray.train.get_context()
    here, first = context.get_node_rank(), context.get_local_rank() == 0
    with tempfile.TemporaryDirectory() as scratch:
        if first:
            convert(
                Namespace(
                    input_folder=str(Path(folder, "state")),
                    output_folder=str(Path(scratch, "state")),
                    num_extract_workers=1,
                    num_merge_workers=1,
                    keep_temp_folder=False,
                    strict=True,
                    inject_missing_state=True,
                )
            )
        copies: list[Any] = [None] * context.get_world_size()
        distributed.all_gather_object(copies, (here, first, scratch))
        yield next(copy for node, converted, copy in copies if node == here and converted)
