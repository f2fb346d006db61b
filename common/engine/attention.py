"""Attention over the packed step, registered with transformers so that any of its decoders runs unchanged.

The model hands over the step's queries, keys and values [1, heads, T, head_dim] after rotary embedding; keys and
values go to their slots in the cache, then every group of feeds attends to its own sequences' slots.

To PyTorch all this is one operator that cannot be looked into, as the paged attention of vLLM is: a compiled model
calls it as an eager one does, and need not be compiled anew for another number of texts or blocks. So what belongs to
the step and not to the layer goes round the model: whoever runs it says so with `running`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

from common.engine.batch import Group, PackedBatch
from common.engine.store import KVStore

NAME = "polydraft"


@dataclass(frozen=True, slots=True)
class Step:
    """What the attention function must know of the running step."""

    batch: PackedBatch
    store: KVStore


_running: ContextVar[Step] = ContextVar("running")


@contextmanager
def running(step: Step) -> Generator[None]:
    """Inside, models of this thread attend to what `step` says."""
    token = _running.set(step)
    try:
        yield
    finally:
        _running.reset(token)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention function in transformers' form; see `transformers.AttentionInterface`.

    Returns:
        Output [1, T, heads, head_dim], and no attention weights.

    Raises:
        NotImplementedError: the model uses attention sinks, which this function does not compute.
    """
    if s_aux is not None:
        raise NotImplementedError("attention sinks (s_aux) are not supported by the polydraft engine")
    operator: Callable[..., Tensor] = torch.ops.polydraft.attend if torch.compiler.is_compiling() else _attend
    return operator(query, key, value, module.layer_idx, scaling, sliding_window, softcap), None


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layer: int,
    scaling: float | None,
    sliding_window: int | None,
    softcap: float | None,
) -> Tensor:
    """The operator."""
    step = _running.get()
    keys, values = step.store.write(layer, step.batch.write_slots, key[0].transpose(0, 1), value[0].transpose(0, 1))
    query_THD = query[0].transpose(0, 1)
    outputs = [
        group.unpadded(_attend_group(query_THD, keys, values, group, group.mask(sliding_window), scaling, softcap))
        for group in step.batch.groups
    ]
    output_THD = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return output_THD.unsqueeze(0).contiguous()


def _attend_shape(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Tensor:
    """What a compiler must know of the operator: an output without data."""
    batch, heads, length, _dim = query.shape
    return query.new_empty(batch, length, heads, value.shape[-1])


def _attend_group(
    query_THD: Tensor,
    keys: Tensor,
    values: Tensor,
    group: Group,
    mask: Tensor,
    scaling: float | None,
    softcap: float | None,
) -> Tensor:
    q_BHND = group.queries(query_THD).transpose(1, 2)
    k_BHLD, v_BHLD = (_gathered(stored, group) for stored in (keys, values))
    shared_heads = q_BHND.shape[1] != k_BHLD.shape[1]
    if softcap is not None:
        return _softcapped(q_BHND, k_BHLD, v_BHLD, mask, scaling, softcap)
    out_BHND = functional.scaled_dot_product_attention(
        q_BHND, k_BHLD, v_BHLD, attn_mask=mask, scale=scaling, enable_gqa=shared_heads
    )
    return out_BHND.transpose(1, 2)


def _gathered(stored: Tensor, group: Group) -> Tensor:
    """[B, heads, L, head_dim]; `index_select` is several times as fast as indexing by a matrix."""
    blocks_BK = group.blocks_BK
    gathered = stored.index_select(0, blocks_BK.flatten()).unflatten(0, blocks_BK.shape).flatten(1, 2)
    return gathered[:, : group.length].transpose(1, 2)


def _softcapped(
    q_BHND: Tensor, k_BHLD: Tensor, v_BHLD: Tensor, mask: Tensor, scaling: float | None, softcap: float
) -> Tensor:
    """Scores squashed to ±softcap before the softmax (Gemma 2); the fused kernels cannot do that."""
    repeats = q_BHND.shape[1] // k_BHLD.shape[1]
    k_BHLD, v_BHLD = k_BHLD.repeat_interleave(repeats, 1), v_BHLD.repeat_interleave(repeats, 1)
    scale = scaling if scaling is not None else q_BHND.shape[-1] ** -0.5
    scores = softcap * torch.tanh(q_BHND @ k_BHLD.transpose(-1, -2) * scale / softcap)
    weights = scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)
    return (weights @ v_BHLD).transpose(1, 2)


_library = torch.library.Library(NAME, "FRAGMENT")
_library.define(
    "attend(Tensor query, Tensor key, Tensor value, int layer, float? scaling, int? sliding_window, float? softcap)"
    " -> Tensor"
)
_library.impl("attend", _attend, "CompositeExplicitAutograd")
torch.library.register_fake(f"{NAME}::attend", _attend_shape, lib=_library)
AttentionInterface.register(NAME, attend)
