"""Text that must not be trained on: every sentence that a drafter will be judged by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from train.hashing import text_hash, text_key
from train.pair import Pair

FILE = "held-out.npy"


class HeldOut:
    """Named sets of held-out text, known by their hashes; case and spacing do not count."""

    def __init__(self) -> None:
        self._set_of: dict[int, str] = {}
        self.found: dict[str, int] = {}
        """What was held out of what `holds` and `unseen` were given so far, by set; the first of several counts."""

    def add(self, name: str, texts: Iterable[str]) -> None:
        self.found.setdefault(name, 0)
        for text in texts:
            self._set_of.setdefault(_hash(text), name)

    def save(self, folder: Path) -> None:
        """For what is trained on several languages, each of which holds out something."""
        np.save(folder / FILE, np.fromiter(self._set_of, np.uint64))

    def load(self, name: str, folder: Path) -> None:
        """Add, as the set `name`, all that was saved to `folder`."""
        self.found.setdefault(name, 0)
        for known in np.load(folder / FILE, allow_pickle=False).tolist():
            self._set_of.setdefault(known, name)

    def holds(self, texts: Iterable[str]) -> bool:
        """Whether one of the texts of one thing is held out."""
        name = next(filter(None, (self._set_of.get(_hash(text)) for text in texts)), None)
        if name is not None:
            self.found[name] += 1
        return name is not None

    def unseen(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """The pairs of which neither side is held out."""
        return (pair for pair in pairs if not self.holds((pair.source, pair.english)))


def _hash(text: str) -> int:
    return text_hash(text_key(text))
