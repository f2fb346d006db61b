"""How long an engine waits for the texts that it has just answered before it steps without them.

Texts answered together ask again together, a moment later. If a step began in that moment they would miss it, and the
texts would fall into groups that take turns for good, each paying a step of its own. Waiting for them saves a step,
and a step costs at least what the cheapest one costs: so much waiting pays, more does not.

How long texts are away is known of those too that come back while a step without them is under way: else groups that
take turns, of which that is always so, would never be brought together.
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
        self._answered_s: dict[Key, float] = {}
        """When each text that is away was answered."""
        self._away: set[Key] = set()
        """Those of them that the latest step answered."""
        self._stepped_s = 0.0
        self._delay_s = self._deviation_s = 0.0
        """Averages: of the delays, and of how far they are from that."""
        self._cheapest_s = float("inf")

    def answered(self, keys: Iterable[Key], step_s: float) -> None:
        """A step of `step_s` seconds has just answered these."""
        self._away = set(keys)
        self._stepped_s = self._clock()
        self._answered_s |= dict.fromkeys(self._away, self._stepped_s)
        self._cheapest_s = min(step_s, self._cheapest_s * RISE)

    def came(self, key: Key, at_s: float) -> None:
        """A session has asked again, or has ended, at `at_s` by the clock."""
        self._away.discard(key)
        answered_s = self._answered_s.pop(key, None)
        if answered_s is not None:
            off_s = at_s - answered_s - self._delay_s
            self._deviation_s += WEIGHT * (abs(off_s) - self._deviation_s)
            self._delay_s += WEIGHT * off_s

    def patience(self) -> float:
        """Seconds still to be waited for those that are away; 0 if they are likely to come too late."""
        if not self._away:
            return 0.0
        until = self._stepped_s + worth_waiting(self._delay_s, self._deviation_s, self._cheapest_s)
        return max(0.0, until - self._clock())


def worth_waiting(delay_s: float, deviation_s: float, cheapest_s: float) -> float:
    """Seconds after a step in which the next one is not begun without the texts that it has answered.

    They are away for `delay_s`, off by `deviation_s` on average; the cheapest step takes `cheapest_s`. 0 if they are
    likely to come too late.
    """
    if delay_s > cheapest_s:
        return 0.0
    # The later half too, where some have their drafts at hand and others wait for them.
    return min(delay_s + max(delay_s, 2 * deviation_s), cheapest_s)
