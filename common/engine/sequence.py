"""One sequence's place in the cache.

    tokens     t0 … t15 | t16 … t31 | t32 t33
    blocks        b4    |    b1     |    b7        grown by the tokens that are about to run
    registered   yes    |   yes     |    no        shared perhaps, and never written to again

Rolling back is shortening `cached`: keys and values beyond it are dead and will be written over.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress, count
from operator import ne

from common.engine.cache import BlockPool
from common.engine.prefix import Prefix
from common.types import TokenIds


class CachedSequence:
    """Empty at first, and without memory.

    Attributes:
        cached: the tokens whose keys and values are stored, in order.
        blocks: what it holds, in order.
    """

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self.blocks: list[int] = []
        self.cached: list[int] = []
        self._registered: list[Prefix] = []
        """The texts up to the end of each registered block."""

    @property
    def length(self) -> int:
        return len(self.cached)

    @property
    def room(self) -> int:
        """Tokens that can be run before it must grow."""
        return len(self.blocks) * self._pool.block_size - self.length

    def blocks_of(self, length: int) -> list[int]:
        """Those of the first `length` tokens."""
        return self.blocks[: self._pool.blocks_for(length)]

    def adopt(self, tokens: Sequence[int]) -> int:
        """Share what the pool knows of `tokens`, which begin with those cached; returns how many were gained.

        Never the last of them, whose logits are wanted.
        """
        start, before = self._registered_length, self.length
        known = list(self._known.longest(tokens, start, len(tokens) - 1, self._pool.block_size))
        if start + len(known) * self._pool.block_size <= before:
            return 0
        first = len(self._registered)
        replaced = self.blocks[first : first + len(known)]
        self.blocks[first : first + len(known)] = [prefix.block for prefix in known]
        for prefix in known:
            self._pool.share(prefix)
        self._pool.release(reversed(replaced))
        self._registered += known
        self.cached[start:] = tokens[start : self._registered_length]
        return self.length - before

    def next_block(self, tokens: Sequence[int], length: int) -> tuple[Prefix, TokenIds] | None:
        """Names the text of the first `length` tokens that `adopt` could gain next, once another has run it."""
        start = self._registered_length
        stop = start + self._pool.block_size
        gainful = self.length < stop <= min(length, len(tokens) - 1)
        return (self._known, tuple(tokens[start:stop])) if gainful else None

    def grow(self, num_tokens: int, *, spare: int = 0) -> bool:
        """Hold blocks for `num_tokens` more than are cached; False if less than `spare` would then be available."""
        missing = self._pool.blocks_for(self.length + num_tokens) - len(self.blocks)
        if missing <= 0:
            return True
        blocks = self._pool.take(missing) if missing + spare <= self._pool.available_blocks else None
        if blocks is None:
            return False
        self.blocks += blocks
        return True

    def register(self, length: int) -> None:
        """Let others share what is cached of the first `length` tokens, which are committed."""
        size = self._pool.block_size
        for start in range(self._registered_length, min(length, self.length) - size + 1, size):
            index = start // size
            prefix = self._pool.register(self._known, tuple(self.cached[start : start + size]), self.blocks[index])
            self._registered.append(prefix)
            self.blocks[index] = prefix.block

    def fork(self) -> CachedSequence:
        """Another sequence, of those cached tokens that can be shared."""
        fork = CachedSequence(self._pool)
        fork._registered = self._registered.copy()
        fork.blocks = self.blocks[: len(fork._registered)]
        fork.cached = self.cached[: self._registered_length]
        for prefix in fork._registered:
            self._pool.share(prefix)
        return fork

    def rollback(self, length: int) -> None:
        """Forget all but the first `length` tokens; a few more if they are in a registered block, which stays as is."""
        if length >= self.length:
            return
        # One block more is kept, unless others may read it: the next draft is about to need it again.
        kept = self._pool.blocks_for(length) + 1
        if length < self._registered_length:
            kept = length // self._pool.block_size
            length = kept * self._pool.block_size
            del self._registered[kept:]
        del self.cached[length:]
        self._pool.release(reversed(self.blocks[kept:]))
        del self.blocks[kept:]

    def keep_common_prefix(self, tokens: Sequence[int], agreed: int) -> None:
        """Forget what does not agree with `tokens`, and always the last of them, whose logits are wanted anew.

        Their first `agreed` are known to agree, as far as they are cached.
        """
        differing = map(ne, self.cached[agreed:], tokens[agreed:])
        self.rollback(min(next(compress(count(agreed), differing), self.length), len(tokens) - 1))

    def release(self) -> None:
        """Give everything back; what is registered stays known until it is evicted."""
        self._pool.release(reversed(self.blocks))
        self.blocks.clear()
        self.cached.clear()
        self._registered.clear()

    @property
    def _known(self) -> Prefix:
        return self._registered[-1] if self._registered else self._pool.root

    @property
    def _registered_length(self) -> int:
        return len(self._registered) * self._pool.block_size


def slots(blocks: Sequence[int], start: int, stop: int, size: int) -> list[int]:
    """Where the keys and values of tokens[start:stop] of a sequence with these blocks of `size` tokens are."""
    return [blocks[position // size] * size + position % size for position in range(start, stop)]
