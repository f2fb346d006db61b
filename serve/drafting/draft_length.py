"""How many tokens to draft next: as many as bring the most tokens per second (design §6).

    value(n) = (1 + sum over k <= n of P(first k accepted)) / (draft leg(n) + verify leg(n))

P comes from `acceptance_rates`, per drafter and per text; the legs from `costs` and `drafter_costs`; what changes
when drafts are at hand is in `outlook`. The verify leg is that of a step in which all texts have n tokens checked:
whoever drafts more makes everybody's step longer, and what is best for all is what all should choose, n = 0, plain
decoding, among them. So the texts of a drafter agree on a length (`agreement`), and each then takes what is best for it
while the others keep to that one. What no leg shows, `trial` finds out: while it holds drafting back, n is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import msgspec

from common.types import StepCost
from serve.drafting.acceptance_rates import AcceptanceRates
from serve.drafting.agreement import Agreement
from serve.drafting.costs import VerifierCosts
from serve.drafting.drafter_costs import DrafterCosts
from serve.drafting.exploration import Exploration
from serve.drafting.outlook import DraftLength, Outlook, RoundCosts, among_others, best_length, outlook
from serve.drafting.settings import SpeculationSettings
from serve.drafting.trial import DraftingTrial

DRAFTER_WINDOW, DRAFTER_PRIOR = 256, 4.0
"""Drafts that a drafter's rates remember; what the initial acceptance counts for."""
TEXT_WINDOW, TEXT_PRIOR = 32, 4.0
"""Drafts that a text's rates remember; what its drafter's rates count for: little, as texts differ."""

PATIENCE = 0.25
"""How long a text's first draft is waited for, in rounds of plain decoding: verified with the prompt, it saves one."""

KEPT = 4
"""Rounds for which a text among many keeps to a length, unless what it depends on changes."""

SCOUTS = 1 / 16
"""Share of the texts that have a drafter at hand although drafting does not pay: it may have become better."""


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


class KnownDrafter:
    """What is known about one drafter from all its texts."""

    def __init__(self, settings: SpeculationSettings, verifier: VerifierCosts) -> None:
        self._settings = settings
        self._verifier = verifier
        self._observed = AcceptanceRates(DRAFTER_WINDOW)
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

    def look_ahead(self, sessions: int) -> None:
        """Bring `rates` and `costs` up to date, once for each step that the `sessions` texts share."""
        self._costs.note_choice(sessions)
        self._news += 1
        if self._news < self._sessions == sessions:
            return
        self._sessions, self._news = sessions, 0
        # Lengths grow into the unknown one position at a time.
        longest = min(
            max(self._observed.seen + 1, self._settings.default_draft_length), self._settings.max_draft_length
        )
        self.rates = self._observed.chained(self._settings.initial_acceptance, DRAFTER_PRIOR, longest)
        leg = self._costs.leg(sessions)
        self.costs = RoundCosts.of(
            leg.seconds(longest),
            self._verifier.seconds(sessions, longest),
            leg.overhead_s,
            share=leg.at_hand,
            sessions=sessions,
        )


class Reckoning(NamedTuple):
    """What a text made of all this."""

    length: int
    """The best."""
    values: list[float]
    """Tokens per second, for each length."""
    seconds: list[float]
    """Of a round, for at least as many."""
    ahead: int
    """See `Outlook`."""
    gain: float
    """How many times as fast as plain decoding all texts of the drafter should be."""
    sessions: int
    """Texts in progress then."""
    round: int
    """Of the text."""


class DraftLengthController:
    """What all texts of a router know together; each chooses by its own `TextDraftLength`."""

    def __init__(self, settings: SpeculationSettings) -> None:
        self.settings = settings
        self.verifier = VerifierCosts()
        self.trial = DraftingTrial(settings.doubt)
        self._drafters: dict[str, KnownDrafter] = {}
        self._random = Random(0)

    def text(self) -> TextDraftLength:
        """For one more text."""
        return TextDraftLength(self, scout=self._random.random() < SCOUTS)

    def drafter(self, name: str) -> KnownDrafter:
        if name not in self._drafters:
            self._drafters[name] = KnownDrafter(self.settings, self.verifier)
        return self._drafters[name]


