"""Intervals over items: which items were measured is the chance that a figure must be told with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Floats: TypeAlias = npt.NDArray[np.float64]


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A figure and its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def around(value: float, error: float, degrees: int) -> Interval:
    """Student's, of a figure and its standard error, which is known from so many degrees of freedom."""
    reach = float(stdtrit(degrees, 0.975)) * error
    return Interval(value=round(value, 4), low=round(value - reach, 4), high=round(value + reach, 4))


def jackknife(items_NC: npt.ArrayLike, statistic: Callable[[Floats], Floats]) -> Interval:
    """Of a statistic of sums, by what it is without each of the items (Tukey 1958).

        error^2 = (N - 1) / N sum over i of (statistic without item i - their mean)^2

    Args:
        items_NC: C figures of each of N items, such as its tokens and its seconds. What is to be compared item by item
            stands in one row, so that it is left out together.
        statistic: of the columns' sums, [..., C] to [...].

    Resampling (the bootstrap) would say the same of forty items; of three, its interval of 95% is one of 75%. Of a
    single one nothing is known, and the interval is the figure.
    """
    items = np.asarray(items_NC, np.float64)
    sums = items.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # without an item there may be nothing to divide by
        value, without = float(statistic(sums)), statistic(sums - items)
    without = without[np.isfinite(without)]
    degrees = len(without) - 1
    return around(value, float(np.sqrt(degrees * without.var())), degrees) if degrees > 0 else around(value, 0.0, 1)


def ratio(sums: Floats) -> Floats:
    """First column over second: tokens per second, tokens per verification. NaN where there is nothing to divide."""
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
