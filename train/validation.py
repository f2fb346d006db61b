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
import torch

from common.engine.decoding import build_decoder
from common.engine.drafters import load_drafter
from common.models import load_model, load_tokenizer
from common.types import TokenIds
from train.evaluation.acceptance import Acceptance, measure_acceptance
from train.job import TrainingJob, Validation
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
    path = _path(output)
    return msgspec.json.Decoder(Judgement).decode_lines(path.read_bytes()) if path.exists() else []


def validate(checkpoint: Checkpoint, *, job: dict[str, Any], step: int) -> dict[str, float]:
    """Judge `checkpoint`, taken after `step` steps of the TrainingJob `job` (as built-in types)."""
    from torch.utils.tensorboard import SummaryWriter

    from train.checkpoint import MODEL, SCORE
    from train.watching.trackers import tensorboard_folder

    run = msgspec.convert(job, TrainingJob)
    assert run.validation is not None
    with checkpoint.as_directory() as folder:
        judgement = Judgement(step=step, acceptance=_measure(run.validation, Path(folder, MODEL)))
    with _path(run.output).open("ab") as file:
        file.write(msgspec.json.encode(judgement) + b"\n")
    with SummaryWriter(tensorboard_folder(run.output)) as writer:
        for measured in judgement.acceptance:
            name = f"acceptance/T={measured.temperature:g}"
            writer.add_scalar(name, measured.mean_acceptance_length, step)
            for position, share in enumerate(measured.accepted_per_position, 1):
                writer.add_scalar(f"{name}/position {position}", share, step)
    return {SCORE: judgement.score, "acceptance_sampled": judgement.acceptance[1].mean_acceptance_length}


def _measure(validation: Validation, drafter: Path) -> list[Acceptance]:
    prompts = read_prompts(Path(validation.prompts))
    settings = EvaluateSettings(
        prompts=len(prompts),
        draft_length=validation.draft_length,
        temperatures=TEMPERATURES,
        max_tokens=validation.max_tokens,
        concurrency=validation.concurrency,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_drafter(drafter)
    decoder = build_decoder(
        load_model(validation.target).to(device),
        model.to(device) if isinstance(model, torch.nn.Module) else model,
        max_length=max(map(len, prompts)) + settings.max_tokens,
        concurrency=settings.concurrency,
        draft_length=settings.draft_length,
    )
    stop = frozenset({load_tokenizer(validation.target).eos_token_id})
    return measure_acceptance(decoder, prompts, settings, stop)


def _path(output: str) -> Path:
    return Path(f"{output}.acceptance.jsonl")
