"""Clients of the HTTP surface for tests, without a network."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
from fake_service import FakeService

from serve.http.api import build_api
from serve.http.request_id import RequestIds

QUESTION = {"model": "fake", "messages": [{"role": "user", "content": "Translate: 家"}], "max_tokens": 40}
PROMPT = {"model": "fake", "prompt": "Translate: 家", "max_tokens": 40}
Json = dict[str, Any]


def http(service: FakeService) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(RequestIds(build_api(service)), raise_app_exceptions=False)
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
        """The client goes away."""
        self._left.set()

    def cancel(self) -> None:
        """The server ends the request's task, as Ray Serve does."""
        self.task.cancel()

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
