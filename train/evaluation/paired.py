"""Comparing two ways of doing the same work on a machine that is not equally fast all the time.

The work is cut into blocks, and each block is done both ways, one right after the other, so that a slow minute meets
both; which way goes first alternates.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from train.evaluation.intervals import Interval, jackknife, ratio_of_ratios


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """A block of work, done one way."""

    tokens: int
    seconds: float


def speed(blocks: Sequence[Timed]) -> float:
    """Tokens per second over all blocks."""
    return sum(b.tokens for b in blocks) / sum(b.seconds for b in blocks)


def speed_ratio(pairs: Sequence[tuple[Timed, Timed]]) -> Interval:
    """Speed of the first of each pair over that of the second, all blocks together."""
    return jackknife([(a.tokens, a.seconds, b.tokens, b.seconds) for a, b in pairs], ratio_of_ratios)
