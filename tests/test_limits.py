"""What each caller may ask for: requests a minute, requests in progress, tokens."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fake_service import FakeService
from fastapi import FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st
from protected import OPEN, PROMPT, Clock, client, error_of, with_keys

from serve.errors import ServiceOverloaded
from serve.http.api import build_api
from serve.http.limits import Limits, Places, Quota, Share, TokenBucket, share_of
from serve.http.protection import ProtectionSettings, protect


async def test_an_open_server_can_limit_all_callers_together() -> None:
    clock = Clock()
    async with client(ProtectionSettings(limits=Limits(requests_per_minute=2)), clock=clock) as http:
        statuses = [(await http.get("/v1/models")).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert (await http.get("/healthz")).status_code == 200


async def test_a_key_over_its_rate_is_told_when_to_come_back_and_others_are_not_affected() -> None:
    clock = Clock()
    async with client(with_keys(Limits(requests_per_minute=6), None), key="key 0", clock=clock) as http:
        assert {(await http.get("/v1/models")).status_code for _ in range(6)} == {200}
        clock.now += 2.5
        refused = await http.get("/v1/models")
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "8"
        assert "requests_per_minute" in error_of(refused)["message"]
        assert error_of(refused)["code"] == "rate_limit_exceeded"
        other = await http.get("/v1/models", headers={"Authorization": "Bearer key 1"})
        assert other.status_code == 200
        clock.now += 8
        assert (await http.get("/v1/models")).status_code == 200


async def test_a_key_without_limits_of_its_own_has_the_default_ones_to_itself() -> None:
    settings = with_keys(None, None, Limits(), limits=Limits(requests_per_minute=1))
    async with client(settings) as http:
        for key, statuses in {"key 0": [200, 429], "key 1": [200, 429], "key 2": [200, 200]}.items():
            headers = {"Authorization": f"Bearer {key}"}
            assert [(await http.get("/v1/models", headers=headers)).status_code for _ in range(2)] == statuses


@pytest.mark.parametrize("stream", [False, True])
async def test_requests_in_progress_are_limited_until_their_answers_end(stream: bool) -> None:
    service = FakeService()
    service.hold = asyncio.Event()
    async with client(with_keys(Limits(concurrent_requests=1)), service, key="key 0") as http:
        first = asyncio.create_task(http.post("/v1/completions", json=PROMPT | {"stream": stream}))
        await service.started.wait()
        refused = await http.post("/v1/completions", json=PROMPT)
        assert refused.status_code == 429
        assert "concurrent_requests" in error_of(refused)["message"]
        assert int(refused.headers["Retry-After"]) >= 1
        service.hold.set()
        assert (await first).status_code == 200
        assert (await http.post("/v1/completions", json=PROMPT)).status_code == 200


async def test_a_request_that_fails_or_is_cancelled_gives_its_place_back() -> None:
    service = FakeService()
    async with client(with_keys(Limits(concurrent_requests=1)), service, key="key 0") as http:
        service.error = ZeroDivisionError("a bug")
        for _ in range(3):
            assert (await http.post("/v1/completions", json=PROMPT)).status_code == 500
        service.error, service.hold = None, asyncio.Event()
        task = asyncio.create_task(http.post("/v1/completions", json=PROMPT))
        await service.started.wait()
        task.cancel()
        await asyncio.wait([task])
        service.hold.set()
        assert (await http.post("/v1/completions", json=PROMPT)).status_code == 200


async def test_a_refused_request_is_not_counted() -> None:
    quota = Quota(Limits(concurrent_requests=1, requests_per_minute=2), Clock())
    share = Share(quota, Places(None, ""))
    share.begin()
    for _ in range(5):
        with pytest.raises(ServiceOverloaded, match="concurrent_requests"):
            Share(quota, Places(None, "")).begin()
    share.end()
    Share(quota, Places(None, "")).begin()


@pytest.mark.parametrize(
    ("limits", "name"),
    [(Limits(concurrent_requests=4), "concurrent_requests"), (Limits(requests_per_minute=4), "requests_per_minute")],
)
async def test_a_request_counts_for_each_of_its_texts(limits: Limits, name: str) -> None:
    service = FakeService()
    service.hold = asyncio.Event()
    async with client(with_keys(limits), service, key="key 0") as http:
        three = asyncio.create_task(http.post("/v1/completions", json=PROMPT | {"n": 3}))
        await service.started.wait()
        for fields in ({"n": 2}, {"prompt": ["one", "two"]}):
            refused = await http.post("/v1/completions", json=PROMPT | fields)
            assert refused.status_code == 429 and name in error_of(refused)["message"]
        assert len(service.requests) == 3, "and nothing was done for those"
        service.hold.set()
        assert (await three).status_code == 200
        if limits.concurrent_requests:
            assert (await http.post("/v1/completions", json=PROMPT | {"n": 4})).status_code == 200
            assert (await http.post("/v1/completions", json=PROMPT | {"n": 4})).status_code == 200


async def test_what_could_never_be_had_is_no_reason_to_come_back() -> None:
    for limits in (Limits(concurrent_requests=2), Limits(requests_per_minute=2)):
        async with client(with_keys(limits), key="key 0") as http:
            refused = await http.post("/v1/completions", json=PROMPT | {"n": 128})
        assert (refused.status_code, error_of(refused)["param"]) == (400, "n")


async def test_a_full_server_refuses_before_it_reads_the_prompt() -> None:
    service = FakeService()
    service.hold = asyncio.Event()
    app = protect(build_api(service), OPEN, max_texts=3)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        two = asyncio.create_task(http.post("/v1/completions", json=PROMPT | {"n": 2}))
        await service.started.wait()
        identified = len(service.identified)
        refused = await http.post("/v1/completions", json=PROMPT | {"n": 2})
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert len(service.identified) == identified
        assert (await http.get("/v1/models")).status_code == 200
        service.hold.set()
        assert (await two).status_code == 200
        service.hold = None
        service.error = ZeroDivisionError("a bug")
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await http.post("/v1/completions", json=PROMPT | {"n": 3})
        service.error = None
        assert (await http.post("/v1/completions", json=PROMPT | {"n": 3})).status_code == 200


@given(steps=st.lists(st.floats(0, 100), max_size=60), rate=st.integers(1, 600))
def test_no_window_admits_more_than_the_burst_and_the_rate(steps: list[float], rate: int) -> None:
    clock = Clock()
    bucket, admitted = TokenBucket(rate, clock), []
    for step in steps:
        clock.now += step
        wait = bucket.take()
        if not wait:
            admitted.append(clock.now)
            continue
        clock.now += wait + 1e-6
        assert bucket.take() == 0.0  # what was told holds
        admitted.append(clock.now)
    for i, start in enumerate(admitted):
        for j, end in enumerate(admitted[i:], start=1):
            assert j <= rate + (end - start) * rate / 60 + 1e-6


async def test_the_token_limit_of_the_caller_reaches_the_application() -> None:
    app = FastAPI()

    @app.get("/limit")
    async def limit(request: Request) -> int | None:
        return share_of(request).allowed_tokens

    for settings, expected in ((with_keys(Limits(max_tokens=7)), 7), (with_keys(None), None), (OPEN, None)):
        transport = httpx.ASGITransport(protect(app, settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            assert (await http.get("/limit", headers={"Authorization": "Bearer key 0"})).json() == expected
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert (await http.get("/limit")).json() is None
