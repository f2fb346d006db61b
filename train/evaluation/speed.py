"""Whether a drafter saves time: the same prompts decoded with it and plainly, in turns, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from common.engine.decoding import Decoder
from common.types import GenerationRequest
from train.evaluation.intervals import Interval
from train.evaluation.paired import Timed, speed_ratio
from train.recipe import EvaluateSettings


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """At one temperature."""

    temperature: float
    blocks: list[tuple[Timed, Timed]]
    """The same prompts, decoded with the drafter and plainly."""

    @property
    def speedup(self) -> Interval:
        """Of decoding with the drafter over plain decoding, all blocks together."""
        return speed_ratio(self.blocks)


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
    ways = {"plain": plain, "speculative": speculative}
    for decoder in ways.values():
        decoder.generate(requests[:at_once])  # the first pass allocates; it is not counted
    blocks: list[tuple[Timed, Timed]] = []
    for first in range(0, len(requests), at_once):
        block = requests[first : first + at_once]
        taken = {name: _timed(ways[name], block, clock) for name in sorted(ways, reverse=bool(len(blocks) % 2))}
        blocks.append((taken["speculative"], taken["plain"]))
    return Speed(temperature=requests[0].sampling.temperature, blocks=blocks)


def _timed(decoder: Decoder, requests: Sequence[GenerationRequest], clock: Callable[[], float]) -> Timed:
    started = clock()
    texts = decoder.generate(requests)
    return Timed(tokens=sum(len(text.output) for text in texts), seconds=max(clock() - started, 1e-9))
