"""Text that must not be trained on: every sentence that a drafter will be judged by.

It is known by its hashes, so that languages can tell each other of it; case and spacing do not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from train.hashing import text_hash, text_key
from train.pair import Pair

FILE = "held-out.json"


class HeldOutText(msgspec.Struct, frozen=True, kw_only=True):
    """Hashes of what one language holds out."""

    valid: list[int]
    test: list[int]
    sets: dict[str, list[int]]
    """Further evaluation sets, by name."""


def write_held_out(folder: Path, text: HeldOutText) -> None:
    (folder / FILE).write_bytes(msgspec.json.encode(text))


def read_held_out(folder: Path) -> HeldOutText:
    return msgspec.json.decode((folder / FILE).read_bytes(), type=HeldOutText)


def hashes(texts: Iterable[str]) -> list[int]:
    return [_hash(text) for text in texts]


class HeldOut:
    """Named sets of held-out text."""

    def __init__(self) -> None:
        self._set_of: dict[int, str] = {}
        self.found: dict[str, int] = {}
        """Pairs dropped by `unseen` so far, by set; a pair that is in several sets counts for the first."""

    def add(self, name: str, hashes: Iterable[int]) -> None:
        self.found.setdefault(name, 0)
        for known in hashes:
            self._set_of.setdefault(known, name)

    def unseen(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """The pairs of which neither side is held out."""
        for pair in pairs:
            name = self._set_of.get(_hash(pair.source)) or self._set_of.get(_hash(pair.english))
            if name is None:
                yield pair
            else:
                self.found[name] += 1


def _hash(text: str) -> int:
    return text_hash(text_key(text))
