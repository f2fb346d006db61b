"""Structured logs: one JSON object a line, written by Ray Serve's own handlers.

Serve gives each record the request's id (the `x-request-id` header, in and out), deployment, application, replica and
node; what is ours is that our loggers reach Serve's handlers, and a line for each request that tells what it took.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import Literal

from ray.serve.schema import LoggingConfig
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.settings import Settings
from common.types import SpeculationStats
from serve.http.choices import Choice, prompt_tokens
from serve.http.request_id import REQUEST_ID

CLIENT_LEFT = 499
"""Status told of a request whose client did not wait for the answer (nginx's)."""

logger = logging.getLogger(__name__)


class LogSettings(Settings, frozen=True, kw_only=True):
    """What the deployments log, in Ray's folder `logs/serve` of each node."""

    encoding: Literal["JSON", "TEXT"] = "JSON"
    """One JSON object a line, or plain text."""
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least severe that is written."""


def serve_logging(settings: LogSettings) -> LoggingConfig:
    """For Serve's `logging_config`.

    Serve's own line for each call is off: every lease is a call, and for requests `AccessLog` says more.
    """
    return LoggingConfig(
        encoding=settings.encoding,
        log_level=settings.level,
        enable_access_log=False,
        additional_log_standard_attrs=["name"],
    )


def use_serve_handlers() -> None:
    """Have our modules' loggers written by the handlers of this Serve replica, at its level. Call it in the replica."""
    for package in ("common", "serve"):
        # As a parent, not as copied handlers: Serve replaces its handlers when its configuration changes.
        logging.getLogger(package).parent = logging.getLogger("ray.serve")


class AccessLog:
    """ASGI middleware: a line for each HTTP request, once its answer has been sent.

    Endpoints that have texts written leave them in `request.state.choices`.
    """

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = time.perf_counter) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        exchange = _Exchange(receive, send)
        state = scope.setdefault("state", {})
        began = self._clock()
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            status = 500 if isinstance(sys.exception(), Exception) else exchange.status
            _log(scope, state.get("choices", ()), status, self._clock() - began)


class _Exchange:
    """The two ends of a request, and what becomes of it."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._answered = self._left = False
        self.status = CLIENT_LEFT

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._answered:
            self._left, self.status = True, CLIENT_LEFT
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._left:
            self.status = message["status"]
        await self._send(message)
        self._answered = message["type"] == "http.response.body" and not message.get("more_body", False)


def _log(scope: Scope, choices: Sequence[Choice], status: int, duration_s: float) -> None:
    fields = {
        "method": scope["method"],
        "path": scope["path"],
        "status": status,
        "duration_s": round(duration_s, 6),
        **(_about(choices) if choices else {}),
    }
    line = " ".join(f"{name}={value!r}" for name, value in fields.items())
    logger.info(line, extra={**fields, "request_id": REQUEST_ID.get("")})


def _about(choices: Sequence[Choice]) -> dict[str, str | int | float | None]:
    """Sums over the choices, each prompt counted once."""
    stats = sum((choice.stats for choice in choices), SpeculationStats())
    return {
        "language": choices[0].request.language,
        "drafter": next((choice.drafter for choice in choices if choice.drafter is not None), None),
        "finish_reason": ",".join(sorted({choice.finish_reason or "none" for choice in choices})),
        "prompt_tokens": prompt_tokens(choices),
        "completion_tokens": sum(choice.output_tokens for choice in choices),
        "rounds": stats.rounds,
        "mean_acceptance_length": round(stats.mean_acceptance_length, 3),
    }
