"""The id of a request: the client's `x-request-id`, else a new one. Sent back, and there for logs."""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import InvalidRequest
from serve.http.error_responses import error_body

HEADER = "x-request-id"

REQUEST_ID: ContextVar[str] = ContextVar("REQUEST_ID")
"""The id of the request that is being answered; set in every task that works on it."""

_USABLE = re.compile(r"[\x20-\x7e]{1,128}")


class RequestIds:
    """Gives every request its id. Goes around whatever answers, so that every answer has it and every log line.

    An id that cannot be written to logs and headers as it is (1 to 128 printable ASCII characters) is refused.

    Args:
        app: the ASGI application.
        send: whether to send the id back. Ray Serve's proxy does so itself.
    """

    def __init__(self, app: ASGIApp, *, send: bool = True) -> None:
        self._app = app
        self._send = send

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        asked = Headers(scope=scope).get(HEADER)
        refused = asked is not None and _USABLE.fullmatch(asked) is None
        request_id = str(uuid.uuid4()) if asked is None or refused else asked
        REQUEST_ID.set(request_id)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        answer = _refusal() if refused else self._app
        await answer(scope, receive, send_with_id if self._send else send)


def _refusal() -> JSONResponse:
    error = InvalidRequest(f"{HEADER}: expected 1 to 128 printable ASCII characters", HEADER)
    return JSONResponse(error_body(error), error.status)
