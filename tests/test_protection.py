"""Keys, limits and headers in front of the HTTP surface: who is refused, how it is told, and what it costs."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import openai
import pytest
from fake_service import FakeService
from protected import OPEN, PROMPT, client, error_of, with_keys

from common.settings import SettingsError, convert
from serve.http.api import build_api
from serve.http.keys import hash_of
from serve.http.limits import Limits
from serve.http.protection import SECURITY_HEADERS, BodyLimit, ProtectionSettings, protect


async def test_a_known_key_is_let_in_and_its_scheme_may_be_written_in_any_case() -> None:
    async with client(with_keys(None, None)) as http:
        for value in ("Bearer key 0", "bearer key 1", "BEARER  key 1 "):
            answer = await http.post("/v1/completions", json=PROMPT, headers={"Authorization": value})
            assert answer.status_code == 200


@pytest.mark.parametrize(
    "value", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Bearer key 00", "Basic key 0", "key 0", "Bearer \xff"]
)
async def test_without_a_known_key_nothing_but_health_is_answered(value: str | None) -> None:
    service = FakeService()
    headers = {} if value is None else {"Authorization": value.encode("latin-1")}
    async with client(with_keys(None), service) as http:
        for request in [("POST", "/v1/completions"), ("GET", "/v1/models"), ("GET", "/openapi.json"), ("GET", "/x")]:
            answer = await http.request(*request, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            error = error_of(answer)
            assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
        assert (await http.get("/healthz", headers=headers)).status_code == 200
    assert service.requests == []


async def test_the_official_client_understands_the_refusals() -> None:
    service = FakeService()
    limits = Limits(requests_per_minute=1)
    async with client(with_keys(limits), service) as http:
        official = openai.AsyncOpenAI(api_key="wrong", base_url="http://test/v1", http_client=http, max_retries=0)
        with pytest.raises(openai.AuthenticationError) as refused:
            await official.completions.create(**PROMPT)
        assert refused.value.code == "invalid_api_key"
        official = official.with_options(api_key="key 0")
        assert (await official.completions.create(**PROMPT)).choices[0].text
        with pytest.raises(openai.RateLimitError, match="requests_per_minute"):
            await official.completions.create(**PROMPT)


async def test_without_keys_the_server_is_open_and_unlimited() -> None:
    async with client(OPEN) as http:
        for _ in range(30):
            assert (await http.get("/v1/models")).status_code == 200
        assert (await http.get("/v1/models", headers={"Authorization": "Bearer any"})).status_code == 200


async def post_raw(
    app: Any, chunks: list[bytes], declared: str | None, path: str = "/v1/completions"
) -> tuple[int, bytes, int]:
    """Status, body, and how many chunks the server took."""
    taken, sent = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal taken
        if taken == len(chunks):
            await asyncio.Event().wait()
        taken += 1
        return {"type": "http.request", "body": chunks[taken - 1], "more_body": taken < len(chunks)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    if declared is not None:
        headers.append((b"content-length", declared.encode()))
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
    await asyncio.wait_for(app(scope, receive, send), 20)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent), taken


BODY = b'{"model": "fake", "prompt": "x", "max_tokens": 2}'


@pytest.mark.parametrize(
    ("chunks", "declared", "status", "taken"),
    [
        ([BODY], str(len(BODY)), 200, 1),
        ([BODY + b" " * (100 - len(BODY))], None, 200, 1),  # just the limit
        ([b" " * 101], "101", 413, 0),  # said beforehand: nothing is read
        ([b" " * 60] * 50, None, 413, 2),  # chunked: read up to the limit
        ([b" " * 60] * 50, "49", 413, 2),  # a lie
        ([b" " * 60] * 50, "1" * 5000, 413, 2),
        ([b" " * 60] * 50, "nonsense", 413, 2),
        ([b"{}"], "1000000000000", 413, 0),
    ],
)
async def test_a_body_over_the_limit_is_refused_without_reading_the_rest(
    chunks: list[bytes], declared: str | None, status: int, taken: int
) -> None:
    app = protect(build_api(FakeService()), ProtectionSettings(max_body_bytes=100))
    answered, body, read = await post_raw(app, chunks, declared)
    assert (answered, read) == (status, taken)
    if status == 413:
        assert b'"type":"invalid_request_error"' in body and b"100 bytes" in body


async def test_an_unknown_key_is_refused_before_the_body_is_read() -> None:
    app = protect(build_api(FakeService()), with_keys(None))
    assert (await post_raw(app, [BODY], None))[::2] == (401, 0)


async def test_other_scopes_than_http_pass_untouched() -> None:
    passed = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append((scope["type"], receive))

    receive = object()
    for wrapped in (protect(app, with_keys(None)), BodyLimit(app, 1)):
        await wrapped({"type": "lifespan"}, receive, lambda message: None)  # type: ignore[arg-type, return-value]
    assert passed == [("lifespan", receive)] * 2


async def test_a_stream_is_passed_on_chunk_by_chunk() -> None:
    service = FakeService("one two three four")
    service.hold = asyncio.Event()
    app = protect(build_api(service), with_keys(Limits(concurrent_requests=1)))
    body, received, something = b'{"model": "fake", "prompt": "x", "stream": true}', [], asyncio.Event()
    bodies = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        return next(bodies, None) or await asyncio.Event().wait()  # type: ignore[return-value]

    async def send(message: dict[str, Any]) -> None:
        received.append(message)
        if message.get("body"):
            something.set()

    headers = [(b"content-type", b"application/json"), (b"authorization", b"Bearer key 0")]
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "query_string": b"", "headers": headers}
    task = asyncio.create_task(app(scope, receive, send))
    await something.wait()  # while the service is held
    assert not task.done()
    service.hold.set()
    await task
    assert received[-1]["more_body"] is False


async def test_every_answer_carries_the_security_headers(caplog: pytest.LogCaptureFixture) -> None:
    service = FakeService()
    settings = with_keys(None, max_body_bytes=300)
    async with client(settings, service, key="key 0") as http:
        answers = {
            200: await http.post("/v1/completions", json=PROMPT),
            404: await http.get("/nothing"),
            405: await http.get("/v1/completions"),
            400: await http.post("/v1/completions", json={}),
            413: await http.post("/v1/completions", json=PROMPT | {"prompt": "x" * 300}),
            401: await http.get("/v1/models", headers={"Authorization": ""}),
        }
        stream = await http.post("/v1/completions", json=PROMPT | {"stream": True})
        service.error = ZeroDivisionError("secret detail")
        with caplog.at_level(logging.CRITICAL):
            answers[500] = await http.post("/v1/completions", json=PROMPT)
    assert {status: answer.status_code for status, answer in answers.items()} == {status: status for status in answers}
    for answer in (*answers.values(), stream):
        assert {name: answer.headers.get_list(name) for name in SECURITY_HEADERS} == {
            name: [value] for name, value in SECURITY_HEADERS.items()
        }
    assert "secret detail" not in answers[500].text and "Traceback" not in answers[500].text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("rounds", [0, 2])
async def test_a_client_never_sees_a_traceback(stream: bool, rounds: int) -> None:
    service = FakeService()
    service.error, service.error_after = KeyError("secret detail"), rounds
    async with client(OPEN, service) as http:
        text = (await http.post("/v1/completions", json=PROMPT | {"stream": stream})).text
    assert "internal server error" in text
    assert not any(word in text for word in ("secret", "KeyError", "Traceback", ".py"))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"max_body_bytes": 0}, "max_body_bytes must be at least 1"),
        ({"limits": {"concurrent_requests": 0}}, "`limits`: concurrent_requests must be at least 1"),
        ({"limits": {"per_minute": 1}}, "unknown setting `limits.per_minute`"),
        ({"keys": [{"name": "", "hash": hash_of("x")}]}, "name must not be empty"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        convert(raw, ProtectionSettings, where="test")
