"""The HTTP surface: OpenAI's requests, answers, streams and errors; nothing goes on for a client that left."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from fake_service import FakeService

from serve.api import build_api
from serve.errors import InvalidRequest, ServiceOverloaded, ServiceUnavailable

QUESTION = {"model": "fake", "messages": [{"role": "user", "content": "Translate: 家"}], "max_tokens": 40}
PROMPT = {"model": "fake", "prompt": "Translate: 家", "max_tokens": 40}
Json = dict[str, Any]


@pytest.fixture
def service() -> FakeService:
    return FakeService()


def http(service: FakeService) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(build_api(service), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


def client(service: FakeService) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="none", base_url="http://test/v1", http_client=http(service), max_retries=0)


async def post(service: FakeService, path: str, body: Json) -> httpx.Response:
    async with http(service) as session:
        headers = {"Content-Type": "application/json"}
        return await session.post(f"/v1/{path}", content=json.dumps(body), headers=headers)


async def refused(service: FakeService, path: str, body: Json) -> Json:
    """The error that a bad request gets; nothing was generated for it."""
    response = await post(service, path, body)
    assert response.status_code == 400, response.text
    assert service.requests == []
    error: Json = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error


def events(response: httpx.Response) -> list[Json]:
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


async def test_a_completion_tells_text_usage_and_speculation(service: FakeService) -> None:
    answer = (await post(service, "completions", PROMPT | {"seed": 7, "temperature": 0})).json()
    tokens = len(service.codec.encode(service.answer)) + 1
    prompt = len(service.codec.encode(PROMPT["prompt"]))
    rounds = (tokens + 1) // 2
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["choices"] == [{"index": 0, "text": service.answer, "logprobs": None, "finish_reason": "stop"}]
    assert answer["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": tokens,
        "total_tokens": prompt + tokens,
        "completion_tokens_details": {"accepted_prediction_tokens": rounds, "rejected_prediction_tokens": 2 * rounds},
    }
    assert answer["polydraft"] == {
        "language": "ja",
        "drafter": "v0001",
        "rounds": rounds,
        "mean_acceptance_length": round(tokens / rounds, 4),
        "seed": 7,
    }


async def test_sampling_parameters_reach_the_service(service: FakeService) -> None:
    sampling = {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "seed": -3}
    await post(service, "completions", PROMPT | sampling)
    (request,) = service.requests
    assert request.prompt == service.codec.encode(PROMPT["prompt"])
    assert (request.max_tokens, request.stop_token_ids, request.language) == (40, {1}, "ja")
    assert {name: getattr(request.sampling, name) for name in sampling} == sampling


async def test_null_means_absent(service: FakeService) -> None:
    body = PROMPT | dict.fromkeys(["temperature", "top_p", "seed", "stop", "n", "logprobs", "suffix", "user"])
    assert (await post(service, "completions", body)).status_code == 200
    assert service.requests[0].sampling.temperature == 1.0


async def test_the_official_client_gets_whole_answers(service: FakeService) -> None:
    async with client(service) as session:
        chat = await session.chat.completions.create(**QUESTION)
        completion = await session.completions.create(**PROMPT)
        models = await session.models.list()
        model = await session.models.retrieve("fake")
    assert chat.choices[0].message.content == completion.choices[0].text == service.answer
    assert chat.choices[0].finish_reason == "stop"
    assert chat.usage is not None and chat.usage.completion_tokens_details is not None
    assert chat.usage.completion_tokens_details.accepted_prediction_tokens == service.rounds / 2
    assert chat.model_extra is not None and chat.model_extra["polydraft"]["drafter"] == "v0001"
    assert [card.id for card in models.data] == [model.id] == ["fake"]
    assert model.model_extra is not None and model.model_extra["languages"] == ["de", "ja"]


async def test_the_official_client_reads_a_streamed_chat(service: FakeService) -> None:
    async with client(service) as session:
        stream = await session.chat.completions.create(**QUESTION, stream=True, stream_options={"include_usage": True})
        chunks = [chunk async for chunk in stream]
    *texts, last, usage = chunks
    assert texts[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in texts) == service.answer
    assert not any("\ufffd" in (chunk.choices[0].delta.content or "") for chunk in texts)
    assert {chunk.choices[0].finish_reason for chunk in texts} == {None}
    assert last.choices[0].finish_reason == "stop"
    assert last.model_extra is not None and last.model_extra["polydraft"]["rounds"] == service.rounds
    assert usage.choices == [] and usage.usage is not None
    assert usage.usage.completion_tokens == len(service.codec.encode(service.answer)) + 1
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


async def test_the_official_client_reads_a_streamed_completion(service: FakeService) -> None:
    async with client(service) as session:
        stream = await session.completions.create(**PROMPT, stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks) == service.answer
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)


async def test_messages_are_rendered_with_the_chat_template(service: FakeService) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "yes", "name": None},
    ]
    await post(service, "chat/completions", QUESTION | {"messages": messages})
    rendered = service.codec.decode(service.requests[0].prompt)
    assert rendered == "system: be brief\nuser: one\ntwo\nassistant: yes\n"
    assert service.identified == ["one\ntwo"], "the language is that of the user's last message"


async def test_without_a_limit_a_chat_may_fill_the_context(service: FakeService) -> None:
    await post(service, "chat/completions", {"model": "fake", "messages": QUESTION["messages"]})
    await post(service, "chat/completions", QUESTION | {"max_tokens": None, "max_completion_tokens": 5})
    await post(service, "completions", {"model": "fake", "prompt": "家"})
    await post(service, "completions", {"model": "fake", "prompt": [5] * 92})
    first, second, third, fourth = service.requests
    assert first.max_length == service.context_length
    assert (second.max_tokens, third.max_tokens, fourth.max_tokens) == (5, 16, 4)


async def test_max_tokens_ends_the_text_with_length(service: FakeService) -> None:
    answer = (await post(service, "completions", PROMPT | {"max_tokens": 3})).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


async def test_token_ids_are_a_prompt_too(service: FakeService) -> None:
    ids = list(service.codec.encode("家は小さい"))
    assert (await post(service, "completions", PROMPT | {"prompt": ids})).status_code == 200
    assert service.requests[0].prompt == tuple(ids)
    assert service.identified == ["家は小さい"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_string_ends_the_text_and_the_generation(stream: bool) -> None:
    service = FakeService("one two three four five six seven")
    response = await post(service, "completions", PROMPT | {"stop": [" three", "zzz"], "stream": stream})
    if stream:
        chunks = events(response)
        text, reason = "".join(chunk["choices"][0]["text"] for chunk in chunks), chunks[-1]["choices"][0]
    else:
        text, reason = response.json()["choices"][0]["text"], response.json()["choices"][0]
        assert response.json()["usage"]["completion_tokens"] == len(service.codec.encode("one two three"))
    assert (text, reason["finish_reason"]) == ("one two", "stop")
    assert service.closed.is_set()
    assert service.rounds < len(service.codec.encode(service.answer)) // 2


@pytest.mark.parametrize("stream", [False, True])
async def test_what_only_looked_like_a_stop_string_is_told_at_the_end(stream: bool) -> None:
    response = await post(FakeService("wait: EN"), "completions", PROMPT | {"stop": "END", "stream": stream})
    texts = [chunk["choices"][0]["text"] for chunk in (events(response) if stream else [response.json()])]
    assert "".join(texts) == "wait: EN"


async def test_a_missing_seed_is_chosen_and_told(service: FakeService) -> None:
    answers = [(await post(service, "completions", PROMPT)).json()["polydraft"]["seed"] for _ in range(2)]
    assert [request.sampling.seed for request in service.requests] == answers
    assert answers[0] != answers[1]


@pytest.mark.parametrize(
    ("fields", "used", "told", "identified"),
    [
        ({}, "ja", "ja", 1),
        ({"language": "de"}, "de", "de", 0),
        ({"language": "sw"}, "sw", "sw", 0),
        ({"speculation": "off"}, None, None, 0),
        ({"speculation": "off", "language": "de"}, None, "de", 0),
    ],
)
async def test_the_language_is_the_one_asked_for_else_identified(
    service: FakeService, fields: Json, used: str | None, told: str | None, identified: int
) -> None:
    answer = (await post(service, "chat/completions", QUESTION | fields)).json()
    assert service.requests[0].language == used
    assert answer["polydraft"]["language"] == told
    assert len(service.identified) == identified


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"temperature": "1"}, "temperature", "valid number"),
        ({"temperature": float("nan")}, "temperature", "less than or equal to 2"),
        ({"temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"top_k": 1.5}, "top_k", "valid integer"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": True}, "max_tokens", "valid integer"),
        ({"seed": 2**63}, "seed", "less than"),
        ({"stream": "yes"}, "stream", "valid boolean"),
        ({"stop": 3}, "stop", "a string or a list of strings"),
        ({"stop": list("abcde")}, "stop", "at most 4"),
        ({"stop": ["a", ""]}, "stop[1]", "at least 1 character"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream: true"),
        ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage", "unknown field"),
        ({"temprature": 1}, "temprature", "unknown field"),
        ({"language": "klingon"}, "language", "unknown language `klingon`"),
        ({"language": 3}, "language", "valid string"),
        ({"speculation": "on"}, "speculation", "'auto' or 'off'"),
        ({"n": 2}, "n", "not supported yet: only 1"),
        ({"presence_penalty": 0.5}, "presence_penalty", "only 0"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "only 0"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "only {}"),
        ({"model": None}, "model", "required"),
    ],
)
async def test_a_wrong_field_is_named(service: FakeService, fields: Json, param: str, message: str) -> None:
    for path, body in (("completions", PROMPT), ("chat/completions", QUESTION)):
        error = await refused(service, path, body | fields)
        assert error["param"] == param
        assert error["message"].startswith(f"{param}: ")
        assert message in error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logprobs": 0}, "logprobs"),
        ({"best_of": 2}, "best_of"),
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [1, "2"]}, "prompt[1]"),
        ({"prompt": [1, -2]}, "prompt[1]"),
        ({"prompt": [270]}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
    ],
)
async def test_a_wrong_field_of_a_completion_is_named(service: FakeService, fields: Json, param: str) -> None:
    assert (await refused(service, "completions", PROMPT | fields))["param"] == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"max_completion_tokens": 7}, "max_completion_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"prompt": "x"}, "prompt"),
    ],
)
async def test_a_wrong_field_of_a_chat_is_named(service: FakeService, fields: Json, param: str) -> None:
    assert (await refused(service, "chat/completions", QUESTION | fields))["param"] == param


async def test_a_prompt_longer_than_the_context_is_refused(service: FakeService) -> None:
    error = await refused(service, "completions", PROMPT | {"prompt": "word " * 100, "max_tokens": None})
    assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")
    assert "context of 96" in error["message"]
    messages = [{"role": "user", "content": "word " * 100}]
    error = await refused(service, "chat/completions", {"model": "fake", "messages": messages})
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")


async def test_more_tokens_than_the_context_holds_are_refused(service: FakeService) -> None:
    error = await refused(service, "completions", PROMPT | {"prompt": [5] * 92, "max_tokens": 5})
    assert (error["code"], error["param"]) == ("context_length_exceeded", "max_tokens")


async def test_a_chat_without_template_is_refused() -> None:
    error = await refused(FakeService(template=None), "chat/completions", QUESTION)
    assert error["param"] == "messages" and "serve.chat_template" in error["message"]


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


async def test_health_follows_the_service(service: FakeService) -> None:
    async with http(service) as session:
        assert (await session.get("/healthz")).json() == {"status": "ok"}
        service.is_healthy = False
        response = await session.get("/healthz")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "service_unavailable")


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


class Connection:
    """A client at the level of ASGI, which sees each part of an answer as it is sent, and can leave."""

    def __init__(self, service: FakeService, path: str, body: Json) -> None:
        self._parts: list[Json] = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
        self._left = asyncio.Event()
        self.sent: list[Json] = []
        self.something_sent = asyncio.Event()
        self.fail_to_send = False
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": f"/v1/{path}",
            "raw_path": f"/v1/{path}".encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", b"application/json")],
        }
        self.task = asyncio.create_task(build_api(service)(scope, self._receive, self._send))

    def leave(self) -> None:
        self._left.set()

    async def _receive(self) -> Json:
        if self._parts:
            return self._parts.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Json) -> None:
        if self.fail_to_send:
            raise OSError("connection reset")
        self.sent.append(message)
        if message.get("body"):
            self.something_sent.set()


def disconnect(connection: Connection) -> None:
    connection.leave()


def cancel(connection: Connection) -> None:
    connection.task.cancel()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("go", [disconnect, cancel])
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
