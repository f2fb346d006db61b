"""A simulated router, drafter and verifier with stated costs, in simulated time.

The verifier waits for the texts that it has just answered as the engine does, then steps over whatever is pending;
drafting takes its time beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from common.types import StepCost
from serve.drafting.draft_length import DraftLengthController, TextDraftLength
from serve.drafting.round import Round
from serve.drafting.settings import SpeculationSettings
from serve.stream.gathering import Gathering

MAX_LENGTH = 8


@dataclass(frozen=True)
class World:
    """What is given. The default is a 7B model on a GPU with a good drafter."""

    step_s: Callable[[int], float] = lambda tokens: 25e-3
    """A verifier's step, by its tokens."""
    draft_s: float = 1.5e-3
    """Per drafted token."""
    overhead_s: float = 0.15e-3
    """Of each leg."""
    acceptance: float = 0.8
    """Per position, given that all before it were accepted."""
    french_acceptance: float = 0.0
    """The same of texts in French, which have a drafter of their own."""
    run_ahead: bool = False
    """Whether the drafter drafts on during a verification, after each token that it guesses may follow."""
    runner_up: float = 0.5
    """How often its second guess is right where the first is wrong."""
    noise: float = 0.02
    """Relative standard deviation of a step's time."""
    hiccups: float = 0.0
    """Share of the steps that take a second more."""
    prompts_per_s: float = 0.0
    """Prompts of 512 tokens that are prefilled in the steps of the texts."""

    def accepts(self, drafter: str) -> float:
        return self.french_acceptance if drafter == "fr" else self.acceptance

    def expected_tokens(self, drafted: int, drafter: str = "de") -> float:
        """Output tokens of a round."""
        return sum(self.accepts(drafter) ** k for k in range(drafted + 1))

    def throughput(self, n: int) -> float:
        """Tokens per second of one text that always has n tokens drafted, by the stated numbers."""
        draft_s = n * self.draft_s + self.overhead_s if n else 0.0
        return self.expected_tokens(n) / (draft_s + self.step_s(1 + n) + self.overhead_s)

    @property
    def best(self) -> int:
        return max(range(MAX_LENGTH + 1), key=self.throughput)


@dataclass
class Run:
    """What came of some rounds."""

    tokens: float = 0.0
    """Expected output tokens of the drafts that were made: their luck is no merit of the controller's."""
    seconds: float = 0.0
    lengths: list[int] = field(default_factory=list)
    french_lengths: list[int] = field(default_factory=list)
    """Those of the texts in French, of which `lengths` has all."""

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    def mean_length(self, last: int) -> float:
        return sum(self.lengths[-last:]) / last

    @property
    def changes(self) -> int:
        """How often a round's length differs from the one before."""
        return sum(a != b for a, b in zip(self.lengths, self.lengths[1:], strict=False))


@dataclass
class _Text:
    length: TextDraftLength
    drafter: str
    drafted: int = 0
    ahead: int = 0
    """So many tokens are drafted ahead for whatever may be asked next."""
    at_hand: int = 0
    """So many are drafted when asked for."""
    asked_s: float = 0.0
    """When its verification was asked for."""
    ended_s: float = 0.0
    """When its latest round ended, or it began."""
    promise: float | None = None
    """Of its latest draft length."""


