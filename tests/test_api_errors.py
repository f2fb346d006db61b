"""What went wrong is told in OpenAI's shape; nothing goes on for a client that left."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Callable

import openai
import pytest
from api_client import PROMPT, QUESTION, Connection, client, http, post
from fake_service import FakeService

from serve.errors import InvalidRequest, RequestTimeout, ServiceOverloaded, ServiceUnavailable


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.mark.parametrize(
    ("content", "headers", "message"),
    [
        (b'{"model": ', {"Content-Type": "application/json"}, "not valid JSON: "),
        (b"[1]", {"Content-Type": "application/json"}, "expected a JSON object"),
        (b'{"\\ud800": 1}', {"Content-Type": "application/json"}, "valid string"),
        (b'{"model": "fake"}', {"Content-Type": "text/plain"}, "Content-Type: application/json"),
        (b"", {}, "expected a JSON object"),
    ],
)
async def test_a_body_that_is_no_json_object_is_refused(
    service: FakeService, content: bytes, headers: dict[str, str], message: str
) -> None:
    async with http(service) as session:
        response = await session.post("/v1/completions", content=content, headers=headers)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


async def test_an_unknown_model_is_not_found(service: FakeService) -> None:
    async with client(service) as session:
        for call in (
            session.completions.create(**(PROMPT | {"model": "gpt"})),
            session.chat.completions.create(**(QUESTION | {"model": "gpt"})),
            session.models.retrieve("org/gpt"),
        ):
            with pytest.raises(openai.NotFoundError) as error:
                await call
            assert (error.value.code, error.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v2/x", 404), ("GET", "/v1/completions", 405)])
async def test_unknown_routes_and_methods_are_told_in_openais_shape(
    service: FakeService, method: str, path: str, status: int
) -> None:
    async with http(service) as session:
        response = await session.request(method, path)
    assert response.status_code == status
    assert response.json()["error"]["message"].startswith(f"{method} {path}: ")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_before_the_text_is_a_status(service: FakeService, stream: bool) -> None:
    service.error = ServiceOverloaded("256 requests in progress", retry_after_s=3)
    async with client(service) as session:
        with pytest.raises(openai.RateLimitError, match="256 requests in progress") as overloaded:
            await session.chat.completions.create(**QUESTION, stream=stream)
        assert overloaded.value.response.headers["Retry-After"] == "3"
        service.error = ServiceUnavailable("no verifier")
        with pytest.raises(openai.InternalServerError) as unavailable:
            await session.chat.completions.create(**QUESTION, stream=stream)
        assert unavailable.value.status_code == 503
    assert service.closed.is_set()


async def test_the_official_client_does_not_ask_again_for_what_took_too_long(service: FakeService) -> None:
    for error, times in ((ServiceUnavailable("gone"), 2), (RequestTimeout("not finished within 1 s"), 1)):
        service.error = error
        service.requests.clear()
        async with client(service) as session:
            with pytest.raises(openai.APIStatusError):
                await session.with_options(max_retries=1).chat.completions.create(**QUESTION)
        assert len(service.requests) == times


@pytest.mark.parametrize("stream", [False, True])
async def test_our_own_errors_are_not_shown_to_clients(service: FakeService, stream: bool) -> None:
    service.error = RuntimeError("secret path")
    response = await post(service, "completions", PROMPT | {"stream": stream})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert "secret" not in response.text and "Traceback" not in response.text


@pytest.mark.parametrize(
    ("error", "code"), [(ServiceUnavailable("gone"), "service_unavailable"), (RuntimeError("secret"), "internal_error")]
)
async def test_an_error_in_the_middle_is_the_last_event(service: FakeService, error: Exception, code: str) -> None:
    service.error, service.error_after = error, 3
    response = await post(service, "chat/completions", QUESTION | {"stream": True})
    assert response.status_code == 200
    *before, last = [json.loads(line.removeprefix("data: ")) for line in response.text.split("\n\n") if line]
    assert last["error"]["code"] == code
    assert "secret" not in response.text
    assert service.answer.startswith("".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in before))
    async with client(service) as session:
        with pytest.raises(openai.APIError):
            async for _ in await session.chat.completions.create(**QUESTION, stream=True):
                pass


def test_errors_travel_between_processes() -> None:
    for error in (ServiceOverloaded("full", 7), ServiceUnavailable("gone"), InvalidRequest("bad", "prompt")):
        again = pickle.loads(pickle.dumps(error))
        assert (again.message, again.headers, again.param) == (error.message, error.headers, error.param)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("go", [Connection.leave, Connection.cancel])
async def test_the_generation_is_closed_when_the_client_goes_away(
    service: FakeService, stream: bool, go: Callable[[Connection], None]
) -> None:
    service.hold = asyncio.Event()
    connection = Connection(service, "chat/completions", QUESTION | {"stream": stream})
    await service.started.wait()
    assert not service.closed.is_set()
    go(connection)
    await asyncio.wait([connection.task])
    assert service.closed.is_set()
    assert service.rounds == 1


async def test_the_generation_is_closed_when_sending_fails(service: FakeService) -> None:
    service.hold = asyncio.Event()
    connection = Connection(service, "completions", PROMPT | {"stream": True})
    await service.started.wait()
    connection.fail_to_send = True
    service.hold.set()
    await asyncio.wait([connection.task])
    assert service.closed.is_set()
    assert service.rounds < len(service.codec.encode(service.answer)) // 2


async def test_text_is_sent_while_the_rest_is_still_written() -> None:
    service = FakeService("one two three four")
    service.hold = asyncio.Event()
    connection = Connection(service, "completions", PROMPT | {"stream": True})
    await connection.something_sent.wait()
    assert b'"text":"o' in connection.sent[-1]["body"]
    assert service.rounds == 1
    service.hold.set()
    await connection.task
    assert connection.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert connection.sent[-2]["body"] == b"data: [DONE]\n\n"
