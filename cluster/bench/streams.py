"""Texts written through a router for some time, and what came of them, round by round."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from typing import NamedTuple

import msgspec

from cluster.bench.emulated import LONGEST, Emulated
from common.types import GenerationRequest, Progress, SpeculationStats, Timings
from serve.router import Service

ENDING_S = 0.1
"""Leases are given up in the background, after the text has ended."""


class Measured(msgspec.Struct, kw_only=True):
    """What some streams wrote from some moment on."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    """Of the router's process, all threads."""
    rounds: int = 0
    drafted: int = 0
    tokens: int = 0
    expected_tokens: float = 0.0
    """What the drafts of these rounds were worth on average."""
    timings: Timings = Timings()

    @property
    def tokens_per_s(self) -> float:
        return self.expected_tokens / self.seconds

    def round_s(self, streams: int) -> float:
        """Of one of so many streams."""
        return streams * self.seconds / self.rounds

    @property
    def luck(self) -> float:
        """Tokens really written, as a share of those expected."""
        return self.tokens / self.expected_tokens


class Tally:
    """Counts the rounds of all streams."""

    def __init__(self, emulated: Emulated) -> None:
        self._expected = [emulated.expected_tokens(drafted) for drafted in range(LONGEST + 1)]
        self.begin()

    def begin(self) -> None:
        """Forget what was counted."""
        self._counted = Measured()
        self._began_s, self._cpu_began_s = time.perf_counter(), time.process_time()

    def add(self, progress: Progress, before: Progress) -> None:
        counted, drafted = self._counted, progress.stats.drafted_tokens - before.stats.drafted_tokens
        counted.rounds += 1
        counted.drafted += drafted
        counted.tokens += len(progress.tokens)
        counted.expected_tokens += self._expected[drafted]
        counted.timings += progress.timings - before.timings

    def end(self) -> Measured:
        self._counted.seconds = time.perf_counter() - self._began_s
        self._counted.cpu_s = time.process_time() - self._cpu_began_s
        return self._counted


class Stream(NamedTuple):
    """Texts that are written one after another."""

    requests: Iterable[GenerationRequest]
    tally: Tally
    """Of its rounds, and perhaps of other streams'."""


async def measure(
    router: Service, streams: Sequence[Stream], *, seconds: float, warm_up_s: float
) -> dict[Tally, Measured]:
    """Write all streams at the same time, for so long. Raises what a text fails of."""
    tallies = dict.fromkeys(stream.tally for stream in streams)
    writing = [asyncio.create_task(_write(router, stream)) for stream in streams]
    try:
        for stretch_s in (warm_up_s, seconds):
            for tally in tallies:
                tally.begin()
            ended, _ = await asyncio.wait(writing, timeout=stretch_s, return_when=asyncio.FIRST_COMPLETED)
            for stream in ended:
                stream.result()
        return {tally: tally.end() for tally in tallies}
    finally:
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)
        await asyncio.sleep(ENDING_S)


async def _write(router: Service, stream: Stream) -> None:
    for request in stream.requests:
        before = Progress(tokens=(), stats=SpeculationStats())
        async with aclosing(router.generate(request)) as rounds:
            async for progress in rounds:
                stream.tally.add(progress, before)
                before = progress
