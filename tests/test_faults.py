"""Real replicas killed, hung, replaced and overrun while texts are being written: design §5, row by row.

One deployment for all tests: two verifiers, a drafter each for `de` and `fr` and one for `ru` that does not fit.
A text is 600 tokens long, so that whatever is done after its first chunks is done midway.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import tiny
import tiny_tokenizer
import torch
from openai import APIError, AsyncOpenAI
from ray import serve as ray_serve
from ray.util import list_named_actors
from transformers import LlamaConfig, LlamaForCausalLM

from cluster.bench import faults
from cluster.bench.http_load import Endpoint, LoadGenerator, Question, Reply
from cluster.bench.replicas import SERVE_NAMESPACE, Replicas, kill
from cluster.config import Config
from cluster.deployment import deploy, deploy_drafter, usable_drafters
from common.models import fingerprint, load_config, load_tokenizer
from common.registry import Registry
from common.settings import convert
from serve.app import drafter_app_name
from serve.handles import DRAFTER, MAIN_APP, VERIFIER
from serve.settings import ReplicaSettings

PORT = 18321
URL = f"http://127.0.0.1:{PORT}"
CAPACITY = 8
"""Texts in progress at one model replica, and as many queued."""
TOKENS = 600
Act = Callable[[], Awaitable[None]]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target that never ends a text by itself; `de` has two versions, `ru` has another tokenizer."""
    folder = tmp_path_factory.mktemp("faults")
    tokenizer, foreign = tiny_tokenizer.byte_level(), tiny_tokenizer.byte_level(vocab_size=380)
    target = build_target()
    save(target, tokenizer, folder / "target")
    registry = Registry(folder / "registry")
    for language, tok in (("de", tokenizer), ("de", tokenizer), ("fr", tokenizer), ("ru", foreign)):
        save(first_layer(target), tok, folder / language)
        publish(registry, language, folder / language)
    registry.promote("de", "v0001")
    return folder


def build_target() -> LlamaForCausalLM:
    """All layers but the first pass on what they get, almost: the first alone drafts well at an eighth of the cost."""
    torch.manual_seed(0)
    changes = {"vocab_size": 400, "eos_token_id": 1, "max_position_embeddings": 2048, "num_hidden_layers": 8}
    target = LlamaForCausalLM(LlamaConfig(**tiny.SHAPES["llama"].to_dict() | changes))
    with torch.no_grad():
        target.lm_head.weight[1] = 0  # the end's logit is 0: never among the top 20 of 400
        for layer in target.model.layers[1:]:
            layer.self_attn.o_proj.weight *= 0.1
            layer.mlp.down_proj.weight *= 0.1
    return target


def first_layer(target: LlamaForCausalLM) -> LlamaForCausalLM:
    made = LlamaForCausalLM(LlamaConfig(**target.config.to_dict() | {"num_hidden_layers": 1}))
    made.load_state_dict(target.state_dict(), strict=False)
    return made


