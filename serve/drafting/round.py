"""A round, as the draft-length controller learns from it."""

from __future__ import annotations

import msgspec

from common.types import StepCost


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one draft."""

    drafted: int
    """Tokens verified, 0 in plain decoding."""
    accepted: int
    ahead: int = 0
    """How many of the tokens were drafted before they were asked for."""
    draft_cost: StepCost = StepCost()
    """As the drafter reports it; zero if drafting needs no model."""
    draft_wall_s: float = 0.0
    """From asking for the draft to having it, or to giving it up; zero if none was asked for."""
    verify_cost: StepCost
    """As the verifier reports it; zero if it reports none."""
    verify_wall_s: float
    """From asking for the verdict to having it."""
    seconds: float
    """Since the text's round before, or since it began."""
    promise: float | None = None
    """See `DraftLength`."""
