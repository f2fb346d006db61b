"""How much of a drafter's drafts its target accepts, by real speculative decoding of held-out prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import msgspec

from common.engine.decoding import Decoder
from common.types import GenerationRequest, SamplingParams, SpeculationStats, TokenIds
from train.recipe import EvaluateSettings


class Acceptance(msgspec.Struct, frozen=True, kw_only=True):
    """At one temperature, over all prompts."""

    temperature: float
    draft_length: int
    prompts: int
    stats: SpeculationStats
    mean_acceptance_length: float
    """Output tokens per verification, token-weighted."""
    acceptance_rate: float
    """Of all drafted tokens."""
    accepted_per_position: list[float]
    """Of the first, second … tokens of all drafts that were so long, the share that was accepted."""


def measure_acceptance(
    decoder: Decoder,
    prompts: Sequence[TokenIds],
    settings: EvaluateSettings,
    stop_token_ids: frozenset[int],
    on_finish: Callable[[], object] = lambda: None,
) -> list[Acceptance]:
    """Decode every prompt at every temperature; `on_finish` is called once a text."""
    return [
        _at_temperature(decoder, requests_at(temperature, prompts, settings, stop_token_ids), settings, on_finish)
        for temperature in settings.temperatures
    ]


def requests_at(
    temperature: float, prompts: Sequence[TokenIds], settings: EvaluateSettings, stop_token_ids: frozenset[int]
) -> list[GenerationRequest]:
    """One a prompt, each with its own seed."""
    return [
        GenerationRequest(
            prompt=prompt,
            max_tokens=settings.max_tokens,
            sampling=SamplingParams(temperature=temperature, seed=number),
            stop_token_ids=stop_token_ids,
        )
        for number, prompt in enumerate(prompts)
    ]


def _at_temperature(
    decoder: Decoder,
    requests: Sequence[GenerationRequest],
    settings: EvaluateSettings,
    on_finish: Callable[[], object],
) -> Acceptance:
    texts = decoder.generate(requests, on_finish)
    stats = sum((text.stats for text in texts), SpeculationStats())
    return Acceptance(
        temperature=requests[0].sampling.temperature,
        draft_length=settings.draft_length,
        prompts=len(requests),
        stats=stats,
        mean_acceptance_length=stats.mean_acceptance_length,
        acceptance_rate=stats.acceptance_rate,
        accepted_per_position=accepted_per_position(one for text in texts for one in text.rounds),
    )


def accepted_per_position(rounds: Iterable[tuple[int, int]]) -> list[float]:
    """Shares of drafted tokens that were accepted, by their place in the draft.

    Example: drafts of 2, 2 and 1 tokens of which 2, 0 and 1 were accepted give 2/3 and 1/2.
    """
    counts = Counter(rounds)
    longest = max((drafted for drafted, _ in counts), default=0)

    def share(position: int) -> float:
        reached = {one: count for one, count in counts.items() if one[0] > position}
        return sum(count for one, count in reached.items() if one[1] > position) / sum(reached.values())

    return [share(position) for position in range(longest)]
