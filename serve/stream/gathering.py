"""How long an engine waits for the texts that it has just answered before it steps without them.

Texts answered together ask again together, a moment later. If a step began in that moment they would miss it, and the
texts would fall into groups that take turns for good, each paying a step of its own. Waiting for them saves a step,
and a step costs at least what the cheapest one costs: so much waiting pays, more does not.

A few that stay away for long are not worth it: they are in every second step then, for which all others need not wait.

Each text is waited for as long as it is usually away: one with long drafts comes later than one with short ones, and an
average of both would be too soon for it. That is known of those too that come back while a step without them is under
way: else groups that take turns, of which that is always so, would never be brought together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from common.engine.session import Key

WEIGHT = 1 / 4
"""Of the latest delay in a text's average: when it drafts more than before it is soon waited for again."""

TOLERANCE = 0.1
"""Texts are not left behind, at half their speed, unless all together become faster by more than this fraction."""

RISE = 1.01
"""By how much a step the cheapest one known may rise: the machine may have become slower."""


@dataclass(slots=True)
class Delay:
    """How long a text is away."""

    mean_s: float = 0.0
    deviation_s: float = 0.0
    """How far it is from that, on average."""

    @property
    def limit_s(self) -> float:
        """After so long it is not to be expected any more; much longer than usual it may be without a draft at hand."""
        return self.mean_s + max(self.mean_s, 2 * self.deviation_s)

    def observe(self, delay_s: float) -> None:
        off_s = delay_s - self.mean_s
        self.deviation_s += WEIGHT * (abs(off_s) - self.deviation_s)
        self.mean_s += WEIGHT * off_s


class Gathering:
    """Args:
    clock: seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._answered_s: dict[Key, float] = {}
        """When each text that is away was answered."""
        self._delays: dict[Key, Delay] = {}
        self._latest = Delay()
        """Of the text that came last, which is all that is known of a new one."""
        self._together: set[Key] = set()
        """Whom the latest step answered."""
        self._awaited: dict[Key, float] | None = {}
        """Those of them that are still away and worth waiting for, and until when; None after a step until that is
        asked, as mostly all are back by then."""
        self._cheapest_s = float("inf")

    def answered(self, keys: Iterable[Key], step_s: float) -> None:
        """A step of `step_s` seconds has just answered these."""
        self._cheapest_s = min(step_s, self._cheapest_s * RISE)
        self._together, self._awaited = set(keys), None
        self._answered_s |= dict.fromkeys(self._together, self._clock())
        for key in self._together - self._delays.keys():
            self._delays[key] = replace(self._latest)

    def came(self, key: Key, at_s: float) -> None:
        """A session has asked again, or for the first time, at `at_s` by the clock."""
        if self._awaited:
            self._awaited.pop(key, None)
        answered_s = self._answered_s.pop(key, None)
        if answered_s is not None:
            self._latest = self._delays[key]
            # Whoever is away for longer than a step is not waited for, and may be back at once the next time.
            self._latest.observe(min(max(0.0, at_s - answered_s), 2 * self._cheapest_s))

    def ended(self, key: Key) -> None:
        """The session will not ask again."""
        self._together.discard(key)
        for known in (self._awaited or {}, self._answered_s, self._delays):
            known.pop(key, None)

    def patience(self) -> float:
        """Seconds still to be waited for those that are away; 0 if they are likely to come too late."""
        if self._awaited is None:
            self._awaited = self._worth_awaiting()
        return max(0.0, max(self._awaited.values()) - self._clock()) if self._awaited else 0.0

    def _worth_awaiting(self) -> dict[Key, float]:
        away = self._together & self._answered_s.keys()
        if not away:
            return {}  # which is what it mostly comes to
        delays = self._delays
        longest_s = worth_waiting([(delays[key].mean_s, 1.0) for key in self._together], self._cheapest_s)
        return {
            key: self._answered_s[key] + min(delays[key].limit_s, self._cheapest_s)
            for key in away
            if delays[key].mean_s <= longest_s
        }


def worth_waiting(away: Iterable[tuple[float, float]], step_s: float) -> float:
    """The longest delay, in seconds, that the next step waits for; 0 if it is not worth waiting at all.

    `away` are delays, and how many texts have each. With T waited, the texts that are back by then are in every step,
    the late ones in every second one:

        texts per second (T) = (those back + half of those late) / (step + T)
    """
    delays = sorted(away)
    texts, back = sum(number for _, number in delays), 0.0
    speeds = [(0.0, texts / 2 / step_s)]
    for delay_s, number in delays:
        back += number
        if delay_s <= step_s:
            speeds.append((delay_s, (back + (texts - back) / 2) / (step_s + delay_s)))
    enough = (1.0 - TOLERANCE) * max(speed for _, speed in speeds)
    return max(delay_s for delay_s, speed in speeds if speed >= enough)
