"""Distillation from a server: any that speaks OpenAI's completions API, however often it stumbles."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvicorn
from fake_service import FakeService
from test_distillation import work_of
from tiny_target import save_target

from common.models import load_tokenizer
from serve.http.api import build_api
from train.distillation.answers import DistillationError, Rejected
from train.distillation.distill import distill
from train.distillation.settings import EndpointSettings
from train.distillation.store import Counts, read_answers

FOREVER = 10**6


class StumblingServer(uvicorn.Server):
    """Our own API on a free port; says `status` to the first `stumbles` requests for each text that holds `on`."""

    def __init__(self) -> None:
        self._api = build_api(FakeService(answer=" small house"))
        super().__init__(uvicorn.Config(self._app, port=0, interface="asgi3", log_level="critical"))
        self.listening = threading.Event()
        self.status, self.stumbles, self.on = 503, 0, ""
        self.asked: list[dict[str, Any]] = []
        self.content_type, self.authorization = b"application/json", b""
        self.open = self.most_open = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}/v1"

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self._api(scope, receive, send)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            body = await _body(receive)
            await asyncio.sleep(0)  # so that requests meet
            self.authorization = dict(scope["headers"])[b"authorization"]
            seen = Counter((r["prompt"], r["seed"]) for r in self.asked)
            self.asked.append(body)
            if self.on in body["prompt"] and seen[body["prompt"], body["seed"]] < self.stumbles:
                return await self._refuse(send)
            replay = iter([{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}])
            held = asyncio.Event()

            async def again() -> Any:
                for message in replay:
                    return message
                await held.wait()

            await self._api(scope, again, send)
        finally:
            self.open -= 1

    async def _refuse(self, send: Any) -> None:
        if self.status == 0:
            raise ConnectionResetError  # the connection ends without an answer
        headers = [(b"content-type", self.content_type), (b"retry-after-ms", b"1")]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"error": {"message": "stumbled"}}'})


async def _body(receive: Any) -> dict[str, Any]:
    parts, more = b"", True
    while more:
        message = await receive()
        parts, more = parts + message.get("body", b""), message.get("more_body", False)
    return json.loads(parts)


@pytest.fixture
def server() -> Iterator[StumblingServer]:
    server = StumblingServer()
    thread = threading.Thread(target=server.run)
    thread.start()
    assert server.listening.wait(30)
    yield server
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_target(tmp_path_factory.mktemp("target"))


def endpoint(server: StumblingServer, **settings: Any) -> EndpointSettings:
    return EndpointSettings(base_url=server.url, model="fake", **settings)


def test_answers_come_from_the_server_in_the_targets_tokens(
    server: StumblingServer, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "secret")
    work = work_of(target, tmp_path, endpoint=endpoint(server, api_key_env="KEY"), max_tokens=30)
    *_, counts = distill(work)
    assert counts == Counts(success=20)
    tokenizer = load_tokenizer(target)
    for answer in read_answers(tmp_path):
        assert answer.prompt == work.prompts[answer.number // 4].tokens
        assert tokenizer.decode(answer.output) == " small house</s>", "it ended by itself, so its end is taught"
    assert sorted((r["seed"], r["temperature"]) for r in server.asked)[:4] == [(7, 0.0), (8, 0.3), (9, 0.7), (10, 1.0)]
    assert server.asked[0]["model"] == "fake" and server.authorization == b"Bearer secret"
    assert 1 < server.most_open <= work.settings.concurrency


def test_a_cut_answer_has_no_end(server: StumblingServer, target: Path, tmp_path: Path) -> None:
    list(distill(work_of(target, tmp_path, endpoint=endpoint(server), max_tokens=4)))
    ids = {answer.output for answer in read_answers(tmp_path)}
    assert all(output[-1] != load_tokenizer(target).eos_token_id for output in ids)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503])
def test_what_may_pass_is_asked_again(server: StumblingServer, target: Path, tmp_path: Path, status: int) -> None:
    server.status, server.stumbles = status, 2
    *_, counts = distill(work_of(target, tmp_path, texts=("Haus",), endpoint=endpoint(server)))
    assert counts == Counts(success=4) and len(server.asked) == 12


def test_a_lost_connection_is_tried_again(server: StumblingServer, target: Path, tmp_path: Path) -> None:
    server.status, server.stumbles = 0, 1
    texts, temperatures = ("Haus",), (0.0,)
    *_, counts = distill(work_of(target, tmp_path, texts=texts, temperatures=temperatures, endpoint=endpoint(server)))
    assert counts == Counts(success=1) and len(server.asked) == 2


def test_what_finally_fails_is_an_error_with_its_reason(server: StumblingServer, target: Path, tmp_path: Path) -> None:
    server.status, server.stumbles, server.on = 503, FOREVER, "東京"
    work = work_of(target, tmp_path, endpoint=endpoint(server, max_retries=2), max_error_share=0.7)
    *_, counts = distill(work)
    assert counts == Counts(success=16, error=4)
    assert sum(r["prompt"] == "東京" for r in server.asked) == 4 * 3
    lines = b"".join(path.read_bytes() for path in sorted(tmp_path.glob("*/errors.jsonl"))).splitlines()
    errors = [msgspec.json.decode(line, type=Rejected) for line in lines]
    assert {(error.prompt, error.number // 4) for error in errors} == {("東京", 2)}
    assert "/v1: HTTP 503: " in errors[0].reason and "stumbled" in errors[0].reason


def test_a_refusal_is_not_asked_again_and_many_fail_the_stage(
    server: StumblingServer, target: Path, tmp_path: Path
) -> None:
    server.status, server.stumbles = 404, FOREVER
    with pytest.raises(DistillationError, match=r"6 questions without an answer.*HTTP 404"):
        list(distill(work_of(target, tmp_path, endpoint=endpoint(server))))
    assert len(server.asked) == 6
    server.stumbles = 0
    *_, counts = distill(work_of(target, tmp_path, endpoint=endpoint(server)))
    assert counts == Counts(success=20), "the same command goes on"


@pytest.mark.parametrize("content_type", [b"application/json", b"text/html"])
def test_a_server_that_speaks_something_else_is_told_so(
    server: StumblingServer, target: Path, tmp_path: Path, content_type: bytes
) -> None:
    server.status, server.stumbles, server.content_type = 200, FOREVER, content_type
    with pytest.raises(DistillationError, match="answered, but not with a completion"):
        list(distill(work_of(target, tmp_path, endpoint=endpoint(server))))


def test_the_law_of_answers_from_a_server_is_the_local_targets(
    server: StumblingServer, target: Path, tmp_path: Path
) -> None:
    work = work_of(target, tmp_path, endpoint=endpoint(server), teacher="top_k", teacher_k=2)
    *_, counts = distill(work)
    assert counts == Counts(success=20) and len(list(tmp_path.rglob("teacher.safetensors"))) == 4


def test_a_missing_api_key_is_named(server: StumblingServer, target: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"endpoint\.api_key_env: environment variable NO_SUCH_KEY is not set"):
        list(distill(work_of(target, tmp_path, endpoint=endpoint(server, api_key_env="NO_SUCH_KEY"))))
