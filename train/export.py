"""The trained model as a plain Hugging Face folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import torch.distributed
from transformers import PreTrainedModel

from train.job import TrainingJob

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
"""Copied from the initial model: training does not change the tokenizer, and a drafter needs it beside it."""


def export(model: PreTrainedModel, job: TrainingJob, rank: int) -> None:
    """Write the weights to the job's output folder, which appears complete or not at all.

    Every worker must call this: under ZeRO-3 each holds a part of the weights. Worker 0 writes.
    """
    import deepspeed  # here, because at import it probes for a GPU, which the driver may lack

    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        if rank == 0:
            _write(model, Path(job.init), Path(job.output))
    torch.distributed.barrier()


def _write(model: PreTrainedModel, init: Path, output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    scratch.chmod(0o755)  # mkdtemp makes it for the owner alone
    model.save_pretrained(scratch)
    for name in TOKENIZER_FILES:
        if (init / name).is_file():
            shutil.copyfile(init / name, scratch / name)
    shutil.rmtree(output, ignore_errors=True)
    os.replace(scratch, output)
