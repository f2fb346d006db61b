"""Judging a checkpoint while training goes on: real speculative decoding of held-out prompts against the target.

It is Ray Train's asynchronous validation task: a process of its own, beside the workers. What it finds is added to
``<output>.acceptance.jsonl``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from common.types import TokenIds
from train.evaluation.acceptance import Acceptance
from train.evaluation.drafter import Models
from train.job import TrainingJob, Validation
from train.lines import append_line, read_lines
from train.recipe import EvaluateSettings

if TYPE_CHECKING:
    from ray.train import Checkpoint

TEMPERATURES = (0.0, 1.0)


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """Of the checkpoint after `step` steps."""

    step: int
    acceptance: list[Acceptance]
    """At temperature 0, then at 1."""

    @property
    def score(self) -> float:
        """Mean acceptance length at temperature 0."""
        return self.acceptance[0].mean_acceptance_length


def write_prompts(path: Path, prompts: Iterable[TokenIds]) -> None:
    """The file that `Validation.prompts` names: a JSON array of token ids a line."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(msgspec.json.Encoder().encode_lines(list(prompts)))
    os.replace(temporary, path)


def read_prompts(path: Path) -> list[TokenIds]:
    """Raises ValueError naming the file if it holds something else, or nothing."""
    try:
        prompts = msgspec.json.Decoder(TokenIds).decode_lines(path.read_bytes())
    except (OSError, msgspec.MsgspecError) as error:
        raise ValueError(f"{path}: expected a JSON array of token ids a line: {error}") from None
    if not prompts or not all(prompts):
        raise ValueError(f"{path}: no prompts, or an empty one")
    return prompts


def judgements(output: str) -> list[Judgement]:
    """Of the run that makes `output`, in the order in which they were made."""
    return [msgspec.json.decode(line, type=Judgement) for line in read_lines(_path(output))]


def validate(checkpoint: Checkpoint, *, job: dict[str, Any], gpus: float, step: int) -> dict[str, float]:
    """Judge `checkpoint`, taken after `step` steps of the TrainingJob `job` (as built-in types).

    `gpus` is what this task has been given; 0: it computes on the CPU.
    """
    from torch.utils.tensorboard import SummaryWriter

    from train.checkpoint import MODEL, SCORE
    from train.watching.trackers import tensorboard_folder

    run = msgspec.convert(job, TrainingJob)
    assert run.validation is not None
    with checkpoint.as_directory() as folder:
        judgement = Judgement(step=step, acceptance=_measure(run.validation, Path(folder, MODEL), gpus))
    append_line(_path(run.output), msgspec.json.encode(judgement))
    with SummaryWriter(tensorboard_folder(run.output)) as writer:
        for measured in judgement.acceptance:
            name = f"acceptance/T={measured.temperature:g}"
            writer.add_scalar(name, measured.mean_acceptance_length, step)
            for position, share in enumerate(measured.accepted_per_position, 1):
                writer.add_scalar(f"{name}/position {position}", share, step)
    return {SCORE: judgement.score, "acceptance_sampled": judgement.acceptance[1].mean_acceptance_length}


def _measure(validation: Validation, drafter: Path, gpus: float) -> list[Acceptance]:
    prompts = read_prompts(Path(validation.prompts))
    settings = EvaluateSettings(
        prompts=len(prompts),
        draft_length=validation.draft_length,
        temperatures=TEMPERATURES,
        max_tokens=validation.max_tokens,
        concurrency=validation.concurrency,
        gpus=gpus,
        dtype=validation.dtype,
    )
    return Models(Path(validation.target), drafter, settings).acceptance(prompts)


def _path(output: str) -> Path:
    return Path(f"{output}.acceptance.jsonl")
