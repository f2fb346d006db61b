"""Real replicas killed, hung, replaced and overrun while texts are being written: design §5, row by row.

One deployment for all tests.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import httpx
import msgspec
import pytest
from fault_server import (
    CAPACITY,
    URL,
    Server,
    asked,
    at_work,
    client,
    config,
    drafted_by,
    expected,
    freed,
    in_progress,
    serving,
    write,
)
from openai import APIError, AsyncOpenAI
from ray import serve as ray_serve
from ray.util import list_named_actors

from cluster.bench import faults
from cluster.bench.http_load import Endpoint, LoadGenerator, Question, Reply
from cluster.bench.replicas import SERVE_NAMESPACE, Replicas, kill
from cluster.deployment import deploy_drafter, usable_drafters
from common.models import fingerprint, load_config, load_tokenizer
from common.registry import Registry
from serve.app import drafter_app_name
from serve.handles import MAIN_APP
from serve.model_replica import ReplicaStatus
from serve.settings import ReplicaSettings


@pytest.fixture(scope="module")
def server(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.fixture
async def openai() -> AsyncIterator[AsyncOpenAI]:
    async with client() as made:
        yield made


async def kill_all(*deployments: Replicas) -> None:
    """All their replicas at once, once texts are in progress there."""
    await in_progress(*deployments)
    statuses = [status for deployment in deployments for status in await deployment.status()]
    await asyncio.gather(*(asyncio.to_thread(kill, status.actor) for status in statuses))


async def kill_busy(deployment: Replicas) -> None:
    """The one replica that has a text in progress."""
    (busy,) = [status for status in await deployment.status() if status.held]
    await asyncio.to_thread(kill, busy.actor)


@contextmanager
def stopped(process: int) -> Iterator[None]:
    """It lives, and does nothing."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


