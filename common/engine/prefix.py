"""Texts that the cache knows, as a tree: each node is one block's tokens, after those of its parent.

    root ─ [You are a helpful … ] ─ [… assistant. Answer in] ─ [German. …]
                                                             └ [French. …]

A node is found by its tokens themselves, compared one by one, so two texts are never taken for each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from common.types import TokenIds


@dataclass(slots=True, eq=False)
class Prefix:
    """A text that fills whole blocks: that of `parent`, then `tokens`, whose keys and values are in `block`."""

    block: int = -1
    tokens: TokenIds = ()
    parent: Prefix | None = field(default=None, repr=False)
    children: dict[TokenIds, Prefix] = field(default_factory=dict, repr=False)

    def extend(self, tokens: TokenIds, block: int) -> Prefix:
        """The new text of this one's tokens and then `tokens`."""
        child = self.children[tokens] = Prefix(block, tokens, self)
        return child

    def forget(self) -> None:
        """No longer be found."""
        assert self.parent is not None, "the root is no text"
        del self.parent.children[self.tokens]

    def longest(self, tokens: Sequence[int], start: int, stop: int, block_size: int) -> Iterator[Prefix]:
        """The known texts that go on from this one with whole blocks of tokens[start:stop], shortest first."""
        prefix = self
        for first in range(start, stop - block_size + 1, block_size):
            child = prefix.children.get(tuple(tokens[first : first + block_size]))
            if child is None:
                return
            yield child
            prefix = child
