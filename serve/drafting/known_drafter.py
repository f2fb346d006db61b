"""What all texts of one drafter know of it: how much of its drafts is accepted, and what they cost."""

from __future__ import annotations

from serve.drafting.acceptance_rates import AcceptanceRates
from serve.drafting.agreement import Agreement
from serve.drafting.costs import VerifierCosts
from serve.drafting.drafter_costs import DrafterCosts
from serve.drafting.exploration import Exploration
from serve.drafting.outlook import RoundCosts
from serve.drafting.round import Round
from serve.drafting.settings import SpeculationSettings

WINDOW, PRIOR = 256, 4.0
"""Drafts that its rates remember; what the initial acceptance counts for."""


class KnownDrafter:
    """What is known about one drafter from all its texts."""

    def __init__(self, settings: SpeculationSettings, verifier: VerifierCosts) -> None:
        self._settings = settings
        self._verifier = verifier
        self._observed = AcceptanceRates(WINDOW)
        self._costs = DrafterCosts()
        self._sessions = 0
        self._news = 0
        self.exploration = Exploration(settings.exploration)
        self.agreement = Agreement(settings.hysteresis, settings.min_gain)
        self.rates: list[float] = []
        """Per position, as many as may be drafted."""
        self.costs = RoundCosts([], [], share=0.0, sessions=1)

    @property
    def known(self) -> bool:
        return self._costs.known and self._verifier.known

    def observe(self, outcome: Round, sessions: int, *, costs: bool) -> None:
        """Learn from a round in which it was asked; from what that took only if it is a measure of its costs."""
        self._observed.observe(outcome.drafted, outcome.accepted)
        if costs:
            self._costs.add(sessions, outcome.drafted, outcome.ahead, outcome.draft_cost, outcome.draft_wall_s)

    def note_choice(self, sessions: int) -> None:
        """See `DrafterCosts.note_choice`."""
        self._costs.note_choice(sessions)

    def look_ahead(self, sessions: int) -> None:
        """Bring `rates` and `costs` up to date, once for each step that the `sessions` texts share."""
        self._news += 1
        if self._news < self._sessions == sessions:
            return
        self._sessions, self._news = sessions, 0
        # Lengths grow into the unknown one position at a time.
        longest = min(
            max(self._observed.seen + 1, self._settings.default_draft_length), self._settings.max_draft_length
        )
        self.rates = self._observed.chained(self._settings.initial_acceptance, PRIOR, longest)
        leg = self._costs.leg(sessions)
        self.costs = RoundCosts.of(
            leg.seconds(longest),
            self._verifier.seconds(sessions, longest),
            leg.overhead_s,
            share=leg.at_hand,
            sessions=sessions,
        )
