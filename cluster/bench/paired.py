"""Comparing two ways of doing the same work on a machine that is not equally fast all the time.

The work is cut into blocks, and each block is done both ways, one right after the other, so that a slow minute meets
both; which way goes first alternates.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """A block of work, done one way."""

    tokens: int
    seconds: float


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """How many times as fast one way is as the other, with its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def speed(blocks: Sequence[Timed]) -> float:
    """Tokens per second over all blocks."""
    return sum(b.tokens for b in blocks) / sum(b.seconds for b in blocks)


def speed_ratio(pairs: Sequence[tuple[Timed, Timed]], *, resamples: int = 4000, seed: int = 0) -> Ratio:
    """Speed of the first of each pair over that of the second, all blocks together.

    The interval is the percentile bootstrap's over pairs (Efron 1979); with few pairs it is little more than their
    range.
    """
    ones, others = ([pair[way] for pair in pairs] for way in (0, 1))
    chosen_RB = np.random.default_rng(seed).integers(len(pairs), size=(resamples, len(pairs)))

    def resampled_speeds(blocks: Sequence[Timed]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        tokens, seconds = np.array([b.tokens for b in blocks]), np.array([b.seconds for b in blocks])
        return tokens[chosen_RB].sum(axis=1) / seconds[chosen_RB].sum(axis=1)

    low, high = np.percentile(resampled_speeds(ones) / resampled_speeds(others), [2.5, 97.5])
    value, low, high = (round(float(x), 4) for x in (speed(ones) / speed(others), low, high))
    return Ratio(value=value, low=low, high=high)
