"""Drafters of every kind: a network, one with a trimmed vocabulary, or an n-gram model, told apart by their folder."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import torch
from transformers import PreTrainedModel

from common.engine.ngram_runner import NgramRunner
from common.engine.runner import ModelRunner, Runner
from common.engine.trimming import trim_output
from common.models import load_config, load_model
from common.ngram_model import NgramConfig, NgramModel
from common.vocabulary import read_vocabulary

DraftModel: TypeAlias = PreTrainedModel | NgramModel


def load_drafter(folder: str | Path, *, dtype: str | torch.dtype = "float32") -> DraftModel:
    """The drafter in `folder` (or at a hub id), on the CPU. Raises ModelError; see `load_model`."""
    config = load_config(folder)
    if isinstance(config, NgramConfig):
        return NgramModel.load(folder, config)
    model = load_model(folder, dtype=dtype)
    ids = read_vocabulary(folder)
    if ids is not None:
        trim_output(model, ids)
    return model


def make_runner(model: DraftModel, *, kv_tokens: int, compiled: bool = False) -> Runner:
    """What an engine runs to draft with `model`; an n-gram model has nothing to compile."""
    if isinstance(model, NgramModel):
        return NgramRunner(model, kv_tokens=kv_tokens)
    return ModelRunner(model, kv_tokens=kv_tokens, compiled=compiled)
