"""What a round is going to bring and to take, by how much is drafted.

While a draft is being verified the drafter runs ahead, so a share of the next drafts is at hand when asked for: these
take no time to draft, and may be longer. How long the others should be depends on them: what is maximised is tokens per
second over both kinds,

    value(n) = (h tokens(m) + (1 - h) tokens(n)) / (g (overhead + verify(m)) + (1 - g) (draft(n) + verify(n)))

with h the share at hand, m the length that is best for those, never less than n, and g the share of the rounds in which
nobody drafts. Texts that share the verifier's steps go in step, so each waits for the slowest draft: of s texts nobody
drafts with g = h^s. The more texts there are, the less time is won, and the shorter are the drafts that all wait for.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import NamedTuple

MOST_AHEAD = 4
"""Texts in progress with which drafting ahead is asked for: of more, some must nearly always be waited for.

Measured, four still win 1-3 % by it; six lose a little, and more texts lose more.
"""


class DraftLength(NamedTuple):
    wanted: int
    """Tokens worth drafting."""
    ahead: int
    """Most tokens worth having verified if they are drafted already; 0 where nothing is to be drafted ahead."""
    promise: float | None = None
    """How many times as fast as plain decoding drafting should be; None if the round says nothing of whether it is."""

    @classmethod
    def of(cls, wanted: int, ahead: int, sessions: int, promise: float | None = None) -> DraftLength:
        """`wanted`, or more if so much is at hand, while `sessions` texts are in progress."""
        return cls(wanted, max(wanted, ahead) if wanted and sessions <= MOST_AHEAD else 0, promise)


NO_DRAFT = DraftLength(0, 0)


class RoundCosts(NamedTuple):
    """Seconds of a round for n = 0, 1, …"""

    drafted: list[float]
    """All tokens are drafted when they are asked for."""
    at_hand: list[float]
    """They were before."""
    share: float
    """Of the drafts that are at hand."""
    sessions: int
    """Texts that go in step."""

    @classmethod
    def of(
        cls, drafting: Sequence[float], verifying: Sequence[float], overhead_s: float, *, share: float, sessions: int
    ) -> RoundCosts:
        """Of both legs' durations, and of the draft leg's when the draft is at hand."""
        drafted = [draft_s + verify_s for draft_s, verify_s in zip(drafting, verifying, strict=True)]
        return cls(drafted, [overhead_s + verify_s for verify_s in verifying], share, sessions)


class Outlook(NamedTuple):
    values: list[float]
    """Tokens per second for n = 0, 1, …"""
    seconds: list[float]
    """Of a round, on average."""
    ahead: int
    """The best length of a draft at hand."""


def outlook(rates: Sequence[float], costs: RoundCosts) -> Outlook:
    """For n = 0, 1, … as far as there are `rates` of acceptance, position by position."""
    tokens = list(accumulate(accumulate(rates, mul), initial=1.0))
    if len(tokens) == 1:
        return Outlook([1.0 / costs.drafted[0]], costs.drafted[:1], 0)
    ahead = max(range(1, len(tokens)), key=lambda n: tokens[n] / costs.at_hand[n])
    seconds = costs.drafted[: len(tokens)]
    if costs.share:
        at_once = costs.share**costs.sessions
        lengths = [max(n, ahead) for n in range(len(tokens))]
        tokens[1:] = [_mean(costs.share, tokens[lengths[n]], tokens[n]) for n in range(1, len(tokens))]
        seconds[1:] = [_mean(at_once, costs.at_hand[lengths[n]], seconds[n]) for n in range(1, len(tokens))]
    return Outlook([made / taken for made, taken in zip(tokens, seconds, strict=True)], seconds, ahead)


def among_others(alone: Outlook, costs: RoundCosts, common: int) -> Outlook:
    """What remains for one text to choose while the others draft `common` tokens, with what its choice costs them all.

    The time until their drafts are there is spent whatever it does, so by drafting less it saves verification only. If
    it makes them wait longer, all of them do. `alone` is what it expects if all choose like it.
    """
    if costs.sessions == 1:
        return alone
    waits = [taken - at_hand for taken, at_hand in zip(alone.seconds, costs.at_hand, strict=False)]
    seconds = [
        at_hand + waits[common] + costs.sessions * max(0.0, wait - waits[common])
        for at_hand, wait in zip(costs.at_hand, waits, strict=False)
    ]
    values = [value * before / after for value, before, after in zip(alone.values, alone.seconds, seconds, strict=True)]
    return Outlook(values, seconds, alone.ahead)


def best_length(values: Sequence[float], *, present: int = 0, hysteresis: float = 0.0, min_gain: float) -> int:
    """The length of the highest value, the present one if its value is nearly as high, or 0 if it gains little."""
    kept, highest = min(present, len(values) - 1), max(values)
    improves = highest > values[kept] * (1.0 + hysteresis)
    length = values.index(highest) if improves else kept
    return length if values[length] >= values[0] * (1.0 + min_gain) else 0


def _mean(share: float, one: float, other: float) -> float:
    return share * one + (1.0 - share) * other
