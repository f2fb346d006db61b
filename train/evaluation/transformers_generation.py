"""Decoding as transformers does it: what ours is compared with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from common.models import load_model
from common.types import TokenIds

Generate = Callable[[TokenIds], Sequence[int]]
"""A prompt's tokens in, those of its answer out."""


def transformers_generate(
    target: PreTrainedModel, stop_token_ids: Collection[int], max_tokens: int, **options: Any
) -> Generate:
    """Greedy decoding by `generate`, to which `options` go."""
    lengths = {
        "max_new_tokens": max_tokens,
        "eos_token_id": sorted(stop_token_ids),
        "pad_token_id": min(stop_token_ids),
    }

    @torch.inference_mode()
    def generate(prompt: TokenIds) -> Sequence[int]:
        ids = torch.tensor([prompt])
        written = target.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **lengths, **options)
        return list(written[0, len(prompt) :].tolist())

    return generate


def assistant(drafter: str | Path, draft_length: int | None) -> dict[str, Any]:
    """Options of assisted generation: always so many tokens a round, or, with None, as transformers chooses."""
    model = load_model(drafter)
    if draft_length is not None:
        assert model.generation_config is not None
        model.generation_config.num_assistant_tokens = draft_length
        model.generation_config.num_assistant_tokens_schedule = "constant"
        model.generation_config.assistant_confidence_threshold = 0.0
    return {"assistant_model": model}
