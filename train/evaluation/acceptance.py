"""How much of a drafter's drafts its target accepts, by real speculative decoding of held-out prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    stats = SpeculationStats()
    for generation in decoder.generate(requests, on_finish):
        stats += generation.stats
    return Acceptance(
        temperature=requests[0].sampling.temperature,
        draft_length=settings.draft_length,
        prompts=len(requests),
        stats=stats,
        mean_acceptance_length=stats.mean_acceptance_length,
        acceptance_rate=stats.acceptance_rate,
    )
