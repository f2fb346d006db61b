"""Two drafters of one target on the same prompts, one of which is to take the other's place."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from common.types import SpeculationStats
from train.evaluation.intervals import Interval, difference_of_ratios, jackknife, ratio


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens per verification, over all temperatures; the intervals are over prompts."""

    prompts: int
    before: Interval
    after: Interval
    difference: Interval
    """After less before, of the same prompts."""

    def __str__(self) -> str:
        return f"{self.before.value:.3f} before, {self.after.value:.3f} after, difference {self.difference}"


class Improvement(msgspec.Struct, frozen=True, kw_only=True):
    traffic: Compared
    """On served prompts that were not trained on."""
    ordinary: Compared
    """On the test text."""


def compare(before: Sequence[SpeculationStats], after: Sequence[SpeculationStats]) -> Compared:
    """Each prompt's two texts stand in one row, so that they are drawn together."""
    rows = [
        (new.output_tokens, new.rounds, old.output_tokens, old.rounds) for old, new in zip(before, after, strict=True)
    ]
    return Compared(
        prompts=len(rows),
        before=jackknife([row[2:] for row in rows], ratio),
        after=jackknife([row[:2] for row in rows], ratio),
        difference=jackknife(rows, difference_of_ratios),
    )
