"""The tensors that keep keys and values."""

from __future__ import annotations

from torch import Tensor


class KVStore:
    """Per layer, keys and values [num_blocks, block_size, kv_heads, head_dim].

    A layer's tensors are made when it first writes, in the shape it writes, so any decoder fits, also one whose
    layers differ.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self._shape = num_blocks, block_size
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def write(self, layer: int, slots_T: Tensor, keys_THD: Tensor, values_THD: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values of T tokens; returns the layer's whole (keys, values)."""
        if layer not in self._layers:
            self._layers[layer] = (
                keys_THD.new_zeros(*self._shape, *keys_THD.shape[1:]),
                values_THD.new_zeros(*self._shape, *values_THD.shape[1:]),
            )
        keys, values = self._layers[layer]
        keys.flatten(0, 1).index_copy_(0, slots_T, keys_THD)
        values.flatten(0, 1).index_copy_(0, slots_T, values_THD)
        return keys, values
