"""Making a model shallower by leaving out layers; embeddings, norms and output layer stay as they are."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel


def spread_layers(count: int, depth: int) -> tuple[int, ...]:
    """`count` of `depth` layers, evenly spread, the first and the last one among them (one: the first).

    Raises ValueError unless 1 <= count <= depth. Example: ``spread_layers(3, 6) == (0, 2, 5)``.
    """
    if not 1 <= count <= depth:
        raise ValueError(f"num_layers is {count}, must be between 1 and the target's {depth}")
    return tuple(round(i * (depth - 1) / max(1, count - 1)) for i in range(count))


def keep_layers(model: PreTrainedModel, layers: Sequence[int]) -> None:
    """Leave only these layers in `model`, in place. Raises ValueError if it has no such layers."""
    decoder, config = model.get_decoder(), model.config.get_text_config()
    depth = len(decoder.layers)
    if not all(0 <= layer < depth for layer in layers):
        raise ValueError(f"layers are {list(layers)}, but the target has {depth}, from 0")
    decoder.layers = nn.ModuleList(decoder.layers[layer] for layer in layers)
    for index, layer in enumerate(decoder.layers):
        # By this its attention finds its place in a cache.
        layer.self_attn.layer_idx = index
    config.num_hidden_layers = len(layers)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[layer] for layer in layers]
