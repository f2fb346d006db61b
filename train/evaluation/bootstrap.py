"""Intervals by resampling: which items were measured is the chance that a figure must be told with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

RESAMPLES = 4000


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A figure and its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    items_NC: npt.ArrayLike, statistic: Callable[[Floats], Floats], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The percentile bootstrap (Efron 1979) of a statistic of sums.

    Args:
        items_NC: C figures of each of N items, such as its tokens and its seconds. What is to be compared item by item
            stands in one row, so that it is drawn together.
        statistic: of the columns' sums, [..., C] to [...].

    With few items the interval is little more than their range.
    """
    items = np.asarray(items_NC, np.float64)
    generator = np.random.default_rng(seed)
    # Draws of items are counts of them, so that a resample's sums are one product of matrices.
    counts_RN = generator.multinomial(len(items), np.full(len(items), 1 / len(items)), size=resamples)
    # A resample may hold nothing to divide by.
    low, high = np.nanpercentile(statistic(counts_RN @ items), [2.5, 97.5])
    value = statistic(items.sum(axis=0))
    return Interval(value=round(float(value), 4), low=round(float(low), 4), high=round(float(high), 4))


def ratio(sums: Floats) -> Floats:
    """First column over second: tokens per second, tokens per verification. NaN where there is nothing to divide."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[..., 0] / sums[..., 1]


def difference_of_means(sums: Floats) -> Floats:
    """First column less the second, over the third, which counts the items."""
    return (sums[..., 0] - sums[..., 1]) / sums[..., 2]


def difference_of_ratios(sums: Floats) -> Floats:
    """The first two columns' ratio less the next two's: how much more."""
    return ratio(sums[..., :2]) - ratio(sums[..., 2:])


def ratio_of_ratios(sums: Floats) -> Floats:
    """The first two columns' ratio over the next two's: how many times as fast."""
    return ratio(sums[..., :2]) / ratio(sums[..., 2:])
