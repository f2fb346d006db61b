"""What verifying costs, learned from the rounds: with `drafter_costs` the basis on which draft lengths are chosen.

    verify leg   wire + (1 + queueing) * step(tokens)     one verifier model per router

step(tokens) is a table of measured means, not a line: on a CPU the second token of a step costs more than the tenth,
on a GPU the first hundreds are nearly free. Each size of step keeps its own mean, so neither a step that also
prefilled a long prompt nor an hour under another load disturbs what is known about the others.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from operator import attrgetter

from common.types import StepCost

SPAN = 32
"""Observations that an average remembers."""
OUTLIER = 4.0
"""A value counts as at most so many times the mean: a hiccup moves it little, a lasting change does within rounds."""
LIFETIME = 300
"""Steps after which a size of step that did not occur again is half forgotten: if it then does, it is learned anew."""
JITTER_S = 1e-3
"""Times up to this long are no outliers, whatever the mean."""


class Average:
    """Exponential average over about `span` observations.

    The weight of an observation is 2 / (1 + how many there are, at most `span`): what came first, when everything is
    still cold, is forgotten soonest. Values up to `floor` are never outliers.
    """

    __slots__ = ("_floor", "_span", "_total", "mean")

    def __init__(self, span: float = SPAN, floor: float = 0.0) -> None:
        self.mean = 0.0
        self._span = span
        self._floor = floor
        self._total = 0.0

    def add(self, value: float, weight: float = 1.0) -> None:
        if self._total:
            value = min(value, OUTLIER * self.mean + self._floor)
        self._total = min(self._total + weight, self._span)
        self.mean += 2 * weight / (self._total + weight) * (value - self.mean)

    def age(self, lifetimes: float) -> None:
        """What was added counts for less, after one lifetime for half."""
        self._total /= 1.0 + lifetimes

    @property
    def known(self) -> bool:
        return self._total > 0.0


class _Size:
    """Steps of about the same number of tokens."""

    __slots__ = ("_added_at", "seconds", "tokens")

    def __init__(self) -> None:
        self._added_at = 0.0
        self.tokens = Average()
        self.seconds = Average(floor=JITTER_S)

    def add(self, cost: StepCost, weight: float, now: float) -> None:
        for average, value in ((self.tokens, cost.tokens), (self.seconds, cost.seconds)):
            average.age((now - self._added_at) / LIFETIME)
            average.add(value, weight)
        self._added_at = now


class StepTable:
    """Seconds of a forward pass by its tokens.

    Between measured sizes it interpolates. Beyond them it takes the lowest cost that there can be: smaller steps in
    proportion to their tokens, larger ones no dearer than the largest measured. Such a size looks good, so it is tried,
    and then it is known; a cautious guess would never be put right.
    """

    def __init__(self) -> None:
        self._sizes: dict[int, _Size] = {}
        self._ascending: list[_Size] = []
        self._steps = 0.0

    def add(self, cost: StepCost, weight: float) -> None:
        bracket = _bracket(cost.tokens)
        size = self._sizes.get(bracket)
        is_new = size is None
        if size is None:
            size = self._sizes[bracket] = _Size()
        self._steps += weight
        size.add(cost, weight, self._steps)
        if is_new:
            insort(self._ascending, size, key=attrgetter("tokens.mean"))

    def seconds(self, batches: Iterable[float]) -> list[float]:
        """For each number of tokens; they must ascend."""
        sizes = iter(self._ascending)
        above = next(sizes)
        low_x = low_y = 0.0
        high_x, high_y = above.tokens.mean, above.seconds.mean
        result = []
        for tokens in batches:
            while tokens > high_x:
                low_x, low_y = high_x, high_y
                following = next(sizes, None)
                high_x, high_y = (
                    (following.tokens.mean, following.seconds.mean) if following else (float("inf"), high_y)
                )
            result.append(low_y + (high_y - low_y) * (tokens - low_x) / (high_x - low_x))
        return result

    @property
    def known(self) -> bool:
        return bool(self._ascending)


def _bracket(tokens: int) -> int:
    """Numbers up to 7 have one each, larger ones share four an octave."""
    shift = max(0, tokens.bit_length() - 3)
    return (tokens >> shift) + 4 * shift


class VerifierCosts:
    """The verify leg of all texts at a router."""

    def __init__(self) -> None:
        self._steps = StepTable()
        self._scatter = Average()  # steps that would be needed for all texts, over steps made
        self._wire_s = Average(floor=JITTER_S)
        self._queueing = Average(floor=1.0)  # in steps: waiting for the one under way is no outlier

    @property
    def known(self) -> bool:
        return self._steps.known

    def add(self, sessions: int, drafted: int, cost: StepCost, wall_s: float) -> None:
        """A round of one of `sessions` texts, which had `drafted` tokens checked in `wall_s` seconds, waiting included.

        The texts in a step all report it, so each report weighs that much less.
        """
        self._steps.add(cost, 1.0 / sessions)
        self._scatter.add(sessions * (1 + drafted) / cost.tokens, 1.0 / sessions)
        wait_s = max(0.0, wall_s - cost.seconds)
        if sessions == 1:
            self._wire_s.add(wait_s)
        else:
            # What is waited for is steps, and they are as long as the drafts make them.
            self._queueing.add(max(0.0, wait_s - self._wire_s.mean) / max(cost.seconds, JITTER_S), 1.0 / sessions)

    def seconds(self, sessions: int, longest: int) -> list[float]:
        """The leg's duration if all texts have n tokens checked, for n = 0 ... longest.

        Not all `sessions` are in each step: some are being drafted for, some are at another replica, and another
        router's may be there as well. So the batch is scaled by how the measured ones compare. Their inverse is what
        is averaged, because a step that also prefilled a prompt, however long, then counts for nothing.
        """
        batch = max(1.0, sessions / self._scatter.mean)
        steps = self._steps.seconds([batch * n for n in range(1, longest + 2)])
        return verify_leg(steps, self._wire_s.mean, self._queueing.mean if sessions > 1 else 0.0)


def verify_leg(steps_s: Iterable[float], wire_s: float, queueing: float) -> list[float]:
    """The leg's duration for each duration of a step; `queueing` is in steps."""
    return [wire_s + (1.0 + queueing) * step_s for step_s in steps_s]


def draft_leg(overhead_s: float, token_s: float, longest: int) -> list[float]:
    """The leg's duration for n = 0 ... longest tokens."""
    return [0.0, *(overhead_s + n * token_s for n in range(1, longest + 1))]
