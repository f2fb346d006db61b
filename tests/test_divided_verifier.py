"""A verifier divided among two processes, served: the texts of an undivided one, also when a rank dies midway."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import ray
from fault_server import Asked, Server, asked, client, freed, serving, write
from ray.util import list_named_actors

from common.engine.decoding import build_decoder
from common.models import load_model, load_tokenizer
from common.types import GenerationRequest, SamplingParams
from serve.http.text import TextCodec

LONG = asked()
REQUESTS = [
    *(asked(seed=seed, max_tokens=40) for seed in range(3)),
    Asked(language="fr", seed=4, max_tokens=40, temperature=0.0),
    LONG,
]


@pytest.fixture(scope="module")
def server(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    verifier = {"num_cpus": 0.1, "dtype": "float64", "kv_tokens": 8192, "tensor_parallel": 2}
    with serving(tmp_path_factory.mktemp("divided"), verifier=verifier) as made:
        yield made


def undivided(target: Path) -> list[str]:
    """What the target writes in one process, without drafts."""
    codec = TextCodec(load_tokenizer(target))
    requests = [
        GenerationRequest(
            prompt=codec.encode(each.prompt),
            max_tokens=each.max_tokens,
            sampling=SamplingParams(temperature=each.temperature, top_k=each.top_k, seed=each.seed),
        )
        for each in REQUESTS
    ]
    decoder = build_decoder(load_model(target, dtype="float64"), max_length=1024, concurrency=len(REQUESTS))
    return [as_text(codec, r, g.output) for r, g in zip(requests, decoder.generate(requests), strict=True)]


def as_text(codec: TextCodec, request: GenerationRequest, output: Sequence[int]) -> str:
    text = codec.detokenizer(prompt=request.prompt)
    return "".join([*map(text.push, output), text.finish()])


def ranks_of(replica: str) -> list[ray.actor.ActorHandle]:
    named = [each for each in list_named_actors(all_namespaces=True) if each["name"].endswith(f"of {replica}")]
    return [ray.get_actor(**each) for each in named]


async def test_it_writes_the_texts_of_an_undivided_one_and_is_replaced_when_a_rank_dies(server: Server) -> None:
    texts = undivided(server.target)
    async with client() as openai:
        ways = zip(REQUESTS, ("auto", "off", "auto", "off", "auto"), strict=True)
        written = await asyncio.gather(*(write(openai, each, speculation=way) for each, way in ways))
        assert [text for text, _ in written] == texts
        assert written[-1][1]["mean_acceptance_length"] > 1
        [before] = await server.verifier.status()
        [rank] = ranks_of(before.actor)

        async def kill_rank() -> None:
            ray.kill(rank)

        disturbed, _ = await write(openai, LONG, kill_rank)
        assert disturbed == texts[-1]
        [after] = await server.verifier.status()
        assert after.process != before.process and len(ranks_of(after.actor)) == 1
        await freed(*server.models)
