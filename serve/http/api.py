"""The OpenAI-compatible HTTP surface: checks a request, has its texts written, and tells what comes back.

POST /v1/completions, /v1/chat/completions    also with `stream: true`
GET  /v1/models, /v1/models/{model}, /healthz
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from serve.capture.capture import Capture
from serve.errors import InvalidRequest, ModelNotFound, ServiceUnavailable
from serve.http.answer_formats import AnswerFormat, ChatFormat, CompletionFormat
from serve.http.answers import Answer
from serve.http.choices import Choice, Piece
from serve.http.error_responses import ERROR_RESPONSES, install_error_handlers
from serve.http.generation_requests import Body, Preparation
from serve.http.interleaving import interleaved
from serve.http.limits import share_of
from serve.http.openai import ChatCompletionRequest, CompletionRequest, StreamOptions
from serve.http.service import GenerationService
from serve.http.streaming import DONE, EventStream, event, while_connected


def build_api(service: GenerationService, capture: Capture | None = None) -> FastAPI:
    """The application in front of `service`; `capture` is offered every prompt. `RequestIds` belongs around it."""
    app = FastAPI(
        title="polydraft",
        summary="Speculative decoding with a drafter for every language.",
        responses=ERROR_RESPONSES,
    )
    install_error_handlers(app)
    endpoints = _Endpoints(service, capture)
    app.post("/v1/completions")(endpoints.completions)
    app.post("/v1/chat/completions")(endpoints.chat_completions)
    app.get("/v1/models")(endpoints.models)
    app.get("/v1/models/{model:path}")(endpoints.model)
    app.get("/healthz")(endpoints.health)
    return app


class _Endpoints:
    def __init__(self, service: GenerationService, capture: Capture | None) -> None:
        self._service = service
        self._capture = capture
        self._preparation = Preparation(service)
        self._completion_format = CompletionFormat(service.codec)
        self._chat_format = ChatFormat(service.codec)

    async def completions(self, body: CompletionRequest, request: Request) -> Response:
        allowed = await self._admit(body, request)
        choices = await asyncio.to_thread(self._preparation.completion, body, allowed)
        return await self._answer(self._completion_format, body, choices, request)

    async def chat_completions(self, body: ChatCompletionRequest, request: Request) -> Response:
        allowed = await self._admit(body, request)
        choices = await asyncio.to_thread(self._preparation.chat, body, allowed)
        return await self._answer(self._chat_format, body, choices, request)

    async def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [await self._card()]}

    async def model(self, model: str) -> dict[str, Any]:
        self._check_model(model)
        return await self._card()

    async def health(self) -> dict[str, str]:
        if not await self._service.healthy():
            raise ServiceUnavailable("not ready to answer")
        return {"status": "ok"}

    async def _admit(self, body: Body, request: Request) -> int | None:
        """Before the prompts are read, which is work. The most output tokens that may be asked for."""
        self._check_model(body.model)
        if body.store and self._capture is None:
            raise InvalidRequest("store: nothing is kept here: only false is accepted", "store")
        share = share_of(request)
        share.charge(body.texts)
        await self._service.refresh(body.speculation.drafter)
        return share.allowed_tokens

    async def _answer(self, form: AnswerFormat, body: Body, choices: list[Choice], request: Request) -> Response:
        request.state.choices = choices  # for the access log
        if self._capture is not None:
            self._capture.offer(body, choices)
        answer = Answer(form, body.model, choices, body.stream_options or StreamOptions())
        pieces = interleaved([choice.write(self._service.generate) for choice in choices])
        if body.stream:
            return EventStream(_events(pieces, answer))
        return await _whole(pieces, answer, request)

    def _check_model(self, model: str) -> None:
        if model != self._service.model:
            raise ModelNotFound(f"no model `{model}` here, only `{self._service.model}`", "model")

    async def _card(self) -> dict[str, Any]:
        await self._service.refresh()
        return {
            "id": self._service.model,
            "object": "model",
            "created": 0,
            "owned_by": "polydraft",
            "context_length": self._service.context_length,
            "languages": sorted(self._service.languages),
        }


async def _whole(pieces: AsyncGenerator[Piece, None], answer: Answer, request: Request) -> Response:
    async def collect() -> list[Piece]:
        async with aclosing(pieces):
            return [piece async for piece in pieces]

    task = await while_connected(request.receive, collect())
    return Response() if task.cancelled() else JSONResponse(answer.whole(task.result()))


async def _events(pieces: AsyncGenerator[Piece, None], answer: Answer) -> AsyncGenerator[bytes, None]:
    async with aclosing(pieces):
        async for piece in pieces:
            for chunk in answer.chunks(piece):
                yield event(chunk)
    for chunk in answer.last_chunks():
        yield event(chunk)
    yield DONE