class Simulation:
    """One router's controller, kept while the world around it changes."""

    def __init__(
        self,
        world: World,
        settings: SpeculationSettings | None = None,
        *,
        texts: int = 1,
        french: int = 0,
        seed: int = 0,
    ) -> None:
        self.world = world
        self.controller = DraftLengthController(settings or SpeculationSettings())
        self._random = Random(seed)
        self._now_s = self._prompted_s = 0.0
        self._gathering = Gathering(lambda: self._now_s)
        self.begin(texts, french)

    def begin(self, texts: int, french: int = 0) -> None:
        """So many new texts in German and in French in place of the present ones."""
        self._texts = [
            _Text(self.controller.text(), drafter, ended_s=self._now_s) for drafter in ["de"] * texts + ["fr"] * french
        ]
        for text in self._texts:
            self._draft(text)
            text.asked_s += self._random.uniform(0.0, 0.05)  # texts do not begin in step

    def change(self, **changes: object) -> None:
        self.world = replace(self.world, **changes)  # type: ignore[arg-type]

    def run(self, rounds: int) -> Run:
        """So many rounds a text, on average."""
        result, start_s = Run(), self._now_s
        while len(result.lengths) < rounds * len(self._texts):
            self._step(result)
        result.seconds = self._now_s - start_s
        return result

    def _step(self, result: Run) -> None:
        pending = self._gather()
        prompted = self._random.random() < self.world.prompts_per_s * (self._now_s - self._prompted_s)
        self._prompted_s = self._now_s
        tokens = sum(1 + text.drafted for text in pending) + 512 * prompted
        seconds = self.world.step_s(tokens) * max(0.5, self._random.gauss(1.0, self.world.noise))
        cost = StepCost(seconds + (self._random.random() < self.world.hiccups), tokens)
        self._now_s += cost.seconds
        self._gathering.answered(map(id, pending), cost.seconds)
        for text in pending:
            result.lengths.append(text.drafted)
            if text.drafter == "fr":
                result.french_lengths.append(text.drafted)
            result.tokens += self.world.expected_tokens(text.drafted, text.drafter)
            verified = self._verified(text, cost)
            self._draft(text)
            text.length.observe(text.drafter, verified, len(self._texts))  # while the next draft is being made

    def _gather(self) -> list[_Text]:
        """The texts of the next step, at the time when it begins."""
        pending: list[_Text] = []
        for text in sorted(self._texts, key=lambda text: text.asked_s):
            if pending and text.asked_s > self._now_s + self._gathering.patience():
                break
            self._now_s = max(self._now_s, text.asked_s)
            self._gathering.came(id(text), text.asked_s)
            pending.append(text)
        else:
            return pending
        self._now_s += self._gathering.patience()
        return pending

    def _verified(self, text: _Text, cost: StepCost) -> Round:
        world, drafted = self.world, text.drafted
        acceptance = world.accepts(text.drafter)
        accepted = next((k for k in range(drafted) if self._random.random() >= acceptance), drafted)
        at_hand = min(text.at_hand, drafted)
        draft_s = (drafted - at_hand) * world.draft_s
        text.at_hand = self._drafted_ahead(text, all_accepted=accepted == drafted) if drafted else 0
        seconds, text.ended_s = self._now_s - text.ended_s, self._now_s
        return Round(
            drafted=drafted,
            accepted=accepted,
            ahead=at_hand,
            draft_cost=StepCost(draft_s, drafted - at_hand),
            draft_wall_s=draft_s + world.overhead_s if drafted else 0.0,
            verify_cost=cost,
            verify_wall_s=self._now_s - text.asked_s + world.overhead_s,
            seconds=seconds,
            promise=text.promise,
        )

    def _drafted_ahead(self, text: _Text, *, all_accepted: bool) -> int:
        """Tokens that follow the one that was drawn after the accepted ones, if it was guessed."""
        world = self.world
        if not world.run_ahead:
            return 0
        is_own = all_accepted and self._random.random() < world.acceptance
        if not is_own and self._random.random() >= world.runner_up:
            return 0
        steps = int((self._now_s - text.asked_s) / world.draft_s)
        return max(0, min(text.ahead, steps - all_accepted))

    def _draft(self, text: _Text) -> None:
        """The draft is asked for once the verdict is here, the verification once the draft is here."""
        world = self.world
        wanted, text.ahead, text.promise = text.length.choose(text.drafter, len(self._texts), MAX_LENGTH)
        text.drafted = max(wanted, min(text.at_hand, text.ahead)) if wanted else 0
        drafting = text.drafted - min(text.at_hand, text.drafted)
        draft_s = drafting * world.draft_s + world.overhead_s if text.drafted else 0.0
        text.asked_s = self._now_s + world.overhead_s + draft_s


def fixed(world: World, n: int, *, texts: int, rounds: int = 100) -> float:
    """Tokens per second if all texts always have n tokens drafted."""
    simulation = Simulation(world, SpeculationSettings(draft_length=n), texts=texts)
    simulation.run(20)  # until they go in step
    return simulation.run(rounds).tokens_per_s
