"""Which models the engine computes as transformers would: those that look back by attention alone.

A step packs many texts into one row, and only attention is told which tokens are whose. So a layer that carries a state
from token to token would carry it from one text into the next, and a rotation that depends on the longest text would
turn the others with it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from common.models import ModelError

_LAYER_TYPES = {"full_attention", "sliding_attention"}
_LENGTH_DEPENDENT = {"dynamic", "longrope"}


def check_config(config: PreTrainedConfig) -> None:
    """Raises ModelError naming the field that asks for what the engine does not compute."""
    text_config = config.get_text_config()
    others = set(getattr(text_config, "layer_types", None) or ()) - _LAYER_TYPES
    if others:
        raise ModelError(
            f"{config.name_or_path}: layer_types has {', '.join(sorted(others))}; only full and sliding attention can "
            "be served"
        )
    for rope_type in _rope_types(text_config):
        if rope_type in _LENGTH_DEPENDENT:
            raise ModelError(
                f"{config.name_or_path}: rope_parameters has the rope_type {rope_type}, under which a token's position "
                "means another thing in a longer text; that cannot be served"
            )


def check_ranks(config: PreTrainedConfig, ranks: int) -> None:
    """Raises ModelError if the model cannot be divided among so many ranks."""
    text_config = config.get_text_config()
    if not text_config.base_model_tp_plan:
        raise ModelError(
            f"{config.name_or_path}: transformers has no plan for dividing a {config.model_type} by tensors"
        )
    heads = getattr(text_config, "num_key_value_heads", None) or text_config.num_attention_heads
    if heads % ranks:
        raise ModelError(f"{config.name_or_path}: num_key_value_heads is {heads}, which {ranks} ranks cannot share")


def check_logits(name: str, alone: Tensor, beside: Tensor) -> None:
    """Raises ModelError if the logits of a text differ, by more than rounding, when another one is beside it."""
    rounding = torch.finfo(alone.dtype).eps ** 0.5 * float(alone[alone.isfinite()].abs().max())
    if not torch.allclose(alone, beside, rtol=0.0, atol=rounding, equal_nan=True):
        raise ModelError(f"{name}: its texts change each other in a step, so it looks back by more than attention")


def _rope_types(config: PreTrainedConfig) -> Iterator[str | None]:
    """One, or one for each type of layer."""
    parameters = getattr(config, "rope_parameters", None) or {}
    by_layer = [each for each in parameters.values() if isinstance(each, dict)]
    yield from (each.get("rope_type") for each in by_layer or [parameters])
