"""Memory for keys and values: blocks of a fixed budget, lent to sequences.

    pool     [ b0 | b1 | b2 | b3 | b4 | … ]      num_blocks blocks of block_size token slots, each of them either
    free       b1 b3                             blank,
    cached     b0                                held by nobody, its text known: taken over by a sequence that begins
                                                 with that text, or evicted when no block is free, or
    held       b2 b4                             lent: to one sequence, or to several if its text is known

A block is registered, its text then known, when it is full of committed tokens. From then on it is never written
until it is evicted, so sequences can share it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from common.engine.prefix import Prefix
from common.types import TokenIds

BLOCK_SIZE = 16
"""Tokens of a block: small enough that little is lent in vain, large enough that there are few to keep account of."""


class CacheIntegrityError(AssertionError):
    """Blocks were leaked, lent twice, or cut off from their text: a defect in polydraft."""


class BlockPool:
    """Which blocks are free, cached or held, and what text they hold. Knows no tensors.

    Whoever holds a registered block holds those of the text before it too, and releases the later ones first. So the
    longest released are always the ends of texts, and eviction never takes a block out of the middle of one.
    """

    def __init__(self, num_tokens: int, block_size: int = BLOCK_SIZE) -> None:
        if num_tokens < block_size:
            raise ValueError(f"kv_tokens must be at least one block of {block_size}, not {num_tokens}")
        self.block_size = block_size
        self.num_blocks = num_tokens // block_size
        self.root = Prefix()
        self._free = list(range(self.num_blocks - 1, -1, -1))
        self._cached: OrderedDict[int, None] = OrderedDict()
        """Least recently released first."""
        self._holders: dict[int, int] = {}
        self._registered: dict[int, Prefix] = {}

    @property
    def capacity(self) -> int:
        """Tokens that the whole pool holds."""
        return self.num_blocks * self.block_size

    @property
    def free_blocks(self) -> int:
        return len(self._free)

    @property
    def cached_blocks(self) -> int:
        return len(self._cached)

    @property
    def held_blocks(self) -> int:
        return len(self._holders)

    @property
    def available_blocks(self) -> int:
        """Blocks that can be lent now."""
        return len(self._free) + len(self._cached)

    def blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def take(self, count: int) -> list[int] | None:
        """Borrow `count` blocks to write to; None if that many are not available."""
        if count > self.available_blocks:
            return None
        while len(self._free) < count:
            self._evict()
        blocks = [self._free.pop() for _ in range(count)]
        self._holders.update(dict.fromkeys(blocks, 1))
        return blocks

    def share(self, prefix: Prefix) -> None:
        """Borrow the block of a known text, to read from."""
        self._cached.pop(prefix.block, None)
        self._holders[prefix.block] = self._holders.get(prefix.block, 0) + 1

    def release(self, blocks: Iterable[int]) -> None:
        """Give blocks back, the end of a text first. Raises CacheIntegrityError if one is not held."""
        for block in blocks:
            holders = self._holders.pop(block, 0)
            if not holders:
                raise CacheIntegrityError(f"block {block} was released, but nobody holds it")
            if holders > 1:
                self._holders[block] = holders - 1
            elif block in self._registered:
                self._cached[block] = None
            else:
                self._free.append(block)

    def register(self, parent: Prefix, tokens: TokenIds, block: int) -> Prefix:
        """Make known that `block`, held, is full of `tokens`, which follow the text of `parent`.

        If another block already holds that text, the caller gets a share in it and `block` is released.
        """
        known = parent.children.get(tokens)
        if known is not None:
            self.share(known)
            self.release([block])
            return known
        self._registered[block] = parent.extend(tokens, block)
        return self._registered[block]

    def check_integrity(self, held: Mapping[int, int]) -> None:
        """Check the books against `held`, how many sequences hold each block. Raises CacheIntegrityError."""
        if dict(held) != self._holders:
            raise CacheIntegrityError(f"blocks are held {dict(held)}, but lent {self._holders}")
        counted = self.free_blocks + self.cached_blocks + self.held_blocks
        if counted != self.num_blocks or len({*self._free, *self._cached, *self._holders}) != self.num_blocks:
            raise CacheIntegrityError(
                f"{self.num_blocks} blocks, but {self.free_blocks} free, {self.cached_blocks} cached and "
                f"{self.held_blocks} held"
            )
        self._check_registered()

    def _check_registered(self) -> None:
        if not self._registered.keys() >= self._cached.keys() or not self._registered.keys().isdisjoint(self._free):
            raise CacheIntegrityError("cached blocks without a text, or free ones with one")
        if any(count > 1 and block not in self._registered for block, count in self._holders.items()):
            raise CacheIntegrityError("a block that may be written to is shared")
        for block, prefix in self._registered.items():
            parent = prefix.parent
            assert parent is not None
            reachable = prefix.block == block and parent.children.get(prefix.tokens) is prefix
            known = parent is self.root or self._registered.get(parent.block) is parent
            if not (reachable and known):
                raise CacheIntegrityError(f"block {block} is cut off from its text")
            if parent is not self.root and self._holders.get(parent.block, 0) < self._holders.get(block, 0):
                raise CacheIntegrityError(f"block {block} is held without the text before it")

    def _evict(self) -> None:
        block, _ = self._cached.popitem(last=False)
        prefix = self._registered.pop(block)
        if prefix.children:
            raise CacheIntegrityError(f"block {block} was evicted out of the middle of a text")
        prefix.forget()
        self._free.append(block)
