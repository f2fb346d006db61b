"""A drafter's own vocabulary: the ids, out of its target's, that it ever proposes.

Its folder stays a plain model over the whole vocabulary. Beside the weights `draft_vocabulary.ids`, in safetensors
format, holds one int32 tensor "ids" [V'], ascending. (Called *.safetensors, vLLM would take it for weights.) Our
engine computes the logits of these ids only (Zhao et al. 2025, "FR-Spec", arXiv 2502.14856); the law of all others is
0, which costs acceptance where the target would write one of them, and never exactness.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.models import ModelError

VOCABULARY_FILE = "draft_vocabulary.ids"


def read_vocabulary(folder: str | Path) -> Tensor | None:
    """The ids [V'], int64, ascending; None if the model in `folder` proposes its whole vocabulary.

    Raises ModelError, naming the file, if it is not what `write_vocabulary` writes.
    """
    path = Path(folder).expanduser() / VOCABULARY_FILE
    if not path.is_file():
        return None
    try:
        ids = load_file(path)["ids"]
    except (OSError, KeyError, SafetensorError) as error:
        raise ModelError(f"{path}: {' '.join(str(error).split())}") from error
    problem = _problem(ids)
    if problem is not None:
        raise ModelError(f"{path}: {problem}")
    return ids.long()


def write_vocabulary(folder: Path, ids: Tensor) -> None:
    """Keep the vocabulary [V'] of the model in `folder`. Raises ValueError if the ids are not ascending."""
    ids = ids.to(torch.int32)
    problem = _problem(ids)
    if problem is not None:
        raise ValueError(f"draft vocabulary: {problem}")
    partial = folder / f".{VOCABULARY_FILE}.partial"
    save_file({"ids": ids.contiguous()}, partial)
    os.replace(partial, folder / VOCABULARY_FILE)


def _problem(ids: Tensor) -> str | None:
    if ids.dtype != torch.int32 or ids.dim() != 1 or not len(ids):
        return f"`ids` must be int32 [V'], not {ids.dtype} {list(ids.shape)}"
    if ids[0] < 0 or not bool((ids[1:] > ids[:-1]).all()):
        return "`ids` must be ascending token ids"
    return None
