"""Whether a drafter saves time: the same prompts decoded with it and plainly, in turns, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from common.engine.decoding import Decoder
from common.types import GenerationRequest
from train.recipe import EvaluateSettings


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """At one temperature, over all prompts."""

    temperature: float
    plain_tokens_per_second: float
    speculative_tokens_per_second: float

    @property
    def speedup(self) -> float:
        return self.speculative_tokens_per_second / self.plain_tokens_per_second


def measure_speed(
    plain: Decoder,
    speculative: Decoder,
    requests: Sequence[GenerationRequest],
    settings: EvaluateSettings,
    clock: Callable[[], float] = time.perf_counter,
) -> Speed:
    """Decode `requests`, all of one temperature, both ways: a few at a time, so that what else the machine does
    meets both, and each way first as often as the other."""
    at_once = settings.speed_concurrency
    arms = {"plain": plain, "speculative": speculative}
    tokens, seconds = dict.fromkeys(arms, 0), dict.fromkeys(arms, 0.0)
    for decoder in arms.values():
        decoder.generate(requests[:at_once])  # the first pass allocates; it is not counted
    for number, first in enumerate(range(0, len(requests), at_once)):
        for name in sorted(arms, reverse=bool(number % 2)):
            started = clock()
            texts = arms[name].generate(requests[first : first + at_once])
            seconds[name] += clock() - started
            tokens[name] += sum(len(text.output) for text in texts)
    rates = {f"{name}_tokens_per_second": tokens[name] / max(seconds[name], 1e-9) for name in arms}
    return Speed(temperature=requests[0].sampling.temperature, **rates)
