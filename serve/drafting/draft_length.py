"""How many tokens to draft next: as many as bring the most tokens per second (design §6).

    value(n) = (1 + sum over k <= n of P(first k accepted)) / (draft leg(n) + verify leg(n))

P comes from `acceptance_rates`, per drafter and per text; the legs from `costs` and `drafter_costs`; what changes
when drafts are at hand is in `outlook`. The verify leg is that of a step in which all texts have n tokens checked:
whoever drafts more makes everybody's step longer, and what is best for all is what all should choose, n = 0, plain
decoding, among them. So the texts of a drafter agree on a length (`agreement`), and each then takes what is best for it
while the others keep to that one. What no leg shows, `trial` finds out: while it holds drafting back, n is 0.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from serve.drafting.acceptance_rates import AcceptanceRates
from serve.drafting.costs import VerifierCosts
from serve.drafting.known_drafter import KnownDrafter
from serve.drafting.outlook import DraftLength, Outlook, among_others, best_length, outlook
from serve.drafting.round import Round
from serve.drafting.settings import SpeculationSettings
from serve.drafting.trial import DraftingTrial

TEXT_WINDOW, TEXT_PRIOR = 32, 4.0
"""Drafts that a text's rates remember; what its drafter's rates count for: little, as texts differ."""

PATIENCE = 0.25
"""How long a text's first draft is waited for, in rounds of plain decoding: verified with the prompt, it saves one."""

KEPT, NEAR = 4, 1 / 8
"""Rounds for which a text among many keeps to a length, and by which share the load may change meanwhile: to reckon
is a router's work too."""

SCOUTS = 1 / 16
"""Share of the texts that have a drafter at hand although drafting does not pay: it may have become better."""


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
        self._asked: dict[str, int] = {}
        """Drafters that a length was chosen for since a round was learned from, and the texts in progress then."""
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
        shared.note_choice(sessions)
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
        shared.note_choice(sessions)
        self._asked[drafter] = sessions
        reckoning = self._reckonings.get(drafter)
        if reckoning is None or self._outdated(reckoning, sessions):
            shared.look_ahead(sessions)
            reckoning = self._reckon(drafter, sessions)
        if not trial.drafting:
            return DraftLength(0, 0, reckoning.gain)
        length, values = reckoning.length, reckoning.values[: limit + 1]
        if length > limit:
            length = best_length(values, min_gain=0.0)
        wanted = shared.exploration.vary(length, values, reckoning.seconds, sessions)
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
        self._reckon_anew()

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

    def _reckon_anew(self) -> None:
        """For the next choice, which all texts of a step wait for; here nobody does."""
        for drafter, sessions in self._asked.items():
            self._controller.drafter(drafter).look_ahead(sessions)
            if self._rounds - self._reckonings[drafter].round >= min(sessions, KEPT):
                self._reckon(drafter, sessions)
        self._asked.clear()

    def _outdated(self, reckoning: Reckoning, sessions: int) -> bool:
        """Whether it cannot wait: the load is another one, or the drafter was not asked for long."""
        moved = abs(sessions - reckoning.sessions) > NEAR * reckoning.sessions
        return moved or self._rounds - reckoning.round > KEPT

    def _reckon(self, drafter: str, sessions: int) -> Reckoning:
        shared = self._controller.drafter(drafter)
        present = self._reckonings[drafter].length if drafter in self._reckonings else 0
        alone = self._outlook(drafter, shared)
        common = shared.agreement.hear(alone.values, sessions)
        values, seconds, ahead = among_others(alone, shared.costs, common)
        # Where drafting was agreed on, that it gains enough has been seen to.
        min_gain = 0.0 if common else self._settings.min_gain
        length = best_length(values, present=present, hysteresis=self._settings.hysteresis, min_gain=min_gain)
        reckoning = Reckoning(length, values, seconds, ahead, shared.agreement.gain, sessions, self._rounds)
        self._reckonings[drafter] = reckoning
        return reckoning

    def _outlook(self, drafter: str, shared: KnownDrafter) -> Outlook:
        text = self._rates.get(drafter)
        rates = text.given(shared.rates, TEXT_PRIOR) if text is not None else shared.rates
        return outlook(rates, shared.costs)
