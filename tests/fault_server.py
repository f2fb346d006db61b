"""A server with real replicas to be killed, hung, replaced and overrun, and the texts that it writes meanwhile.

A text is 600 tokens long, so that whatever is done after its first chunks is done midway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import tiny
import tiny_tokenizer
import torch
from openai import AsyncOpenAI
from ray import serve as ray_serve
from transformers import LlamaConfig, LlamaForCausalLM

from cluster.bench.replicas import Replicas
from cluster.config import Config
from cluster.deployment import deploy
from common.models import fingerprint, load_config, load_tokenizer
from common.registry import Registry
from common.settings import convert
from serve.app import drafter_app_name
from serve.handles import DRAFTER, MAIN_APP, VERIFIER

PORT = 18321
URL = f"http://127.0.0.1:{PORT}"
CAPACITY = 8
"""Texts in progress at one model replica, and as many queued."""
TOKENS = 600
Act = Callable[[], Awaitable[None]]


def build(folder: Path) -> None:
    """A target that never ends a text by itself; `de` has two versions, `ru` has another tokenizer."""
    tokenizer, foreign = tiny_tokenizer.byte_level(), tiny_tokenizer.byte_level(vocab_size=380)
    target = build_target()
    save(target, tokenizer, folder / "target")
    registry = Registry(folder / "registry")
    for language, tok in (("de", tokenizer), ("de", tokenizer), ("fr", tokenizer), ("ru", foreign)):
        save(first_layer(target), tok, folder / language)
        publish(registry, language, folder / language)
    registry.promote("de", "v0001")


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


def config(**settings: Any) -> Config:
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
        "replica_silence_s": 3.0,
        "promotion_poll_s": 0.5,
        "deployments_poll_s": 1.0,
        "speculation": {"draft_length": 4},
        "verifier": replica | {"num_replicas": 2},
        "drafter": replica,
        **settings,
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
    """One deployment: two verifiers, a drafter each for `de` and `fr` and one for `ru` that does not fit."""

    def __init__(self, workspace: Path, settings: Config) -> None:
        self.target = workspace / "target"
        self.registry = str(workspace / "registry")
        self.cache = workspace / "cache"
        self.plain: dict[Asked, str] = {}
        languages = ("de", "fr", "ru")  # the last does not fit: the router has to find out
        deploy(settings, self.target, self.registry, self.cache, languages)
        self.verifier = Replicas(MAIN_APP, VERIFIER)
        self.drafters = {name: Replicas(drafter_app_name(name), DRAFTER) for name in ("de", "fr")}

    @property
    def models(self) -> list[Replicas]:
        return [self.verifier, *self.drafters.values()]


@contextmanager
def serving(workspace: Path, **settings: Any) -> Iterator[Server]:
    """A server of its own, with these `serve` settings besides."""
    build(workspace)
    yield Server(workspace, config(**settings))
    ray_serve.shutdown()


def client() -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{URL}/v1", api_key="none", timeout=100, max_retries=0)


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


async def held(deployment: Replicas) -> int:
    """Texts in progress at the replicas that answer."""
    return sum(replica.held for replica in await deployment.status())


async def freed(*deployments: Replicas, within_s: float = 10) -> None:
    """Returns once no session and no lease is held there."""
    async with asyncio.timeout(within_s):
        while any([await held(deployment) for deployment in deployments]):
            pass


async def in_progress(*deployments: Replicas, within_s: float = 10) -> None:
    """Returns once texts are in progress at each."""
    async with asyncio.timeout(within_s):
        while not all([await held(deployment) for deployment in deployments]):
            pass
