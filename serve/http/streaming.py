"""Server-sent events, and work that ends when its client goes away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from serve.http.error_responses import error_body

logger = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"

T = TypeVar("T")


def event(data: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run `work` to its end, or cancel it as soon as the client disconnects; the task is done either way.

    The request's body must have been read: whatever else comes from `receive` is a disconnection.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        task.cancel()
        await asyncio.wait({task, gone})
    return task


class EventStream(StreamingResponse):
    """Sends `events`; closes them whatever happens: the client goes away, sending fails, they raise.

    An error before the first event is raised, so that it still is a status. A later one cannot be: it is sent as the
    last event, in OpenAI's shape.
    """

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        self._events = events
        self._began = False
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = await while_connected(receive, self.stream_response(_raising_disconnect(send)))
        error = None if task.cancelled() else task.exception()
        if error is None or isinstance(error, ClientDisconnect):
            return
        if not self._began:
            raise error
        logger.error("a stream ended with an error", exc_info=error)
        await send({"type": "http.response.body", "body": event(error_body(error)), "more_body": False})

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._events):
            first = await anext(self._events)
            self._began = True
            self.body_iterator = _chain(first, self._events)
            await super().stream_response(send)


async def _chain(first: bytes, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for data in events:
        yield data


def _raising_disconnect(send: Send) -> Send:
    """Tells a client that is gone from an error of the events."""

    async def sending(message: Message) -> None:
        try:
            await send(message)
        except OSError as error:
            raise ClientDisconnect from error

    return sending


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
