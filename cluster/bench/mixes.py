"""Mixes of texts: what is stated of their engines, and what the formulas of `cluster.capacity` make of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count, repeat

import msgspec

from cluster.bench.emulated import CONTEXT_LENGTH, WORDS, Emulated
from cluster.capacity.costs import Coordination, DrafterCosts, StepCosts
from cluster.capacity.rounds import Group, Rounds, Verifier, missed_steps
from common.engine.emulation import StepTimes
from common.types import GenerationRequest, SamplingParams
from serve.drafting.settings import SpeculationSettings

TOKENS = 1024
"""Of a step by which the straight line is told."""


class Texts(msgspec.Struct, frozen=True, kw_only=True):
    """All texts in one language."""

    streams: int
    """At all verifiers together, each writing one text after another."""
    acceptance: float = 0.0
    """Per position, given that all before it were accepted."""
    draft: StepTimes = StepTimes(base_s=1.5e-3)
    drafters: int = 1
    """Replicas; with none the texts are decoded plainly."""
    prompt_tokens: int = 64
    output_tokens: int = 256


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    verify: StepTimes
    languages: dict[str, Texts]
    verifiers: int = 1
    draft_length: int | None = None
    """As in `SpeculationSettings`."""

    def emulated(self, language: str) -> Emulated:
        """The engines of its texts."""
        texts = self.languages[language]
        return Emulated(verify=self.verify, draft=texts.draft, acceptance=texts.acceptance)

    def steps_s(self, drafted: int) -> float:
        """Of a round's models: one language, one verifier, and as much drafted for all."""
        [texts] = self.languages.values()
        draft_steps = drafted + missed_steps(texts.streams) if drafted else 0.0
        return self.verify.seconds(texts.streams * (1 + drafted)) + draft_steps * texts.draft.seconds(texts.streams)

    @property
    def speculation(self) -> SpeculationSettings:
        return SpeculationSettings(draft_length=self.draft_length)

    def predicted(self, coordination: Coordination) -> dict[str, Rounds]:
        """By language."""
        verifier = Verifier(
            steps=StepCosts(steps_ms=_line(self.verify)),
            coordination=coordination,
            speculation=self.speculation,
            replicas=self.verifiers,
        )
        return verifier.rounds({language: self._group(texts) for language, texts in self.languages.items()})

    def tokens_per_s(self, language: str, rounds: Rounds) -> float:
        """Of all the language's streams."""
        texts = self.languages[language]
        return texts.streams * texts.output_tokens / rounds.text_s

    def requests(self, language: str) -> list[Iterator[GenerationRequest]]:
        """Of each stream."""
        texts, position = self.languages[language], list(self.languages).index(language)
        names = count(position, len(self.languages))
        return [_requests(language, texts, names, (number + 1) / texts.streams) for number in range(texts.streams)]

    def _group(self, texts: Texts) -> Group:
        drafter = DrafterCosts(steps_ms=_line(texts.draft), acceptance=(texts.acceptance,)) if texts.drafters else None
        return Group(
            texts=texts.streams / self.verifiers,
            prompt_tokens=texts.prompt_tokens,
            output_tokens=texts.output_tokens,
            drafter=drafter,
            drafter_replicas=max(1, texts.drafters),
        )


def _requests(language: str, texts: Texts, names: Iterator[int], first: float) -> Iterator[GenerationRequest]:
    """Endlessly; no two texts begin alike, so that none has a part of another's keys and values.

    Of the first one only a part is written: else all streams would read their prompts at the same time, again and
    again, which no traffic does.
    """
    rest = [position % WORDS for position in range(texts.prompt_tokens - 2)]
    lengths = chain([max(1, round(first * texts.output_tokens))], repeat(texts.output_tokens))
    for name, length in zip(names, lengths, strict=False):
        yield GenerationRequest(
            prompt=(*divmod(name % WORDS**2, WORDS), *rest),
            max_tokens=length,
            sampling=SamplingParams(temperature=0.0),
            language=language,
            # Else another language's drafter would be tried, and found as good as that one's own.
            max_draft_length=None if texts.drafters else 0,
        )


def _line(times: StepTimes) -> tuple[tuple[int, float], ...]:
    return tuple((tokens, 1e3 * times.seconds(tokens)) for tokens in (1, TOKENS))


def _ms(base: float, token: float = 0.0) -> StepTimes:
    return StepTimes(base_s=base / 1e3, token_s=token / 1e3)


def one_language(streams: int, drafted: int) -> Mix:
    """Always so many tokens drafted, and all accepted; texts are longer than any measurement."""
    texts = Texts(streams=streams, acceptance=1.0, prompt_tokens=16, output_tokens=CONTEXT_LENGTH // 2)
    return Mix(verify=_ms(25.0), languages={"de": texts}, draft_length=drafted)


MIXES = {
    "one language": Mix(verify=_ms(30.0, 0.02), languages={"de": Texts(streams=16, acceptance=0.8)}),
    "three languages": Mix(
        verify=_ms(40.0, 0.05),
        languages={
            "de": Texts(streams=8, acceptance=0.85, draft=_ms(2.0)),
            "fr": Texts(streams=8, acceptance=0.6, draft=_ms(3.0)),
            "ja": Texts(streams=4, drafters=0),
        },
    ),
    "slow drafter": Mix(
        verify=_ms(40.0),
        languages={
            "de": Texts(streams=12, acceptance=0.8, draft=_ms(1.0, 0.25)),
            "fr": Texts(streams=4, acceptance=0.8, draft=_ms(1.5)),
        },
    ),
    "never worth it": Mix(verify=_ms(20.0), languages={"de": Texts(streams=12, acceptance=0.25, draft=_ms(6.0))}),
    "two verifiers": Mix(
        verify=_ms(40.0, 0.05),
        verifiers=2,
        languages={
            "de": Texts(streams=16, acceptance=0.8, draft=_ms(2.0)),
            "ru": Texts(streams=8, acceptance=0.6, draft=_ms(2.0)),
        },
    ),
    "long prompts": Mix(
        verify=_ms(40.0, 0.05),
        languages={"zh": Texts(streams=12, acceptance=0.75, draft=_ms(2.0, 0.005), prompt_tokens=1024)},
    ),
}
"""In one a drafter holds up everybody, in one drafts do not pay, in one prompts take a good part of the time."""
