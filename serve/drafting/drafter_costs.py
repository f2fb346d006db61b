"""What drafting costs, learned from the rounds, by how many texts there are.

    draft leg    overhead + n * seconds per drafted token, unless n are at hand

Where drafters share processor cores, a draft takes many texts several times as long as one. If it were one average, a
busy hour would make drafts look too dear for the quiet one after it, in which none would be made to show better.
"""

from __future__ import annotations

from common.types import StepCost
from serve.drafting.costs import JITTER_S, LIFETIME, Average, draft_leg

KNOWN_AFTER = 8
"""Drafts until their cost is known: the very first may have been late, and counts for little among so many."""


class DraftLeg:
    """As it was with about so many texts."""

    def __init__(self) -> None:
        self._at_hand = Average(floor=1.0)
        self._token_s = Average(floor=JITTER_S)
        self._overhead_s = Average(floor=JITTER_S)
        self._drafts = 0
        self._added_at = 0.0

    def add(self, drafted: int, ahead: int, cost: StepCost, wall_s: float, now: float) -> None:
        """See `DrafterCosts.add`."""
        for average in (self._at_hand, self._token_s, self._overhead_s):
            average.age((now - self._added_at) / LIFETIME)
        self._added_at = now
        self._drafts += 1
        self._overhead_s.add(max(0.0, wall_s - cost.seconds))
        if drafted:
            self._at_hand.add(float(ahead >= drafted))
        if ahead < drafted:
            self._token_s.add(cost.seconds / (drafted - ahead))

    def seconds(self, longest: int) -> list[float]:
        """The leg's duration for n = 0 ... longest tokens, none of which is at hand."""
        return draft_leg(self._overhead_s.mean, self._token_s.mean, longest)

    @property
    def overhead_s(self) -> float:
        """The leg's duration when the draft is at hand."""
        return self._overhead_s.mean

    @property
    def at_hand(self) -> float:
        """Share of the drafts that are, all of their tokens."""
        return self._at_hand.mean

    @property
    def known(self) -> bool:
        return self._drafts >= KNOWN_AFTER

    def scaled(self, share: float) -> DraftLeg:
        """A leg that takes that share of the time, as if it had just become known."""
        leg = DraftLeg()
        leg._drafts, leg._added_at = KNOWN_AFTER, self._added_at
        leg._at_hand.add(self.at_hand, KNOWN_AFTER)
        leg._token_s.add(share * self._token_s.mean, KNOWN_AFTER)
        leg._overhead_s.add(share * self._overhead_s.mean, KNOWN_AFTER)
        return leg


class DrafterCosts:
    """The draft leg of one drafter's texts."""

    def __init__(self) -> None:
        self._legs: dict[int, DraftLeg] = {}
        self._choices = 0.0
        self.known = False

    def note_choice(self, sessions: int) -> None:
        """One of `sessions` texts chooses a length. What no draft confirms for many choices counts for less and less:
        when one is made again, it is soon believed."""
        self._choices += 1.0 / sessions

    def add(self, sessions: int, drafted: int, ahead: int, cost: StepCost, wall_s: float) -> None:
        """A draft for one of `sessions` texts of `drafted` tokens, of which `ahead` were drafted before, took `wall_s`
        seconds, waiting included; of 0 tokens if it was given up by then."""
        level = sessions.bit_length()
        if level not in self._legs:
            self._legs[level] = self.leg(sessions).scaled(1.0) if self.known else DraftLeg()
        self._legs[level].add(drafted, ahead, cost, wall_s, self._choices)
        self.known = self.known or self._legs[level].known

    def leg(self, sessions: int) -> DraftLeg:
        """Of about so many texts. Where their drafts are not known it takes the lowest cost that there can be, as a
        `StepTable` does: no less than of fewer texts, nor than of more in proportion."""
        known = {level: leg for level, leg in self._legs.items() if leg.known}
        level = sessions.bit_length()
        if level in known:
            return known[level]
        guesses = [leg.scaled(sessions / (2**other - 1)) if other > level else leg for other, leg in known.items()]
        return max(guesses, key=lambda leg: leg.seconds(1)[1])
