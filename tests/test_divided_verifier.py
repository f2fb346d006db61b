"""A verifier divided among two processes, served: the texts of an undivided one, also when a rank dies midway."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_server import Asked, Server, asked, build, client, config, drafted_by, expected, freed, write
from openai import AsyncOpenAI
from ray import serve as ray_serve
from ray.util import list_named_actors

from cluster.bench.replicas import kill

REQUESTS = [asked(seed=seed, max_tokens=40) for seed in range(3)] + [
    Asked(language="fr", seed=4, max_tokens=40, temperature=0.0)
]


def served(workspace: Path, ranks: int) -> Server:
    """Deployed anew, or instead of what is deployed."""
    verifier = {"num_cpus": 0.1, "dtype": "float64", "kv_tokens": 8192, "tensor_parallel": ranks}
    return Server(workspace, config(verifier=verifier))


async def write_all(openai: AsyncOpenAI) -> list[str]:
    """At the same time, half of them without drafts."""
    ways = ("auto", "off")
    writing = [write(openai, request, speculation=ways[n % 2]) for n, request in enumerate(REQUESTS)]
    return [text for text, _ in await asyncio.gather(*writing)]


@pytest.fixture(scope="module")
def workspace(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("divided")
    build(folder)
    yield folder
    ray_serve.shutdown()


def rank_actor(replica: str) -> str:
    [name] = [each["name"] for each in list_named_actors(all_namespaces=True) if each["name"].endswith(replica)]
    return name


async def test_it_writes_the_texts_of_an_undivided_one_and_is_replaced_when_a_rank_dies(workspace: Path) -> None:
    async with client() as openai:
        undivided = served(workspace, ranks=1)
        texts, long = await write_all(openai), await expected(openai, undivided, asked())
        divided = served(workspace, ranks=2)
        assert await write_all(openai) == texts

        [before] = await divided.verifier.status()

        async def kill_rank() -> None:
            await asyncio.to_thread(kill, rank_actor(f"of {before.actor}"))

        disturbed, block = await write(openai, asked(), kill_rank)
        assert disturbed == long and drafted_by(block, "de")
        [after] = await divided.verifier.status()
        assert after.process != before.process
        assert rank_actor(f"of {after.actor}")
        await freed(*divided.models)