def save(model: LlamaForCausalLM, tokenizer: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def publish(registry: Registry, language: str, folder: Path) -> None:
    fits = fingerprint(load_tokenizer(folder), load_config(folder))
    made = registry.publish(language, folder, target="tiny", fingerprint=fits, metrics={}, provenance={})
    registry.promote(language, made.version)


def config() -> Config:
    loop = {"steps": 1, "rows_per_step": 1, "learning_rate": 1.0}
    shape = {"hidden_size": 8, "num_layers": 1, "num_heads": 1, "intermediate_size": 8}
    replica = {"num_cpus": 0.1, "dtype": "float64", "kv_tokens": 8192, "max_sessions": CAPACITY}
    train = {
        "corpus": {"train": ["none"]},
        "prompt": "{source}",
        "drafter": shape,
        "pretrain": loop,
        "finetune": loop,
        "distill": {"prompts": 1},
        "evaluate": {"prompts": 1},
    }
    serve = {
        "model_name": "tiny",
        "port": PORT,
        "router_cpus": 0.1,
        "draft_deadline_s": 0.5,
        "promotion_poll_s": 0.5,
        "deployments_poll_s": 1.0,
        "speculation": {"draft_length": 4},
        "verifier": replica | {"num_replicas": 2},
        "drafter": replica,
    }
    return convert({"languages": ["de", "fr", "ru"], "train": train, "serve": serve}, Config, where="test")


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One completion; its text is the same every time."""

    language: str
    seed: int
    max_tokens: int
    prompt: str = "Das Haus ist klein."
    temperature: float = 1.0
    top_k: int = 20


class Server:
    """The deployment that all tests share."""

    def __init__(self, workspace: Path) -> None:
        self.target = workspace / "target"
        self.registry = str(workspace / "registry")
        self.cache = workspace / "cache"
        self.plain: dict[Asked, str] = {}
        languages = ("de", "fr", "ru")  # the last does not fit: the router has to find out
        deploy(config(), self.target, self.registry, self.cache, languages)
        self.verifier = Replicas(MAIN_APP, VERIFIER)
        self.drafters = {name: Replicas(drafter_app_name(name), DRAFTER) for name in ("de", "fr")}

    @property
    def models(self) -> list[Replicas]:
        return [self.verifier, *self.drafters.values()]


@pytest.fixture(scope="module")
def server(ray_cluster: None, workspace: Path) -> Iterator[Server]:
    yield Server(workspace)
    ray_serve.shutdown()


@pytest.fixture
async def openai() -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{URL}/v1", api_key="none", timeout=100, max_retries=0) as client:
        yield client


def asked(language: str = "de", seed: int = 1, max_tokens: int = TOKENS) -> Asked:
    return Asked(language=language, seed=seed, max_tokens=max_tokens)


async def write(
    openai: AsyncOpenAI, request: Asked, midway: Act | None = None, speculation: str = "auto"
) -> tuple[str, dict[str, Any]]:
    """The text and what speculation did; `midway` runs after the fifth chunk, while the text goes on."""
    pieces: list[str] = []
    block: dict[str, Any] | None = None
    chunks = await openai.completions.create(
        model="tiny",
        prompt=request.prompt,
        seed=request.seed,
        temperature=request.temperature,
        max_tokens=request.max_tokens,
        stream=True,
        extra_body={"language": request.language, "top_k": request.top_k, "speculation": speculation},
    )
    async for chunk in chunks:
        pieces += [choice.text for choice in chunk.choices]
        block = getattr(chunk, "polydraft", None) or block
        if midway is not None and len(pieces) == 5:
            await midway()
    assert block is not None, "the stream ended before the text"
    return "".join(pieces), block


async def expected(openai: AsyncOpenAI, server: Server, request: Asked) -> str:
    """The text that the target alone writes."""
    if request not in server.plain:
        server.plain[request], block = await write(openai, request, speculation="off")
        assert not block["drafter"]
    return server.plain[request]


async def at_work(openai: AsyncOpenAI, drafter: str, within_s: float = 100) -> None:
    """Returns once a text is drafted by a drafter whose name begins so."""
    async with asyncio.timeout(within_s):
        while not drafted_by((await write(openai, asked(drafter[:2], max_tokens=40)))[1], drafter):
            pass


def drafted_by(block: dict[str, Any], drafter: str) -> bool:
    return (block["drafter"] or "").startswith(drafter)


async def freed(*deployments: Replicas, within_s: float = 10) -> None:
    """Returns once no session and no lease is held there."""
    async with asyncio.timeout(within_s):
        while any([await deployment.held() for deployment in deployments]):
            pass


async def in_progress(*deployments: Replicas, within_s: float = 10) -> None:
    """Returns once texts are in progress at each."""
    async with asyncio.timeout(within_s):
        while not all([await deployment.held() for deployment in deployments]):
            pass


async def kill_all(*deployments: Replicas) -> None:
    """All their replicas at once, once texts are in progress there."""
    await in_progress(*deployments)
    statuses = [status for deployment in deployments for status in await deployment.status()]
    await asyncio.gather(*(asyncio.to_thread(kill, status.actor) for status in statuses))


async def kill_busy(deployment: Replicas) -> None:
    """The one replica that has a text in progress."""
    (busy,) = [status for status in await deployment.status() if status.held]
    await asyncio.to_thread(kill, busy.actor)


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

    async def hang() -> None:
        await in_progress(server.drafters["de"])
        os.kill(drafter.process, signal.SIGSTOP)

    try:
        disturbed, _ = await write(openai, asked(), hang)
        unhelped, block = await write(openai, asked(max_tokens=40))
        assert not drafted_by(block, "de")
    finally:
        os.kill(drafter.process, signal.SIGCONT)
    assert disturbed == text and text.startswith(unhelped.rstrip("\ufffd"))
    await at_work(openai, "de")
    await freed(*server.models)


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


def test_bench_faults_kills_verifier_and_drafters_in_turns() -> None:
    turns = faults.victims(["verifier", "de", "fr"])  # type: ignore[list-item]
    assert [next(turns) for _ in range(6)] == ["verifier", "de", "verifier", "fr", "verifier", "de"]


def test_bench_faults_serves_two_exact_verifiers() -> None:
    single = msgspec.structs.replace(config().serve, verifier=ReplicaSettings())
    changed = faults.with_two_verifiers(msgspec.structs.replace(config(), serve=single)).serve.verifier
    assert (changed.num_replicas, changed.dtype) == (2, "float64")
