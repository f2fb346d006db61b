"""Dividing pairs into parts by hashes: the same on every machine, whatever comes before or after a pair."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from train.hashing import text_hash, text_key
from train.pair import Pair

Part = Literal["train", "valid", "test"]


class Splitter:
    """Gives about these shares of the text to validation and test.

    A hash of the pair's document decides, or, where that is unknown, of its English side, so that the same English
    sentence is in the same part in every language. Raises ValueError for shares that are none.
    """

    def __init__(self, *, valid: float, test: float, seed: int) -> None:
        if valid < 0 or test < 0 or valid + test > 1:
            raise ValueError(f"shares of valid ({valid}) and test ({test}) must be at least 0 and at most 1 together")
        self._valid, self._test, self._seed = valid, test, seed

    def part(self, pair: Pair) -> Part:
        unit = text_key(pair.english) if pair.document is None else pair.document
        position = _position(unit, f"split {self._seed}")
        if position < self._test:
            return "test"
        return "valid" if position < self._test + self._valid else "train"


def rank(pair: Pair, seed: int) -> float:
    """Where a pair's English side falls in [0, 1): when not all pairs are wanted, the lowest are taken."""
    return _position(text_key(pair.english), f"choose {seed}")


def lowest(ranks: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.bool_]:
    """Mask of the `count` lowest ranks, the earlier ones of equals."""
    mask = np.zeros(len(ranks), np.bool_)
    mask[np.argsort(ranks, kind="stable")[:count]] = True
    return mask


def _position(text: str, salt: str) -> float:
    return text_hash(text, salt) / 2**64
