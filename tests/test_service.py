"""The router's service in one process: what bounds a text, and what it tells of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import in_process
import pytest
from in_process import TEMPLATE, Running

from serve.http.api import build_api
from serve.settings import ReplicaSettings, ServeSettings

CHAT = {"model": "polydraft", "messages": [{"role": "user", "content": "Haus"}], "language": "de"}


def settings(**changes: Any) -> ServeSettings:
    return ServeSettings(**{"chat_template": TEMPLATE, **changes})


@asynccontextmanager
async def client(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(build_api(running.service))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http


async def test_a_chat_without_a_limit_fills_what_the_verifiers_memory_holds() -> None:
    async with in_process.running(settings(verifier=ReplicaSettings(kv_tokens=70))) as running, client(running) as http:
        answer = await http.post("/v1/chat/completions", json=CHAT | {"ignore_eos": True})
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["total_tokens"] == running.service.context_length == 64
        too_long = await http.post("/v1/chat/completions", json=CHAT | {"max_tokens": 64})
        assert (too_long.status_code, too_long.json()["error"]["param"]) == (400, "max_tokens")
        assert "context of 64" in too_long.json()["error"]["message"]
        await running.freed()


@pytest.mark.parametrize(("kv_tokens", "drafted"), [(128, True), (48, False)])
async def test_a_drafter_drafts_what_its_memory_holds(kv_tokens: int, drafted: bool) -> None:
    both = settings(verifier=ReplicaSettings(kv_tokens=128), drafter=ReplicaSettings(kv_tokens=kv_tokens))
    async with in_process.running(both) as running, client(running) as http:
        body = CHAT | {"ignore_eos": True, "speculation": {"drafter": "de", "max_draft_length": 2}, "seed": 1}
        answer = await http.post("/v1/chat/completions", json=body)
        plain = await http.post("/v1/chat/completions", json=body | {"speculation": "off"})
        assert answer.json()["choices"] == plain.json()["choices"]
        drafts = answer.json()["usage"]["completion_tokens_details"]
        assert (sum(drafts.values()) > 0) == drafted
        await running.freed()


async def test_a_deployed_language_is_identified_and_told_to_prometheus() -> None:
    async with in_process.running(languages=()) as running:
        service = running.service
        await service.refresh()
        assert service._identification._learning is not None
        await asyncio.wait([service._identification._learning])
        await service.refresh()
        assert service.identify("Das Haus ist klein.") == "de"
        assert service._metrics.languages == {"de"}


async def test_numbers_that_cannot_be_told_cost_the_replica_its_health_and_no_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with in_process.running(settings()) as running, client(running) as http:

        def flush() -> None:
            raise OSError("the metrics agent is gone")

        monkeypatch.setattr(running.service._metrics, "flush", flush)
        running.service.check_health()
        for _ in range(2):
            answer = await http.post("/v1/chat/completions", json=CHAT | {"max_tokens": 4})
            assert answer.status_code == 200, answer.text
        assert running.service._flushing is not None
        await asyncio.wait([running.service._flushing])
        with pytest.raises(OSError, match="agent"):
            running.service.check_health()
        await running.freed()
