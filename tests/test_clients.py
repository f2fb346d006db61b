"""Clients that people use, unchanged, against a real HTTP server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import Iterator
from socket import socket

import openai
import pytest
import uvicorn
from api_client import PROMPT, QUESTION
from fake_service import FakeService
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI, OpenAI

from serve.errors import ServiceOverloaded
from serve.http.api import build_api
from serve.http.request_id import RequestIds


@pytest.fixture
def service() -> FakeService:
    service = FakeService()
    service.context_length = 512
    return service


class Server(uvicorn.Server):
    """Serves in a thread, on a free port."""

    def __init__(self, service: FakeService) -> None:
        super().__init__(uvicorn.Config(RequestIds(build_api(service)), port=0, log_level="warning"))
        self.listening = threading.Event()
        self.thread = threading.Thread(target=self.run)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        self.loop = asyncio.get_running_loop()
        self.listening.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}/v1"


@pytest.fixture
def server(service: FakeService) -> Iterator[Server]:
    server = Server(service)
    server.thread.start()
    assert server.listening.wait(30)
    yield server
    server.should_exit = True
    server.thread.join(30)
    assert service.open == 0


@pytest.fixture
def url(server: Server) -> str:
    return server.url


@pytest.fixture
def official(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="none", base_url=url, max_retries=0) as client:
        yield client


def test_openai_gets_choices_and_logprobs(official: openai.OpenAI, service: FakeService) -> None:
    chat = official.chat.completions.create(**QUESTION, n=2, logprobs=True, top_logprobs=3, extra_body={"top_k": 4})
    assert [choice.message.content for choice in chat.choices] == [service.answer] * 2
    entries = chat.choices[1].logprobs.content
    assert b"".join(bytes(entry.bytes or []) for entry in entries).decode() == service.answer
    assert {len(entry.top_logprobs) for entry in entries} == {3}
    assert chat._request_id is not None and chat.id == f"chatcmpl-{chat._request_id}"
    completion = official.completions.create(**(PROMPT | {"prompt": ["a", "b"]}), n=2, logprobs=1, best_of=2)
    assert [choice.index for choice in completion.choices] == [0, 1, 2, 3]
    assert len(completion.choices[3].logprobs.text_offset) * 4 == completion.usage.completion_tokens


def test_openai_reads_streams(official: openai.OpenAI, service: FakeService) -> None:
    texts = ["", ""]
    options = {"include_usage": True}
    for chunk in official.chat.completions.create(**QUESTION, n=2, logprobs=True, stream=True, stream_options=options):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [service.answer] * 2
    assert chunk.usage.completion_tokens > 0
    pieces = [chunk.choices[0].text for chunk in official.completions.create(**PROMPT, stream=True)]
    assert "".join(pieces) == service.answer and len(pieces) > 2


def test_openai_helper_accumulates_a_streamed_chat(official: openai.OpenAI, service: FakeService) -> None:
    with official.chat.completions.stream(**QUESTION, logprobs=True) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(deltas) == final.choices[0].message.content == service.answer
    assert final.choices[0].finish_reason == "stop"


def test_openai_raises_its_own_errors(official: openai.OpenAI, service: FakeService) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        official.chat.completions.create(**QUESTION, temperature=3)
    assert bad.value.param == "temperature" and bad.value.request_id
    with pytest.raises(openai.NotFoundError):
        official.chat.completions.create(**(QUESTION | {"model": "gpt"}))
    service.error = ServiceOverloaded("full", 7)
    with pytest.raises(openai.RateLimitError) as full:
        official.chat.completions.create(**QUESTION, stream=True)
    assert full.value.response.headers["retry-after"] == "7"
    service.error, service.error_after = ServiceOverloaded("full"), 2
    with pytest.raises(openai.APIError, match="full"):
        list(official.chat.completions.create(**QUESTION, stream=True))


def test_a_client_that_stops_reading_ends_the_generation(official: openai.OpenAI, service: FakeService) -> None:
    service.hold = asyncio.Event()
    stream = official.chat.completions.create(**QUESTION, n=2, stream=True)
    next(iter(stream))
    assert service.open == 2
    stream.close()
    assert service.idle.wait(30)


def test_curl_shows_events_as_they_come(server: Server, service: FakeService) -> None:
    service.hold = asyncio.Event()
    command = ["curl", "-sSN", f"{server.url}/chat/completions", "-H", "Content-Type: application/json"]
    body = json.dumps(QUESTION | {"stream": True})
    with subprocess.Popen([*command, "-d", body], stdout=subprocess.PIPE, text=True, encoding="utf8") as curl:
        assert curl.stdout is not None
        first = curl.stdout.readline()
        assert service.open == 1, "the text is still being written"
        server.loop.call_soon_threadsafe(service.hold.set)
        *parts, done, end = (first + curl.stdout.read()).split("\n\n")
    assert (done, end, curl.returncode) == ("data: [DONE]", "", 0)
    chunks = [json.loads(part.removeprefix("data: ")) for part in parts]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == service.answer


def test_langchain_chats(url: str, service: FakeService) -> None:
    model = ChatOpenAI(model="fake", base_url=url, api_key="none", max_retries=0)
    answer = model.invoke([("system", "Be brief."), ("human", "家?")])
    assert answer.content == service.answer
    assert answer.usage_metadata["output_tokens"] == len(service.codec.encode(service.answer)) + 1
    assert answer.response_metadata["finish_reason"] == "stop"
    chunks = list(model.stream("家?", stream_usage=True))
    assert "".join(chunk.content for chunk in chunks) == service.answer
    told = [chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata]
    assert told == [answer.usage_metadata["output_tokens"]]
    stopped = model.bind(logprobs=True, top_logprobs=2, stop=["住"]).invoke("家?")
    assert stopped.content == "東京に"
    assert len(stopped.response_metadata["logprobs"]["content"]) == len(service.codec.encode("東京に住"))
    assert [len(result) for result in model.generate([[HumanMessage("家?")]], n=2).generations] == [2]


def test_langchain_completes(url: str, service: FakeService) -> None:
    model = OpenAI(model="fake", base_url=url, api_key="none", max_retries=0)
    assert model.invoke("家") == service.answer
    assert "".join(model.stream("家")) == service.answer
    two = model.generate(["家", "house"])
    assert [result[0].text for result in two.generations] == [service.answer] * 2
