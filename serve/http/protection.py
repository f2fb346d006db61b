"""What stands between the network and the HTTP surface.

    SecurityHeaders ──▶ RequestIds ──▶ KeyGate ──▶ BodyLimit ──▶ application
      on every answer    400            401, 429    413

Plain ASGI: nothing here reads a body or holds a stream back.
"""

from __future__ import annotations

import time
from pathlib import Path

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.settings import Settings, SettingsError
from serve.errors import INVALID, ServiceError
from serve.http.error_responses import error_body
from serve.http.keys import ApiKey, check_distinct, find_key, read_keys
from serve.http.limits import Clock, Limits, Places, Quota, Share
from serve.http.request_id import RequestIds

OPEN_PATHS = frozenset({"/healthz"})
"""Answered without a key: load balancers ask."""

SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class ProtectionSettings(Settings, frozen=True, kw_only=True):
    """Who may ask, and for how much. Limits hold at each router replica."""

    keys: tuple[ApiKey, ...] = ()
    """Without any key, here or in `keys_file`, the server is open."""
    keys_file: str | None = None
    """YAML with more `keys`; read by every router replica when it starts, so it must be on their machines."""
    limits: Limits = Limits()
    """Of each key that has none of its own; of all callers together when the server is open."""
    max_body_bytes: int = 4 * 2**20
    """A larger request is refused unread."""

    def __post_init__(self) -> None:
        if self.max_body_bytes < 1:
            raise ValueError(f"max_body_bytes must be at least 1, not {self.max_body_bytes}")
        check_distinct(self.keys)

    def all_keys(self) -> tuple[ApiKey, ...]:
        """Those of the configuration and of the file. Raises SettingsError naming the file and the line or field."""
        if self.keys_file is None:
            return self.keys
        keys = (*self.keys, *read_keys(Path(self.keys_file)))
        try:
            check_distinct(keys)
        except ValueError as error:
            raise SettingsError(f"{self.keys_file}: {error}") from None
        return keys


class Unauthorized(ServiceError):
    """No key, or none of ours."""

    status = 401
    kind = INVALID
    code = "invalid_api_key"

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": "Bearer"}


def protect(
    app: ASGIApp,
    settings: ProtectionSettings,
    clock: Clock = time.monotonic,
    *,
    max_texts: int | None = None,
    send_ids: bool = True,
) -> ASGIApp:
    """`app` behind keys, limits and security headers; it must answer HTTPException itself, as FastAPI does.

    Args:
        max_texts: in progress at the same time, of all callers together.
        send_ids: see `RequestIds`.

    Raises SettingsError if the keys cannot be read.
    """
    limited = BodyLimit(app, settings.max_body_bytes)
    places = Places(max_texts, "texts at this server")
    gate = KeyGate(limited, settings.all_keys(), settings.limits, places, clock)
    return SecurityHeaders(RequestIds(gate, send=send_ids))


class SecurityHeaders:
    """Sets `SECURITY_HEADERS` on every answer, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        await self._app(scope, receive, sending)


class KeyGate:
    """Lets a request in if its key is known and within its limits, and counts it until its answer has ended.

    Args:
        keys: without any, everyone is let in, within `limits`.
        limits: of each key without its own.
        places: for the texts of all.
    """

    def __init__(self, app: ASGIApp, keys: tuple[ApiKey, ...], limits: Limits, places: Places, clock: Clock) -> None:
        self._app = app
        self._keys = keys
        self._places = places
        self._everyone = Quota(limits, clock)
        self._quotas = {key.name: Quota(key.limits or limits, clock) for key in keys}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            return await self._app(scope, receive, send)
        try:
            share = Share(self._quota(Headers(scope=scope)), self._places)
            share.begin()
        except ServiceError as error:
            response = JSONResponse(error_body(error), error.status, headers=error.headers)
            return await response(scope, receive, send)
        try:
            scope.setdefault("state", {})["share"] = share
            await self._app(scope, receive, send)
        finally:
            share.end()

    def _quota(self, headers: Headers) -> Quota:
        """Raises Unauthorized."""
        if not self._keys:
            return self._everyone
        scheme, _, presented = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("no API key: send it in the header Authorization: Bearer KEY")
        key = find_key(self._keys, presented.strip())
        if key is None:
            raise Unauthorized("the API key is not known here")
        return self._quotas[key.name]


class BodyLimit:
    """Ends a request whose body is too long with 413, before reading what is too much of it.

    Starlette's own middleware answers some of these in plain text, and none naming the limit.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        declared, received = _declared_length(scope), 0

        async def receiving() -> Message:
            nonlocal received
            if declared <= self._max_bytes:
                message = await receive()
                received += len(message.get("body", b""))
                if received <= self._max_bytes:
                    return message
            # What FastAPI passes on from reading a body; any other error would become a 400.
            raise HTTPException(413, f"the body is longer than {self._max_bytes} bytes")

        await self._app(scope, receiving, send)


def _declared_length(scope: Scope) -> int:
    """Only a first hint: what is wrong or missing there is found while reading."""
    try:
        return int(Headers(scope=scope).get("content-length", "0"))
    except ValueError:
        return 0
