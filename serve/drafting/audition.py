"""Which drafter suits a text: each is scored on tokens that the target has already written.

Under the coupled rule a drafter would have had accepted just those tokens that it draws itself, so the score is what
its acceptance would have been. A text whose language was guessed wrong, or that changes its language midway, so
comes to the drafter that pays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from common.rounds import TokenLog
from serve.drafting.remote_drafter import RemoteDrafter

WINDOW = 32
"""Tokens scored: the standard error of a share of 32 is below 0.09."""

MARGIN = 0.1
"""By how much a drafter must be better than the one at work: moving costs a prefill."""

POOR = 0.3
"""Share of accepted first tokens below which another drafter is looked for."""

ENOUGH = 8
"""Drafts on which a drafter is judged."""


class Patience:
    """When to hold the next audition: after WINDOW tokens written with poor drafts, then after twice as many …"""

    def __init__(self) -> None:
        self._needed = WINDOW
        self._tokens = self._drafts = self._hits = 0

    def note(self, *, drafted: bool, hit: bool, written: int) -> None:
        """One round: whether the drafter at work drafted, whether its first token was accepted, tokens written."""
        self._tokens += written
        self._drafts += drafted
        self._hits += drafted and hit

    def lost(self, *, has_drafter: bool) -> float | None:
        """The share of drafts whose first token was accepted, once it is time to look for a better drafter.

        It is when they were poor, or when there is no drafter at all; not when the one there is was hardly asked.
        """
        if self._tokens < self._needed:
            return None
        share, judged = self._hits / max(1, self._drafts), self._drafts >= ENOUGH
        self._tokens = self._drafts = self._hits = 0
        if has_drafter and not (judged and share < POOR):
            return None
        self._needed *= 2
        return share


async def audition(log: TokenLog, candidates: Sequence[RemoteDrafter], share: float) -> RemoteDrafter | None:
    """The best of the candidates if it is clearly better than `share`; the others are closed."""
    losers = list(candidates)
    try:
        for drafter in candidates:
            drafter.start(log)
        scores = await asyncio.gather(*(_share(drafter, log) for drafter in candidates))
        best, highest = max(zip(candidates, scores, strict=True), key=lambda scored: scored[1])
        if highest < share + MARGIN:
            return None
        losers.remove(best)
        return best
    finally:
        for drafter in losers:
            drafter.close()


async def _share(drafter: RemoteDrafter, log: TokenLog) -> float:
    scored = await drafter.score(log, WINDOW)
    return scored.agreed / WINDOW if scored is not None else 0.0
