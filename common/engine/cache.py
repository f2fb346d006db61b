"""Memory for keys and values: blocks of a fixed budget, lent to sequences.

    pool     [ b0 | b1 | b2 | b3 | b4 | … ]          num_blocks blocks of block_size token slots
    sequence   b4   b1                               blocks lent for its longest possible length
    slots      [64..79, 16..31]                      where token 0, 1, … of the sequence keeps its K and V
    cached     [t0 t1 … t(n-1)]                      the tokens whose K and V are there now

Blocks are reserved when a sequence begins, for the most tokens it can reach, so memory never runs out half-way
through a text. Rolling back is shortening `cached`: K and V beyond it are dead and will be written over.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

import torch
from torch import Tensor

BLOCK_SIZE = 16
"""Tokens of a block: small enough that little is reserved in vain, large enough that the free list stays short."""


class CacheIntegrityError(AssertionError):
    """Blocks were leaked or lent twice: a defect in polydraft."""


class BlockPool:
    """Which blocks are free. Knows no tensors."""

    def __init__(self, num_tokens: int, block_size: int = BLOCK_SIZE) -> None:
        if num_tokens < block_size:
            raise ValueError(f"kv_tokens must be at least one block of {block_size}, not {num_tokens}")
        self.block_size = block_size
        self.num_blocks = num_tokens // block_size
        self._free = list(range(self.num_blocks - 1, -1, -1))
        self._lent: set[int] = set()

    @property
    def capacity(self) -> int:
        """Tokens that the whole pool holds."""
        return self.num_blocks * self.block_size

    @property
    def free_blocks(self) -> int:
        return len(self._free)

    def reserve(self, num_tokens: int) -> list[int] | None:
        """Borrow blocks for `num_tokens` tokens; None if not enough are free now."""
        needed = -(-num_tokens // self.block_size)
        if needed > len(self._free):
            return None
        blocks = [self._free.pop() for _ in range(needed)]
        self._lent.update(blocks)
        return blocks

    def release(self, blocks: SequenceOf[int]) -> None:
        if not self._lent.issuperset(blocks):
            raise CacheIntegrityError(f"released blocks that were not lent: {set(blocks) - self._lent}")
        self._lent.difference_update(blocks)
        self._free.extend(blocks)

    def check_integrity(self) -> None:
        """Every block is either free or lent, once. Raises CacheIntegrityError."""
        if len(self._free) + len(self._lent) != self.num_blocks or self._lent.intersection(self._free):
            raise CacheIntegrityError(
                f"{self.num_blocks} blocks, but {len(self._free)} free and {len(self._lent)} lent"
            )


class CachedSequence:
    """One sequence's place in the cache.

    Attributes:
        slots: int64 [reserved tokens], the slot of each position.
        cached: the tokens whose keys and values are stored, in order.
    """

    def __init__(self, blocks: list[int], block_size: int, device: torch.device) -> None:
        self.blocks = blocks
        starts = torch.tensor(blocks, device=device, dtype=torch.int64) * block_size
        self.slots = (starts[:, None] + torch.arange(block_size, device=device)).reshape(-1)
        self.cached: list[int] = []

    @property
    def length(self) -> int:
        return len(self.cached)

    def rollback(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        del self.cached[length:]

    def keep_common_prefix(self, tokens: SequenceOf[int]) -> None:
        """Forget what does not agree with `tokens`, and always the last of them, whose logits are wanted anew."""
        limit = min(self.length, len(tokens) - 1)
        agreed = next((i for i in range(limit) if self.cached[i] != tokens[i]), limit)
        self.rollback(agreed)


class KVStore:
    """The tensors: per layer, keys and values [num_slots, kv_heads, head_dim].

    A layer's tensors are made when it first writes, in the shape it writes, so any decoder fits, also one whose
    layers differ.
    """

    def __init__(self, num_slots: int) -> None:
        self._num_slots = num_slots
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def write(self, layer: int, slots_T: Tensor, keys_THD: Tensor, values_THD: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values of T tokens; returns the layer's whole (keys, values)."""
        if layer not in self._layers:
            self._layers[layer] = (
                keys_THD.new_zeros(self._num_slots, *keys_THD.shape[1:]),
                values_THD.new_zeros(self._num_slots, *values_THD.shape[1:]),
            )
        keys, values = self._layers[layer]
        keys.index_copy_(0, slots_T, keys_THD)
        values.index_copy_(0, slots_T, values_THD)
        return keys, values
