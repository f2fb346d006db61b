"""The OpenAI-compatible HTTP surface: checks a request, turns it into tokens, and tells what comes back.

POST /v1/completions, /v1/chat/completions    also with `stream: true`
GET  /v1/models, /v1/models/{model}, /healthz
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import aclosing
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from common.types import GenerationRequest, Progress, SamplingParams, TokenIds
from serve.answers import Answer
from serve.error_responses import install_error_handlers
from serve.errors import ContextLengthExceeded, InvalidRequest, ModelNotFound, ServiceUnavailable
from serve.openai import ChatCompletionRequest, CompletionRequest
from serve.streaming import DONE, EventStream, event, while_connected
from serve.text import TextCodec

DEFAULT_COMPLETION_TOKENS = 16


class GenerationService(Protocol):
    """What the HTTP surface needs from what is behind it."""

    @property
    def model(self) -> str:
        """The name clients ask for."""

    @property
    def context_length(self) -> int: ...

    @property
    def codec(self) -> TextCodec: ...

    @property
    def stop_token_ids(self) -> frozenset[int]: ...

    @property
    def languages(self) -> Collection[str]:
        """Languages that have a drafter now."""

    def identify(self, text: str) -> str | None:
        """The language of a text."""

    def generate(self, request: GenerationRequest) -> AsyncIterator[Progress]:
        """The rounds of one text, as an async generator that is closed when no more is wanted.

        Raises ServiceOverloaded or ServiceUnavailable.
        """

    async def healthy(self) -> bool:
        """Whether a request could be answered now."""


def build_api(service: GenerationService) -> FastAPI:
    """The application in front of `service`."""
    app = FastAPI(title="polydraft", summary="Speculative decoding with a drafter for every language.")
    install_error_handlers(app)
    endpoints = _Endpoints(service)
    app.post("/v1/completions")(endpoints.completions)
    app.post("/v1/chat/completions")(endpoints.chat_completions)
    app.get("/v1/models")(endpoints.models)
    app.get("/v1/models/{model:path}")(endpoints.model)
    app.get("/healthz")(endpoints.health)
    return app


class _Endpoints:
    def __init__(self, service: GenerationService) -> None:
        self._service = service

    async def completions(self, body: CompletionRequest, request: Request) -> Response:
        self._check_model(body.model)
        codec = self._service.codec
        if isinstance(body.prompt, str):
            prompt, text = codec.encode(body.prompt), body.prompt
        else:
            prompt, text = self._checked_ids(body.prompt), codec.decode(body.prompt)
        limit = self._limit(prompt, body.max_tokens, DEFAULT_COMPLETION_TOKENS, field="prompt")
        return await self._answer(body, request, prompt, text, limit)

    async def chat_completions(self, body: ChatCompletionRequest, request: Request) -> Response:
        self._check_model(body.model)
        try:
            prompt = self._service.codec.render([message.for_template for message in body.messages])
        except ValueError as error:
            raise InvalidRequest(str(error), "messages") from None
        limit = self._limit(prompt, body.limit, self._service.context_length, field="messages")
        return await self._answer(body, request, prompt, body.question, limit)

    async def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [self._card()]}

    async def model(self, model: str) -> dict[str, Any]:
        self._check_model(model)
        return self._card()

    async def health(self) -> dict[str, str]:
        if not await self._service.healthy():
            raise ServiceUnavailable("not ready to answer")
        return {"status": "ok"}

    async def _answer(
        self, body: CompletionRequest | ChatCompletionRequest, request: Request, prompt: TokenIds, text: str, limit: int
    ) -> Response:
        language = body.language
        if language is None and body.speculation == "auto":
            language = self._service.identify(text)
        seed = secrets.randbits(32) if body.seed is None else body.seed
        sampling = SamplingParams(temperature=body.temperature, top_k=body.top_k, top_p=body.top_p, seed=seed)
        generation = GenerationRequest(
            prompt=prompt,
            max_tokens=limit,
            sampling=sampling,
            stop_token_ids=self._service.stop_token_ids,
            language=language if body.speculation == "auto" else None,
        )
        chat = isinstance(body, ChatCompletionRequest)
        answer = Answer(chat=chat, model=body.model, prompt_tokens=len(prompt), language=language, seed=seed)
        pieces = self._pieces(generation, body.stop, answer)
        if body.stream:
            return await _streamed(_events(pieces, answer, include_usage=body.include_usage), request)
        return await _whole(pieces, answer, request)

    async def _pieces(
        self, generation: GenerationRequest, stop: tuple[str, ...], answer: Answer
    ) -> AsyncGenerator[str, None]:
        """The text as it comes, `answer` noting the rest; the generation is closed once the text has ended."""
        text = self._service.codec.detokenizer(stop)
        async with aclosing(self._service.generate(generation)) as rounds:  # type: ignore[type-var]
            async for progress in rounds:
                answer.note(progress)
                piece = text.push(progress.tokens)
                answer.output_tokens = text.consumed
                yield piece
                if text.stopped:
                    break
        rest = text.finish()
        if text.stopped:
            answer.finish_reason = "stop"
        yield rest

    def _check_model(self, model: str) -> None:
        if model != self._service.model:
            raise ModelNotFound(f"no model `{model}` here, only `{self._service.model}`", "model")

    def _checked_ids(self, prompt: list[int]) -> TokenIds:
        vocab_size = self._service.codec.vocab_size
        if max(prompt) >= vocab_size:
            raise InvalidRequest(f"prompt: token {max(prompt)} is not among the model's {vocab_size}", "prompt")
        return tuple(prompt)

    def _limit(self, prompt: TokenIds, asked: int | None, default: int, *, field: str) -> int:
        """Most output tokens: what was asked for, or `default` as far as the context reaches."""
        context = self._service.context_length
        room = context - len(prompt)
        if not prompt:
            raise InvalidRequest(f"{field}: holds no tokens", field)
        if room < 1:
            raise ContextLengthExceeded(f"{field}: {len(prompt)} tokens leave no room in a context of {context}", field)
        if asked is not None and asked > room:
            message = f"{len(prompt)} tokens of {field} and {asked} of max_tokens exceed the context of {context}"
            raise ContextLengthExceeded(message, "max_tokens")
        return min(default, room) if asked is None else asked

    def _card(self) -> dict[str, Any]:
        return {
            "id": self._service.model,
            "object": "model",
            "created": 0,
            "owned_by": "polydraft",
            "context_length": self._service.context_length,
            "languages": sorted(self._service.languages),
        }


async def _whole(pieces: AsyncGenerator[str, None], answer: Answer, request: Request) -> Response:
    async def collect() -> str:
        async with aclosing(pieces):
            return "".join([piece async for piece in pieces])

    task = await while_connected(request.receive, collect())
    return Response() if task.cancelled() else JSONResponse(answer.whole(task.result()))


async def _streamed(events: AsyncGenerator[bytes, None], request: Request) -> Response:
    """Waits for the first event, so that an error before it still is a status."""

    async def first() -> bytes:
        return await anext(events)

    task = await while_connected(request.receive, first())
    return Response() if task.cancelled() else EventStream(task.result(), events)


async def _events(
    pieces: AsyncGenerator[str, None], answer: Answer, *, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    async with aclosing(pieces):
        opened = not answer.chat
        async for piece in pieces:
            if not opened:
                opened = True
                yield event(answer.opening())
            if piece:
                yield event(answer.chunk(piece))
    yield event(answer.closing())
    if include_usage:
        yield event(answer.usage_chunk())
    yield DONE
