"""The HTTP surface under the requests that its own OpenAPI document describes, and under ones that it forbids.

Most cases meet a service that writes at once; some meet the real one, its verifier and its drafter in this process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from random import Random
from typing import Any, TypeVar

import httpx
import in_process
import pytest
import schemathesis
from fake_service import FakeService
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from in_process import Running
from schemathesis import Case, GenerationMode

from serve.http.api import build_api
from serve.http.protection import ProtectionSettings, protect

T = TypeVar("T")
SERVICE = FakeService("one two three")
SERVICE.context_length = 512
APP = protect(build_api(SERVICE), ProtectionSettings())
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", APP)
OPERATIONS = {result.ok().label: result.ok() for result in SCHEMA.get_all_operations()}
TIMEOUT_S = 30
"""Of one request; the fake takes milliseconds."""
NUM_CASES = {
    ("POST /v1/completions", GenerationMode.POSITIVE): 700,
    ("POST /v1/completions", GenerationMode.NEGATIVE): 150,
    ("POST /v1/chat/completions", GenerationMode.POSITIVE): 700,
    ("POST /v1/chat/completions", GenerationMode.NEGATIVE): 150,
    ("GET /v1/models/{model}", GenerationMode.POSITIVE): 50,
    ("GET /v1/models", GenerationMode.POSITIVE): 1,
    ("GET /healthz", GenerationMode.POSITIVE): 1,
}
NUM_REAL_CASES = {"POST /v1/completions": 150, "POST /v1/chat/completions": 150}
EXTREMES: dict[str, list[float]] = {
    "temperature": [5e-324, 1e-310, 1e-30, 0.0, 2.0],
    "top_p": [5e-324, 1e-310, 1.0],
    "min_p": [5e-324, 1.0],
    "repetition_penalty": [5e-324, 1e-310, 100.0],
    "presence_penalty": [5e-324, -2.0, 2.0],
    "frequency_penalty": [-5e-324, -2.0, 2.0],
    "top_k": [-1, 1, 2**31 - 1, 2**31, 2**63, 2**64],
    "seed": [-(2**63), 2**63 - 1, 2**63, 2**64],
    "max_tokens": [1, 2**31, 2**63, 2**64, 10**400],
    "speculation": [0, 64, 2**63, 2**64],
}
"""Values at the ends of what a field takes, and beyond."""


@pytest.fixture(autouse=True)
def _no_log_of_refusals() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def test_every_operation_is_covered_by_enough_cases() -> None:
    assert {label for label, _ in NUM_CASES} == set(OPERATIONS)
    assert sum(NUM_CASES.values()) + sum(NUM_REAL_CASES.values()) >= 2000


def _cases(count: int) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.parametrize(("label", "mode"), NUM_CASES, ids=lambda value: str(getattr(value, "value", value)))
def test_whatever_is_asked_the_answer_is_no_server_error_and_nothing_goes_on(label: str, mode: GenerationMode) -> None:
    statuses: Counter[int] = Counter()

    @_cases(NUM_CASES[label, mode])
    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode), seed=st.integers(0, 2**32))
    def ask(case: Case, seed: int) -> None:
        if isinstance(case.body, dict) and seed % 100:
            _simplify(case.body, Random(seed), SERVICE.model)
        response = case.call(timeout=TIMEOUT_S)
        statuses[response.status_code] += 1
        _check(response.status_code, response.text)

    ask()
    assert statuses.total() >= NUM_CASES[label, mode]
    if label.startswith("POST") and mode is GenerationMode.POSITIVE:
        assert statuses[200] >= statuses.total() / 4, statuses


class Server:
    """The real service behind the HTTP surface, in an event loop of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._stack = AsyncExitStack()
        self._running = self._run(self._start())

    async def _start(self) -> Running:
        running = await self._stack.enter_async_context(in_process.running(context_length=64))
        self.model = running.service.model
        app = protect(build_api(running.service), ProtectionSettings(), max_texts=32)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._http = await self._stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://test")
        )
        return running

    def post(self, path: str, body: object) -> httpx.Response:
        """The answer, once nothing is held any more."""

        async def ask() -> httpx.Response:
            headers = {"Content-Type": "application/json"}
            response = await self._http.post(path, content=json.dumps(body), headers=headers, timeout=TIMEOUT_S)
            await self._running.freed()
            return response

        return self._run(ask())

    def stop(self) -> None:
        self._run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT_S)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()


@pytest.mark.parametrize("label", NUM_REAL_CASES)
def test_whatever_the_real_service_is_asked_it_makes_no_error_and_holds_nothing(label: str, server: Server) -> None:
    statuses: Counter[int] = Counter()

    @_cases(NUM_REAL_CASES[label])
    @given(
        case=OPERATIONS[label].as_strategy(generation_mode=GenerationMode.POSITIVE),
        extremes=st.lists(st.sampled_from(sorted(EXTREMES)), max_size=2),
        seed=st.integers(0, 2**32),
    )
    def ask(case: Case, extremes: list[str], seed: int) -> None:
        random = Random(seed)
        body = case.body if isinstance(case.body, dict) else {}
        _simplify(body, random, server.model)
        body |= {name: random.choice(EXTREMES[name]) for name in extremes}
        response = server.post(case.path, body)
        statuses[response.status_code] += 1
        assert response.status_code < 500 and "internal_error" not in response.text, (body, response.text)

    ask()
    assert statuses[200] >= statuses.total() / 5, statuses


@pytest.mark.parametrize("field", EXTREMES)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_extreme_value_is_a_server_error(server: Server, field: str, temperature: float) -> None:
    for value in EXTREMES[field]:
        body = {"model": server.model, "prompt": "Das Haus", "temperature": temperature} | {field: value}
        response = server.post("/v1/completions", body)
        assert response.status_code in (200, 400), (body, response.text)
        if response.status_code == 400:
            assert response.json()["error"]["param"] in (field, None)


def _simplify(body: dict[str, Any], random: Random, model: str) -> None:
    """Most requests would end at their model's name, or at one of dozens of fields; let them get further."""
    if "model" in body:
        body["model"] = model
    optional = sorted(set(body) - {"model", "prompt", "messages"})
    for name in random.sample(optional, max(0, len(optional) - random.randrange(4))):
        del body[name]


def _check(status: int, text: str) -> None:
    assert status < 500, text
    assert (status == 200) == (not text.startswith('{"error":')), text
    assert SERVICE.open == 0, "a generation goes on"
    assert all(generation.ag_frame is None for generation in SERVICE.generations), "a generation was not closed"
    SERVICE.generations.clear()


def test_the_check_fails_on_a_server_error_and_on_a_generation_that_goes_on() -> None:
    with pytest.raises(AssertionError, match="oops"):
        _check(500, '{"error": "oops"}')
    left: Any = SERVICE.generate(None)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="not closed"):
        _check(200, "")
    SERVICE.generations.clear()
    del left