class TextDraftLength:
    """Chooses for one text, whichever drafters it has in the course of time. Made by `DraftLengthController.text`."""

    def __init__(self, controller: DraftLengthController, *, scout: bool) -> None:
        self._scout = scout
        self._controller = controller
        self._settings = controller.settings
        self._rates: dict[str, AcceptanceRates] = {}
        self._reckonings: dict[str, Reckoning] = {}
        """The latest by drafter."""
        self._rounds = 0

    def pays(self, drafter: str, sessions: int) -> bool:
        """Whether to have `drafter` at hand: its drafts pay at present, or this text is one that finds out."""
        if self._settings.draft_length is not None:
            return self._settings.draft_length > 0
        if not self._controller.trial.drafting:
            return False
        shared = self._controller.drafter(drafter)
        if self._scout or not shared.known:
            return True
        shared.look_ahead(sessions)
        return shared.agreement.hear(self._outlook(drafter, shared).values, sessions) > 0

    def patience_s(self, sessions: int) -> float:
        """Seconds worth waiting for the first draft."""
        verifier = self._controller.verifier
        return PATIENCE * verifier.seconds(sessions, 0)[0] if verifier.known else 0.0

    def choose(self, drafter: str, sessions: int, limit: int) -> DraftLength:
        """How many tokens `drafter` is to draft, at most `limit`, while `sessions` >= 1 texts are in progress."""
        if self._settings.draft_length is not None:
            return DraftLength.of(min(self._settings.draft_length, limit), 0, sessions)
        shared, trial = self._controller.drafter(drafter), self._controller.trial
        if not shared.known:
            # Where it may be tried, that is what its rounds are for; held back, it promises nothing.
            if not trial.drafting:
                return DraftLength(0, 0, promise=1.0)
            return DraftLength.of(min(self._settings.default_draft_length, limit), 0, sessions)
        shared.look_ahead(sessions)
        reckoning = self._reckonings.get(drafter)
        if reckoning is None or self._outdated(reckoning, sessions, limit):
            present = reckoning.length if reckoning is not None else 0
            reckoning = self._reckonings[drafter] = self._reckon(drafter, shared, present, sessions, limit)
        if not trial.drafting:
            return DraftLength(0, 0, reckoning.gain)
        wanted = shared.exploration.vary(reckoning.length, reckoning.values, reckoning.seconds, sessions)
        return DraftLength.of(wanted, min(reckoning.ahead, limit), sessions, reckoning.gain)

    def observe(self, drafter: str, outcome: Round, sessions: int) -> None:
        """Learn from a round of `drafter`, or of nobody if nothing was drafted, with `sessions` texts in progress.

        The first round of a text, and a drafter's first draft for it if it came, waited for the prompt: no measure.
        """
        if outcome.drafted or outcome.draft_wall_s:
            self._observe_draft(drafter, outcome, sessions)
        if self._rounds:
            self._observe_time(outcome, sessions)
        self._rounds += 1

    def _observe_draft(self, drafter: str, outcome: Round, sessions: int) -> None:
        late = not outcome.drafted
        self._controller.drafter(drafter).observe(outcome, sessions, costs=late or drafter in self._rates)
        if not late:
            self._rates.setdefault(drafter, AcceptanceRates(TEXT_WINDOW)).observe(outcome.drafted, outcome.accepted)

    def _observe_time(self, outcome: Round, sessions: int) -> None:
        controller = self._controller
        if min(outcome.verify_cost.seconds, outcome.verify_cost.tokens) > 0:
            controller.verifier.add(sessions, outcome.drafted, outcome.verify_cost, outcome.verify_wall_s)
        if outcome.promise is not None:
            controller.trial.observe(sessions, outcome.accepted + 1, outcome.seconds, outcome.promise)

    def _outdated(self, reckoning: Reckoning, sessions: int, limit: int) -> bool:
        """Of many texts in step each reckons anew only now and then: it makes all of them wait."""
        changed = reckoning.sessions != sessions or limit < len(reckoning.values) - 1
        return changed or self._rounds - reckoning.round >= min(sessions, KEPT)

    def _reckon(self, drafter: str, shared: KnownDrafter, present: int, sessions: int, limit: int) -> Reckoning:
        alone = self._outlook(drafter, shared)
        common = shared.agreement.hear(alone.values, sessions)
        values, seconds, ahead = among_others(alone, shared.costs, common)
        values = values[: limit + 1]
        length = self._best(present, values, agreed=common > 0)
        return Reckoning(length, values, seconds, ahead, shared.agreement.gain, sessions, self._rounds)

    def _outlook(self, drafter: str, shared: KnownDrafter) -> Outlook:
        text = self._rates.get(drafter)
        rates = text.given(shared.rates, TEXT_PRIOR) if text is not None else shared.rates
        return outlook(rates, shared.costs)

    def _best(self, present: int, values: Sequence[float], *, agreed: bool) -> int:
        """Where drafting was `agreed` on, `min_gain` has been seen to."""
        min_gain = 0.0 if agreed else self._settings.min_gain
        return best_length(values, present=present, hysteresis=self._settings.hysteresis, min_gain=min_gain)
