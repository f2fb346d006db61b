"""How many tokens to draft next: as many as bring the most tokens per second (design §6).

    value(n) = (1 + sum over k <= n of P(first k accepted)) / (draft leg(n) + verify leg(n))

P comes from `acceptance_rates`, per drafter and per text; the legs from `costs`. The verify leg is that of a step in
which all texts have n tokens checked: whoever drafts more makes everybody's step longer, and what is best for all is
what all should choose. n = 0, plain decoding, is one of the choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import msgspec

from common.settings import Settings
from common.types import StepCost
from serve.acceptance_rates import AcceptanceRates
from serve.costs import DrafterCosts, VerifierCosts

DRAFTER_WINDOW, DRAFTER_PRIOR = 256, 2.0
"""Drafts that a drafter's rates remember; what the initial acceptance counts for."""
TEXT_WINDOW, TEXT_PRIOR = 32, 4.0
"""Drafts that a text's rates remember; what its drafter's rates count for: little, as texts differ."""
MAX_EXPLORATION = 1 / 16
"""At most this share of the rounds explores, however cheap it is."""


class SpeculationSettings(Settings, frozen=True, kw_only=True):
    """How many tokens are drafted a round. Raises ValueError, naming the field, when a value is out of range."""

    draft_length: int | None = None
    """Always so many, 0 for plain decoding; None chooses by what pays."""
    default_draft_length: int = 4
    """So many until the costs of a round are known."""
    max_draft_length: int = 8
    initial_acceptance: float = 0.7
    """Acceptance per position that a new drafter is credited with."""
    exploration: float = 0.005
    """Share of the time given to trying one token more, and as much again to trying none."""
    hysteresis: float = 0.01
    """A length is left only for one that is better by this fraction."""

    def __post_init__(self) -> None:
        if not 1 <= self.max_draft_length <= 64:
            raise ValueError(f"max_draft_length must be between 1 and 64, not {self.max_draft_length}")
        for name in ("default_draft_length", "draft_length"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= self.max_draft_length:
                raise ValueError(f"{name} must be between 0 and max_draft_length, not {value}")
        if not 0.0 <= self.initial_acceptance <= 1.0:
            raise ValueError(f"initial_acceptance must be between 0 and 1, not {self.initial_acceptance}")
        for name in ("exploration", "hysteresis"):
            if not 0.0 <= getattr(self, name) <= 0.2:
                raise ValueError(f"{name} must be between 0 and 0.2, not {getattr(self, name)}")


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one draft."""

    drafted: int
    """Tokens verified, 0 in plain decoding."""
    accepted: int
    draft_cost: StepCost = StepCost()
    """As the drafter reports it; zero if drafting needs no model."""
    draft_wall_s: float = 0.0
    """From asking for the draft to having it."""
    verify_cost: StepCost
    """As the verifier reports it; zero tokens if it reports none."""
    verify_wall_s: float
    """From asking for the verdict to having it."""


class Exploration:
    """Now and then all texts of a drafter draft otherwise than what seems best, for about one step.

    The best of the longer drafts finds out about later positions, and whether a drafter that was switched off is good
    again; none at all keeps the cost of plain decoding known. All texts do it together, because the cost of a step is
    learned from steps of that size, and at random, because in a fixed rhythm it might always meet the same text.
    """

    def __init__(self, share: float, seed: int = 0) -> None:
        self._share = share
        self._random = Random(seed)
        self._remaining = 0
        self._plain = False

    def vary(self, length: int, values: Sequence[float], sessions: int) -> int:
        """`length`, or what to try instead; `values` are those of all lengths that may be chosen."""
        if not self._remaining and self._share:
            self._begin(length, values, sessions)
        if not self._remaining:
            return length
        self._remaining -= 1
        return 0 if self._plain else _longer(length, values)

    def _begin(self, length: int, values: Sequence[float], sessions: int) -> None:
        """With a chance such that this many texts lose about the share of their time that is given to it."""
        chance = self._random.random() * sessions
        for plain, other in ((False, _longer(length, values)), (True, 0)):
            if other != length:
                loss = 1.0 - values[other] / values[length]
                chance -= self._share / max(loss, self._share / MAX_EXPLORATION)
                if chance < 0.0:
                    self._plain, self._remaining = plain, sessions
                    return


def _longer(length: int, values: Sequence[float]) -> int:
    """The best of the lengths above, itself if there is none."""
    return max(range(length + 1, len(values)), key=values.__getitem__, default=length)


class _Drafter:
    """What is known about one drafter from all its texts."""

    def __init__(self, settings: SpeculationSettings, verifier: VerifierCosts) -> None:
        self._settings = settings
        self._verifier = verifier
        self._observed = AcceptanceRates(DRAFTER_WINDOW)
        self._costs = DrafterCosts()
        self._sessions = 0
        self._news = 0
        self.exploration = Exploration(settings.exploration)
        self.rates: list[float] = []
        """Per position, as many as may be drafted."""
        self.seconds: list[float] = []
        """Of a round, per length from 0."""

    @property
    def known(self) -> bool:
        return self._costs.known and self._verifier.known

    def observe(self, round: Round, *, costs: bool) -> None:
        self._observed.observe(round.drafted, round.accepted)
        if costs:
            self._costs.add(round.drafted, round.draft_cost, round.draft_wall_s)

    def look_ahead(self, sessions: int) -> None:
        """Bring `rates` and `seconds` up to date, once for each step that the `sessions` texts share."""
        self._news += 1
        if self._news < self._sessions == sessions:
            return
        self._sessions, self._news = sessions, 0
        # Lengths grow into the unknown one position at a time.
        longest = min(
            max(self._observed.seen + 1, self._settings.default_draft_length), self._settings.max_draft_length
        )
        self.rates = self._observed.chained(self._settings.initial_acceptance, DRAFTER_PRIOR, longest)
        drafting, verifying = self._costs.seconds(longest), self._verifier.seconds(sessions, longest)
        self.seconds = [draft + verify for draft, verify in zip(drafting, verifying, strict=True)]


class DraftLengthController:
    """What all texts of a router know together; each chooses by its own `TextDraftLength`."""

    def __init__(self, settings: SpeculationSettings) -> None:
        self.settings = settings
        self.verifier = VerifierCosts()
        self._drafters: dict[str, _Drafter] = {}

    def text(self) -> TextDraftLength:
        """For one more text."""
        return TextDraftLength(self)

    def drafter(self, name: str) -> _Drafter:
        if name not in self._drafters:
            self._drafters[name] = _Drafter(self.settings, self.verifier)
        return self._drafters[name]


class TextDraftLength:
    """Chooses for one text, whichever drafters it has in the course of time. Made by `DraftLengthController.text`."""

    def __init__(self, controller: DraftLengthController) -> None:
        self._controller = controller
        self._settings = controller.settings
        self._rates: dict[str, AcceptanceRates] = {}
        self._length = controller.settings.default_draft_length
        self._sessions = 1
        self._rounds = 0

    def choose(self, drafter: str, sessions: int, limit: int) -> int:
        """How many tokens `drafter` is to draft, at most `limit`, while `sessions` >= 1 texts are in progress."""
        self._sessions = sessions
        if self._settings.draft_length is not None:
            return min(self._settings.draft_length, limit)
        known = self._controller.drafter(drafter)
        if not known.known:
            return min(self._settings.default_draft_length, limit)
        known.look_ahead(sessions)
        values = self._values(drafter, known, limit)
        kept, highest = min(self._length, len(values) - 1), max(values)
        improves = highest > values[kept] * (1.0 + self._settings.hysteresis)
        self._length = values.index(highest) if improves else kept
        return known.exploration.vary(self._length, values, sessions)

    def observe(self, drafter: str, round: Round) -> None:
        """Learn from a round. The first of a text, and a drafter's first for it, waited for the prompt: no measure."""
        if round.drafted:
            costs = drafter in self._rates
            if not costs:
                self._rates[drafter] = AcceptanceRates(TEXT_WINDOW)
            self._rates[drafter].observe(round.drafted, round.accepted)
            self._controller.drafter(drafter).observe(round, costs=costs)
        if self._rounds and round.verify_cost.tokens:
            self._controller.verifier.add(self._sessions, round.drafted, round.verify_cost, round.verify_wall_s)
        self._rounds += 1

    def _values(self, drafter: str, known: _Drafter, limit: int) -> list[float]:
        """Tokens per second for n = 0 ... the longest draft that is allowed."""
        text = self._rates.get(drafter)
        rates = text.given(known.rates, TEXT_PRIOR) if text is not None else known.rates
        tokens = reached = 1.0
        values = [1.0 / known.seconds[0]]
        for rate, seconds in zip(rates[:limit], known.seconds[1:], strict=False):
            reached *= rate
            tokens += reached
            values.append(tokens / seconds)
        return values
