"""A generation service that writes what it is told, for tests of the HTTP surface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import tiny_tokenizer

from common.types import GenerationRequest, Progress, SpeculationStats
from serve.text import TextCodec

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


class FakeService:
    """Answers every request with `answer`, two tokens a round, each round having drafted three and kept one."""

    model = "fake"
    context_length = 96
    stop_token_ids = frozenset({1})
    languages = ("de", "ja")

    def __init__(self, answer: str = "東京に住んでいます。", *, template: str | None = TEMPLATE) -> None:
        self.codec = TextCodec(tiny_tokenizer.byte_level(vocab_size=270), template)
        self.answer = answer
        self.requests: list[GenerationRequest] = []
        self.identified: list[str] = []
        self.generations: list[AsyncIterator[Progress]] = []
        self.is_healthy = True
        self.error: Exception | None = None
        self.error_after = 0
        """Rounds before `error` is raised."""
        self.hold: asyncio.Event | None = None
        """If set, waited for after the first round."""
        self.started = asyncio.Event()
        self.rounds = 0
        self.closed = asyncio.Event()

    def identify(self, text: str) -> str | None:
        self.identified.append(text)
        return "ja"

    async def healthy(self) -> bool:
        return self.is_healthy

    def generate(self, request: GenerationRequest) -> AsyncIterator[Progress]:
        # Kept, so that nothing but being closed ends a generation: not the garbage collector.
        self.generations.append(self._generate(request))
        return self.generations[-1]

    async def _generate(self, request: GenerationRequest) -> AsyncIterator[Progress]:
        self.requests.append(request)
        try:
            async for progress in self._write(request):
                self.rounds += 1
                yield progress
        finally:
            self.closed.set()

    async def _write(self, request: GenerationRequest) -> AsyncIterator[Progress]:
        tokens = (*self.codec.encode(self.answer), 1)
        reason = "stop" if len(tokens) <= request.max_tokens else "length"
        tokens = tokens[: request.max_tokens]
        stats = SpeculationStats()
        for start in range(0, len(tokens), 2):
            if self.error is not None and start >= 2 * self.error_after:
                raise self.error
            if start and self.hold is not None:
                self.started.set()
                await self.hold.wait()
            piece = tokens[start : start + 2]
            stats += SpeculationStats(rounds=1, drafted_tokens=3, accepted_tokens=1, output_tokens=len(piece))
            last = start + 2 >= len(tokens)
            yield Progress(tokens=piece, stats=stats, drafter="v0001", finish_reason=reason if last else None)