async def test_a_drafter_that_does_not_fit_is_refused_and_its_language_is_served(
    server: Server, openai: AsyncOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    assert "ru" not in usable_drafters(config(), server.target, server.registry)
    wanted = fingerprint(load_tokenizer(server.target), load_config(server.target))
    refused = Registry(server.registry).manifest("ru", "v0001").fingerprint
    assert wanted.tokens[:12] in caplog.text and refused.tokens[:12] in caplog.text
    request = asked("ru", max_tokens=60)
    text, block = await write(openai, request)  # its application runs all the same: the router refuses it
    assert text == await expected(openai, server, request) and not drafted_by(block, "ru")


async def test_too_many_requests_are_refused_at_once_and_those_accepted_are_answered(
    server: Server, openai: AsyncOpenAI
) -> None:
    await at_work(openai, "de")
    request = asked(max_tokens=40)
    body = {"model": "tiny", "prompt": request.prompt, "seed": request.seed, "max_tokens": request.max_tokens}
    body |= {"temperature": request.temperature, "top_k": request.top_k, "language": "de"}
    async with httpx.AsyncClient(timeout=60) as http:
        answers = await asyncio.gather(*(http.post(f"{URL}/v1/completions", json=body) for _ in range(8 * CAPACITY)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.status_code for answer in answers} == {200, 429}, {
        answer.text for answer in answers if answer.status_code not in (200, 429)
    }
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert {answer.json()["error"]["type"] for answer in refused} == {"rate_limit_error"}
    text = await expected(openai, server, request)
    assert {answer.json()["choices"][0]["text"] for answer in answers if answer.status_code == 200} == {text}
    await freed(*server.models)


async def test_a_client_that_goes_away_frees_both_slots(server: Server, openai: AsyncOpenAI) -> None:
    async def hang_up() -> None:
        await in_progress(server.verifier, server.drafters["de"])
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        await write(openai, asked(), hang_up)
    await openai.close()
    await freed(*server.models)


async def test_a_drafter_that_hangs_costs_its_deadline_and_not_the_text(server: Server, openai: AsyncOpenAI) -> None:
    text = await expected(openai, server, asked())
    (drafter,) = await server.drafters["de"].status()

    with ExitStack() as hanging:

        async def hang() -> None:
            await in_progress(server.drafters["de"])
            hanging.enter_context(stopped(drafter.process))

        disturbed, _ = await write(openai, asked(), hang)
        unhelped, block = await write(openai, asked(max_tokens=40))
        assert not drafted_by(block, "de")
    assert disturbed == text and text.startswith(unhelped.rstrip("\ufffd"))
    await at_work(openai, "de")
    await freed(*server.models)


async def test_a_verifier_that_hangs_is_replaced_by_the_other_and_the_text_is_unchanged(
    server: Server, openai: AsyncOpenAI
) -> None:
    short = [asked(seed=seed, max_tokens=40) for seed in range(4)]
    text = await expected(openai, server, asked())
    texts = [await expected(openai, server, request) for request in short]
    before = {status.process for status in await server.verifier.status()}
    with ExitStack() as hanging:

        async def hang() -> None:
            (busy,) = [status for status in await server.verifier.status() if status.held]
            hanging.enter_context(stopped(busy.process))

        disturbed, block = await write(openai, asked(), hang)
        begun_meanwhile = await asyncio.gather(*(write(openai, request) for request in short))
    assert disturbed == text and drafted_by(block, "de")
    assert [written for written, _ in begun_meanwhile] == texts
    await freed(*server.models)
    assert {status.process for status in await server.verifier.status()} == before, "it was Serve that noticed"


async def test_drafters_killed_at_once_cost_rounds_but_not_the_texts_and_return(
    server: Server, openai: AsyncOpenAI
) -> None:
    await at_work(openai, "fr")
    texts = [await expected(openai, server, asked(language)) for language in ("de", "fr")]

    async def kill_both() -> None:
        await kill_all(*server.drafters.values())

    (german, _), (french, _) = await asyncio.gather(write(openai, asked("de"), kill_both), write(openai, asked("fr")))
    assert [german, french] == texts
    await at_work(openai, "de")
    await at_work(openai, "fr")


async def test_a_killed_verifier_is_replaced_by_the_other_and_the_text_is_unchanged(
    server: Server, openai: AsyncOpenAI
) -> None:
    text = await expected(openai, server, asked())
    disturbed, block = await write(openai, asked(), lambda: kill_busy(server.verifier))
    assert disturbed == text and drafted_by(block, "de")


async def test_with_every_verifier_killed_the_text_waits_for_the_next_one(server: Server, openai: AsyncOpenAI) -> None:
    text = await expected(openai, server, asked())
    disturbed, _ = await write(openai, asked(), lambda: kill_all(server.verifier))
    assert disturbed == text
    await freed(*server.models)


async def test_a_killed_router_breaks_its_connections_and_a_repeat_with_the_seed_gives_the_text(
    server: Server, openai: AsyncOpenAI
) -> None:
    text = await expected(openai, server, asked())
    (router,) = [
        actor["name"]
        for actor in list_named_actors(all_namespaces=True)
        if actor["namespace"] == SERVE_NAMESPACE and f"{MAIN_APP}#Router#" in actor["name"]
    ]
    with pytest.raises((APIError, httpx.HTTPError, AssertionError)):
        await write(openai, asked(), lambda: asyncio.to_thread(kill, router))
    await freed(*server.models)
    async with asyncio.timeout(60):
        while await answers_with_error(openai):
            pass
    assert (await write(openai, asked()))[0] == text


async def answers_with_error(openai: AsyncOpenAI) -> bool:
    try:
        await openai.models.list()
    except APIError:
        return True
    return False


async def test_promoting_redeploying_and_deleting_a_drafter_under_load_loses_nothing_and_restarts_nothing_else(
    server: Server, openai: AsyncOpenAI
) -> None:
    await at_work(openai, "de")
    requests = [asked(seed=seed, max_tokens=200) for seed in (1, 2)]
    texts = [await expected(openai, server, request) for request in requests]
    others = [server.verifier, server.drafters["fr"]]
    before = [{status.process for status in await deployment.status()} for deployment in others]

    async def promote() -> None:
        Registry(server.registry).promote("de", "v0002")
        await at_work(openai, "de/v0002")

    async def redeploy() -> None:
        await asyncio.to_thread(deploy_drafter, config(), server.target, server.registry, server.cache, "de")

    async def delete() -> None:
        await asyncio.to_thread(ray_serve.delete, drafter_app_name("de"))

    for change in (promote, redeploy, delete):
        changing = asyncio.create_task(change())
        while not changing.done():
            written = await asyncio.gather(*(write(openai, request) for request in requests))
            assert [text for text, _ in written] == texts
        await changing
    assert (await write(openai, requests[0]))[0] == texts[0]
    assert before == [{status.process for status in await deployment.status()} for deployment in others]


async def test_bench_faults_finds_every_text_equal_and_nothing_leaked(server: Server) -> None:
    questions = [
        Question(prompt="Bonjour", language="fr", temperature=0.7, seed=seed, max_tokens=80) for seed in range(6)
    ]
    endpoint = Endpoint(url=f"{URL}/v1", model="tiny")
    deployments = [server.verifier, server.drafters["fr"]]
    with LoadGenerator() as load:
        kills, figures = await faults.measure(load, endpoint, questions, deployments, kills=2, streams=4)
    assert [kill.victim for kill in kills] == ["polydraft/Verifier", "drafter-fr/Drafter"]
    assert all(kill.held for kill in kills)
    assert (figures.kills, figures.failed, figures.unequal, figures.leaked) == (2, 0, 0, 0)
    assert figures.texts >= 6 and figures.longest_pause_s > 0


def test_bench_faults_tells_failed_from_unequal_and_finds_the_longest_pause() -> None:
    a, b, broken = (Reply(started_s=0, ended_s=1, text=text) for text in "ab-")
    broken.error = "broke"
    slow = Reply(started_s=5, piece_times_s=[5.5, 8.5], ended_s=9, text="a")
    figures = faults.compare([a, b, broken], [b, b, a, slow, broken], kills=4, leaked=1)
    assert (figures.kills, figures.failed, figures.unequal, figures.leaked, figures.texts) == (4, 2, 1, 1, 5)
    assert (figures.longest_pause_s, figures.undisturbed_longest_pause_s) == (3.0, 1.0)


@pytest.mark.parametrize(("answering", "held", "told"), [(2, 0, 0), (2, 3, 6), (1, 0, None), (0, 0, None)])
async def test_bench_faults_does_not_take_silence_for_nothing_held(
    answering: int, held: int, told: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "FREED_S", 0.0)

    class Silent:
        name = "polydraft/Verifier"

        async def status(self) -> list[ReplicaStatus]:
            return [ReplicaStatus(actor="", process=1, node="", leases=held, sessions=0)] * answering

    expected = pytest.raises(TimeoutError, match="polydraft/Verifier") if told is None else nullcontext()
    with expected:
        assert await faults.held_for_nothing({Silent(): 2}) == told  # type: ignore[dict-item]


def test_bench_faults_kills_verifier_and_drafters_in_turns() -> None:
    turns = faults.victims(["verifier", "de", "fr"])  # type: ignore[list-item]
    assert [next(turns) for _ in range(6)] == ["verifier", "de", "verifier", "fr", "verifier", "de"]


def test_bench_faults_serves_two_exact_verifiers() -> None:
    single = msgspec.structs.replace(config().serve, verifier=ReplicaSettings())
    changed = faults.with_two_verifiers(msgspec.structs.replace(config(), serve=single)).serve.verifier
    assert (changed.num_replicas, changed.dtype) == (2, "float64")
