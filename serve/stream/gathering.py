"""How long an engine waits for the texts that it has just answered before it steps without them.

Texts answered together ask again together, a moment later. If a step began in that moment they would miss it, and the
texts would fall into groups that take turns for good, each paying a step of its own. Waiting for them saves a step,
and a step costs at least what the cheapest one costs: so much waiting pays, more does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from common.engine.session import Key

WEIGHT = 1 / 16
"""Of the latest delay in the average of delays."""

RISE = 1.01
"""By how much a step the cheapest one known may rise: the machine may have become slower."""


class Gathering:
    """Args:
    clock: seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._away: set[Key] = set()
        self._answered_at = 0.0
        self._delay_s = 0.0
        self._cheapest_s = float("inf")

    def answered(self, keys: Iterable[Key], step_s: float) -> None:
        """A step of `step_s` seconds has just answered these."""
        self._away = set(keys)
        self._answered_at = self._clock()
        self._cheapest_s = min(step_s, self._cheapest_s * RISE)

    def came(self, key: Key) -> None:
        """A session asks again, or has ended."""
        if key in self._away:
            self._away.discard(key)
            self._delay_s += WEIGHT * (self._clock() - self._answered_at - self._delay_s)

    def patience(self) -> float:
        """Seconds still to be waited for those that are away; 0 if they are likely to come too late."""
        if not self._away or self._delay_s > self._cheapest_s:
            return 0.0
        until = self._answered_at + min(2 * self._delay_s, self._cheapest_s)
        return max(0.0, until - self._clock())
