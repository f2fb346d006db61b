"""The rounds of the texts at a verifier replica once everything has settled: how much is drafted, how long they take.

    draft length    for which `serve.drafting.outlook` promises most, of the legs of `serve.drafting.costs`
    a text is away  coordination of both legs and n draft steps, from one of the verifier's steps to the next
    a step begins   when all those are back that are worth waiting for, by the rule of `serve.stream.gathering`

Each depends on the others: how long a step takes on how much is drafted, that on how long texts wait. So they are
reckoned in turns until nothing changes any more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import accumulate
from operator import mul

import msgspec

from cluster.capacity.costs import Coordination, DrafterCosts, StepCosts
from cluster.capacity.meeting import mean, meeting
from serve.drafting.costs import draft_leg, verify_leg
from serve.drafting.outlook import RoundCosts, best_length, outlook
from serve.drafting.settings import SpeculationSettings

TURNS = 64
"""More than it takes; if it never settles, as when two lengths are equally good, what the last one says is as good."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """The texts of one language at a verifier replica."""

    texts: float
    prompt_tokens: float
    output_tokens: float
    drafter: DrafterCosts | None = None
    drafter_replicas: int = 1
    """All that there are; all verifier replicas share them."""

    def rounds(self, tokens: float, prefill_chunk: int) -> float:
        """Of a text that has `tokens` in each on average: of the last round half is too much, and all parts of a prompt
        but the last, which is run with the first draft, take a step of their own."""
        parts = math.ceil(self.prompt_tokens / prefill_chunk)
        return (self.output_tokens + (tokens - 1.0) / 2) / tokens + parts - 1


class Rounds(msgspec.Struct, frozen=True, kw_only=True):
    """Of one language's texts, on average."""

    drafted: int
    tokens: float
    """Output tokens of a round."""
    seconds: float
    draft_s: float
    """Of these until the draft is there."""
    number: float
    """Of a text."""

    @property
    def text_s(self) -> float:
        """From the beginning of a text to its end."""
        return self.number * self.seconds


def missed_steps(texts: float) -> float:
    """Of a drafter: where several texts ask one after another, the first begin a step for whose end the last wait."""
    return min(1.0, max(0.0, texts - 1.0))


class Verifier(msgspec.Struct, frozen=True, kw_only=True):
    """One of several equal verifier replicas, and what its rounds are made of."""

    steps: StepCosts
    coordination: Coordination
    speculation: SpeculationSettings
    replicas: int = 1
    prefill_chunk: int = 512

    def rounds(self, groups: Mapping[str, Group]) -> dict[str, Rounds]:
        """Of each group while all of them are here."""
        texts = sum(group.texts for group in groups.values())
        seconds = self.coordination.verify.seconds(texts) + self.steps.seconds(texts)
        found = {name: self._of_length(group, 0, 0.0, seconds) for name, group in groups.items()}
        queueing = 0.0
        for _ in range(TURNS):
            drafted = {name: self._draft(group, found[name], texts, queueing) for name, group in groups.items()}
            before, (found, queueing) = found, self._meet(groups, drafted)
            if found == before:
                break
        return found

    def _draft(self, group: Group, before: Rounds, texts: float, queueing: float) -> Rounds:
        """As much as the controller chooses when rounds have been as `before`; still as long as those."""
        drafter, settings = group.drafter, self.speculation
        if drafter is None:
            return self._of_length(group, 0, 0.0, before.seconds)
        longest = settings.max_draft_length
        token_s = self._token_s(group, drafter, before)
        overhead_s = self.coordination.draft.seconds(group.texts) + missed_steps(group.texts) * token_s
        drafting = draft_leg(overhead_s, token_s, longest)
        steps_s = [self.steps.seconds(texts * tokens) for tokens in range(1, longest + 2)]
        verifying = verify_leg(steps_s, self.coordination.verify.seconds(texts), queueing)
        costs = RoundCosts.of(drafting, verifying, overhead_s, share=0.0, sessions=max(1, round(texts)))
        values = outlook(drafter.rates(longest), costs).values
        best = best_length(values, min_gain=settings.min_gain)
        length = best if settings.draft_length is None else settings.draft_length
        return self._of_length(group, length, drafting[length], before.seconds)

    def _of_length(self, group: Group, drafted: int, draft_s: float, seconds: float) -> Rounds:
        rates = group.drafter.rates(drafted) if group.drafter is not None else []
        tokens = sum(accumulate(rates, mul), start=1.0)
        number = group.rounds(tokens, self.prefill_chunk)
        return Rounds(drafted=drafted, tokens=tokens, seconds=seconds, draft_s=draft_s, number=number)

    def _token_s(self, group: Group, drafter: DrafterCosts, before: Rounds) -> float:
        """A step of the drafter: with the texts that this verifier has there, and those of others that meet them."""
        others = (self.replicas - 1) * min(1.0, before.draft_s / before.seconds)
        texts = max(1.0, group.texts * (1.0 + others) / group.drafter_replicas)
        prompts = group.prompt_tokens / before.number / max(1, before.drafted)
        return drafter.seconds(texts * (1.0 + prompts))

    def _meet(self, groups: Mapping[str, Group], drafted: Mapping[str, Rounds]) -> tuple[dict[str, Rounds], float]:
        """The rounds, and how long a text waits for its step to begin, in steps."""
        texts = [group.texts for group in groups.values()]
        verifying_s = self.coordination.verify.seconds(sum(texts))
        away = [verifying_s + one.draft_s for one in drafted.values()]
        run = [
            group.texts * (1 + drafted[name].drafted + group.prompt_tokens / drafted[name].number)
            for name, group in groups.items()
        ]
        seconds, step_s = meeting(away, texts, run, self.steps)
        waited_s = mean([s - step_s - a for s, a in zip(seconds, away, strict=True)], texts)
        found = {
            name: msgspec.structs.replace(one, seconds=taken)
            for (name, one), taken in zip(drafted.items(), seconds, strict=True)
        }
        return found, max(0.0, waited_s) / step_s
