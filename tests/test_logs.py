from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import tiny_tokenizer
from fake_service import FakeService
from fastapi import FastAPI, Request
from httpx import ASGITransport, AsyncClient
from ray._common.formatters import JSONFormatter
from starlette.types import Message

from common.settings import SettingsError, convert
from common.types import GenerationRequest, Progress, SamplingParams, SpeculationStats
from serve.http.api import build_api
from serve.http.choices import Choice
from serve.http.protection import SECURITY_HEADERS, ProtectionSettings, protect
from serve.http.request_id import RequestIds
from serve.http.text import TextCodec
from serve.telemetry.logs import AccessLog, LogSettings, serve_logging, use_serve_handlers

REQUEST = GenerationRequest(prompt=(5, 6, 7), max_tokens=9, sampling=SamplingParams(), language="de")


@pytest.fixture
def serve_log() -> Iterator[io.StringIO]:
    """What a Serve replica's handler would write: the formatter is Serve's own for `encoding="JSON"`."""
    out = io.StringIO()
    handler, ray_logger = logging.StreamHandler(out), logging.getLogger("ray.serve")
    formatter = JSONFormatter()
    formatter.set_additional_log_standard_attrs(serve_logging(LogSettings()).additional_log_standard_attrs)
    handler.setFormatter(formatter)
    before = [(logging.getLogger(name), logging.getLogger(name).parent) for name in ("common", "serve")]
    level = ray_logger.level
    ray_logger.addHandler(handler)
    ray_logger.setLevel("INFO")
    use_serve_handlers()
    yield out
    ray_logger.removeHandler(handler)
    ray_logger.setLevel(level)
    for child, parent in before:
        child.parent = parent


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


async def written_choice() -> Choice:
    """Two rounds of three drafted tokens, of which two and none were accepted."""

    async def generate(request: GenerationRequest):  # type: ignore[no-untyped-def]
        stats = SpeculationStats(rounds=1, drafted_tokens=3, accepted_tokens=2, output_tokens=3)
        yield Progress(tokens=(40, 41, 42), stats=stats, drafter="de/v1")
        stats += SpeculationStats(rounds=1, drafted_tokens=3, output_tokens=1)
        yield Progress(tokens=(43,), stats=stats, drafter="de/v1", finish_reason="length")

    codec = TextCodec(tiny_tokenizer.byte_level(vocab_size=270), None)
    choice = Choice(0, REQUEST, codec.detokenizer(()))
    async for _ in choice.write(generate):
        pass
    return choice


def application() -> AsyncClient:
    app = FastAPI()

    @app.post("/v1/completions")
    async def complete(request: Request) -> str:
        request.state.choices = [await written_choice(), await written_choice()]
        return "done"

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("ours")

    wrapped = RequestIds(AccessLog(app))
    return AsyncClient(transport=ASGITransport(wrapped, raise_app_exceptions=False), base_url="http://test")


async def test_a_request_is_one_line_that_tells_what_it_took(serve_log: io.StringIO) -> None:
    async with application() as client:
        await client.post("/v1/completions", headers={"x-request-id": "abc"})
    [line] = lines(serve_log)
    wanted = {
        "levelname": "INFO",
        "name": "serve.telemetry.logs",
        "request_id": "abc",
        "method": "POST",
        "path": "/v1/completions",
        "status": 200,
        "language": "de",
        "drafter": "de/v1",
        "finish_reason": "length",
        "prompt_tokens": 3,
        "completion_tokens": 8,
        "rounds": 4,
        "mean_acceptance_length": 2.0,
    }
    assert wanted.items() <= line.items()
    assert 0 <= line["duration_s"] < 60


async def test_every_prompt_of_a_request_is_counted_once(serve_log: io.StringIO) -> None:
    service = FakeService()
    app = AccessLog(protect(build_api(service), ProtectionSettings()))
    body = {"model": "fake", "prompt": [[5, 6, 7], [5, 6]], "n": 2}
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        assert (await client.post("/v1/completions", json=body)).status_code == 200
    assert lines(serve_log)[-1]["prompt_tokens"] == 5


async def test_a_refused_id_is_logged_and_answered_like_every_other_request(serve_log: io.StringIO) -> None:
    app = AccessLog(protect(build_api(FakeService()), ProtectionSettings()))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        refused = await client.get("/v1/models", headers={b"x-request-id": b"a\tb"})
        await client.get("/v1/models", headers={"x-request-id": "mine"})
    assert refused.status_code == 400
    assert {name: refused.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
    first, second = lines(serve_log)
    assert (first["status"], first["request_id"]) == (400, refused.headers["x-request-id"])
    assert (second["status"], second["request_id"]) == (200, "mine")


async def test_a_request_without_texts_is_a_line_too(serve_log: io.StringIO) -> None:
    async with application() as client:
        await client.get("/nowhere")
    [line] = lines(serve_log)
    assert line["status"] == 404
    assert "rounds" not in line


async def test_an_error_of_ours_is_a_500(serve_log: io.StringIO) -> None:
    async with application() as client:
        await client.get("/broken")
    assert lines(serve_log)[-1]["status"] == 500


async def test_a_path_cannot_forge_a_line(serve_log: io.StringIO) -> None:
    async with application() as client:
        await client.get("/a%0AINFO%20forged")
    [line] = lines(serve_log)
    assert line["path"] == "/a\nINFO forged"
    assert "\n" not in line["message"]


@pytest.mark.parametrize("leaves_after_answer", [True, False])
async def test_a_client_that_left_before_the_end_is_a_499(serve_log: io.StringIO, leaves_after_answer: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": not leaves_after_answer})
        await receive()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None: ...

    await AccessLog(app)({"type": "http", "method": "GET", "path": "/"}, receive, send)
    assert lines(serve_log)[-1]["status"] == (200 if leaves_after_answer else 499)


async def test_a_request_that_was_cancelled_is_a_499(serve_log: io.StringIO) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await AccessLog(app)({"type": "http", "method": "GET", "path": "/"}, None, None)  # type: ignore[arg-type]
    assert lines(serve_log)[-1]["status"] == 499


def test_our_modules_errors_reach_serves_log_with_their_traceback(serve_log: io.StringIO) -> None:
    try:
        raise ValueError("bad")
    except ValueError:
        logging.getLogger("serve.some_module").exception("it failed", extra={"session": 3})
    logging.getLogger("common.some_module").debug("below the level")
    [line] = lines(serve_log)
    assert (line["message"], line["name"], line["session"]) == ("it failed", "serve.some_module", 3)
    assert "ValueError: bad" in line["exc_text"]


def test_settings_become_serves() -> None:
    config = serve_logging(LogSettings(encoding="TEXT", level="DEBUG"))
    assert (config.encoding, config.log_level, config.enable_access_log) == ("TEXT", "DEBUG", False)
    with pytest.raises(SettingsError, match="level"):
        convert({"level": "LOUD"}, LogSettings, where="logs")
