"""The trained model as a plain Hugging Face folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed
from safetensors import SafetensorError
from transformers import PreTrainedModel

from common.vocabulary import VOCABULARY_FILE
from train.job import TrainingJob

COPIED_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    VOCABULARY_FILE,
)
"""From the initial model: training changes neither tokenizer nor vocabulary, and a drafter needs them beside it."""


class ExportError(ValueError):
    """The trained model could not be written; the message names its folder, which is as it was."""


def export(model: PreTrainedModel, job: TrainingJob, rank: int) -> None:
    """Write the weights to the job's output folder, which appears complete or not at all.

    Every worker must call this: under ZeRO-3 each holds a part of the weights. Worker 0 writes, and raises ExportError
    if the disk is full or fails.
    """
    with _whole(model):
        if rank == 0:
            try:
                with appearing(Path(job.output)) as folder:
                    _write(model, Path(job.init), folder)
            except (OSError, SafetensorError) as error:
                raise ExportError(f"{job.output}: the trained model could not be written: {error}") from error
    torch.distributed.barrier()


def save(model: PreTrainedModel, job: TrainingJob, rank: int, folder: Path) -> None:
    """Write the weights to `folder`, for a checkpoint. Every worker must call this; worker 0 writes."""
    with _whole(model):
        if rank == 0:
            _write(model, Path(job.init), folder)


@contextmanager
def appearing(output: Path) -> Iterator[Path]:
    """A folder to fill, which replaces `output` if the block ends well; otherwise nothing is left of it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as scratch:
        folder = Path(scratch, output.name)
        folder.mkdir()
        yield folder
        shutil.rmtree(output, ignore_errors=True)
        os.replace(folder, output)


@contextmanager
def _whole(model: PreTrainedModel) -> Iterator[None]:
    """Under ZeRO-3, the weights of all workers put together."""
    import deepspeed  # here, because at import it probes for a GPU, which the driver may lack

    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        yield


def _write(model: PreTrainedModel, init: Path, folder: Path) -> None:
    model.save_pretrained(folder)
    for name in COPIED_FILES:
        if (init / name).is_file():
            shutil.copyfile(init / name, folder / name)
