"""A generation service that writes what it is told, for tests of the HTTP surface."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import tiny_tokenizer

from common.types import GenerationRequest, Progress, SpeculationStats, Timings, TokenLogprob
from serve.http.request_id import REQUEST_ID
from serve.http.text import TextCodec

EOS = 1
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


class FakeService:
    """Answers every request with `answer`, two tokens a round, each round having drafted three and kept one.

    The log-probability of its n-th output token is -n / 10, of the prompt's n-th token -n, told three at a time; tokens
    5, 6, 7 ... are the likeliest, by -1, -2, -3 ...
    A round takes 1 ms of drafting, 2 of verifying and 0.5 on the wire.
    """

    model = "fake"
    context_length = 96
    stop_token_ids = frozenset({EOS})
    languages = ("de", "ja")
    drafters = ("de", "generalist", "ja", "ngram")

    def __init__(self, answer: str = "東京に住んでいます。", *, template: str | None = TEMPLATE) -> None:
        self.codec = TextCodec(tiny_tokenizer.byte_level(vocab_size=270), template)
        self.answer = answer
        self.requests: list[GenerationRequest] = []
        self.identified: list[str] = []
        self.wanted: list[str | None] = []
        """Drafters that were to be looked for."""
        self.language_of: dict[str, str] = {}
        self.generations: list[AsyncIterator[Progress]] = []
        self.is_healthy = True
        self.error: Exception | None = None
        self.error_after = 0
        """Rounds before `error` is raised."""
        self.error_seed: int | None = None
        """If set, the only seed that `error` is raised for."""
        self.forgets_logprobs = False
        self.hold: asyncio.Event | None = None
        """If set, waited for after the first round."""
        self.started = asyncio.Event()
        self.rounds = 0
        self.open = 0
        """Generations that began and did not end."""
        self.idle = threading.Event()
        """Set whenever the last one ends."""
        self.request_ids: list[str | None] = []
        self.closed = asyncio.Event()

    async def refresh(self, wanted: str | None = None) -> None:
        self.wanted.append(wanted)

    def identify(self, text: str) -> str | None:
        self.identified.append(text)
        return self.language_of.get(text, "ja")

    async def healthy(self) -> bool:
        return self.is_healthy

    def generate(self, request: GenerationRequest) -> AsyncIterator[Progress]:
        # Kept, so that nothing but being closed ends a generation: not the garbage collector.
        self.generations.append(self._generate(request))
        return self.generations[-1]

    async def _generate(self, request: GenerationRequest) -> AsyncIterator[Progress]:
        self.requests.append(request)
        self.request_ids.append(REQUEST_ID.get(None))
        self.open += 1
        try:
            async for progress in self._write(request):
                self.rounds += 1
                yield progress
        finally:
            self.open -= 1
            if self.open == 0:
                self.idle.set()
            self.closed.set()

    async def _write(self, request: GenerationRequest) -> AsyncIterator[Progress]:
        for known in range(1, len(request.prompt) if request.prompt_logprobs else 1, 3):
            piece = request.prompt[known : known + 3]
            told = logprobs(request, piece, known, scale=1)
            ends = request.max_tokens == 0 and known + 3 >= len(request.prompt)
            reason = "length" if ends else None
            yield Progress(tokens=(), stats=SpeculationStats(), prompt_logprobs=told, finish_reason=reason)
        tokens = self._output(request)
        ended = tokens[-1:] and tokens[-1] in request.stop_token_ids
        stats, timings = SpeculationStats(), Timings()
        for start in range(0, len(tokens), 2):
            if self._fails(request, start):
                assert self.error is not None
                raise self.error
            if start and self.hold is not None:
                self.started.set()
                await self.hold.wait()
            piece = tokens[start : start + 2]
            stats += SpeculationStats(rounds=1, drafted_tokens=3, accepted_tokens=1, output_tokens=len(piece))
            timings += Timings(draft_s=0.001, verify_s=0.002, wire_s=0.0005)
            yield Progress(
                tokens=piece,
                logprobs=() if self.forgets_logprobs else logprobs(request, piece, start),
                stats=stats,
                timings=timings,
                drafter="v0001",
                finish_reason=("stop" if ended else "length") if start + 2 >= len(tokens) else None,
            )

    def _output(self, request: GenerationRequest) -> tuple[int, ...]:
        """The answer up to the first stop token; without one the whole of it again and again."""
        answer = (*self.codec.encode(self.answer), EOS)
        tokens = (answer * request.max_tokens)[: request.max_tokens]
        ends = [index for index, token in enumerate(tokens) if token in request.stop_token_ids]
        return tokens[: ends[0] + 1] if ends else tokens

    def _fails(self, request: GenerationRequest, start: int) -> bool:
        meant = self.error_seed in (None, request.sampling.seed)
        return self.error is not None and meant and start >= 2 * self.error_after


def logprobs(
    request: GenerationRequest, tokens: tuple[int, ...], start: int, scale: int = 10
) -> tuple[TokenLogprob, ...]:
    count = request.sampling.logprobs
    if count is None:
        return ()
    top = tuple((5 + index, -1.0 - index) for index in range(count))
    return tuple(TokenLogprob(token, -(start + index) / scale, top) for index, token in enumerate(tokens))
