"""The request's id: taken from the client or made, sent back on every answer, known to all that works on it."""

from __future__ import annotations

import uuid

import httpx
import pytest
from api_client import PROMPT, QUESTION, events, http
from fake_service import FakeService

from serve.errors import ServiceOverloaded
from serve.http.api import build_api
from serve.http.request_id import RequestIds


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_clients_id_is_sent_back_and_known_to_every_choice(service: FakeService, stream: bool) -> None:
    async with http(service) as session:
        body = QUESTION | {"n": 2, "stream": stream}
        response = await session.post("/v1/chat/completions", json=body, headers={"x-request-id": "job 7/a"})
    assert response.headers.get_list("x-request-id") == ["job 7/a"]
    assert service.request_ids == ["job 7/a"] * 2
    told = events(response) if stream else [response.json()]
    assert {chunk["id"] for chunk in told} == {"chatcmpl-job 7/a"}


async def test_without_one_each_request_gets_a_new_id(service: FakeService) -> None:
    async with http(service) as session:
        responses = [await session.post("/v1/completions", json=PROMPT) for _ in range(2)]
    ids = [response.headers["x-request-id"] for response in responses]
    assert ids[0] != ids[1]
    assert [str(uuid.UUID(each)) for each in ids] == ids == service.request_ids


async def test_errors_have_the_id_too(service: FakeService) -> None:
    headers = {"x-request-id": "mine"}
    async with http(service) as session:
        responses = [
            await session.post("/v1/completions", json=PROMPT | {"n": 0}, headers=headers),
            await session.get("/nowhere", headers=headers),
        ]
        for service.error in (ServiceOverloaded("full"), RuntimeError("secret")):
            responses.append(await session.post("/v1/completions", json=PROMPT, headers=headers))
    assert [response.status_code for response in responses] == [400, 404, 429, 500]
    assert [response.headers.get_list("x-request-id") for response in responses] == [["mine"]] * 4


@pytest.mark.parametrize("asked", [b"", b"x" * 129, "käse".encode(), b"a\tb"])
async def test_an_id_that_cannot_be_logged_is_refused(service: FakeService, asked: bytes) -> None:
    async with http(service) as session:
        response = await session.post("/v1/completions", json=PROMPT, headers={b"x-request-id": asked})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "x-request-id")
    assert uuid.UUID(response.headers["x-request-id"])
    assert service.requests == []


async def test_behind_a_proxy_that_sends_the_id_it_is_only_noted(service: FakeService) -> None:
    transport = httpx.ASGITransport(RequestIds(build_api(service), send=False))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as session:
        response = await session.post("/v1/completions", json=PROMPT, headers={"x-request-id": "mine"})
    assert "x-request-id" not in response.headers
    assert service.request_ids == ["mine"]
