"""A real verifier replica that is stopped (SIGSTOP) in the middle of a text: it lives, and does nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from fault_server import Server, asked, client, drafted_by, expected, freed, serving, write


@pytest.fixture(scope="module")
def server(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("hangs"), replica_silence_s=3.0) as made:
        yield made


@contextmanager
def stopped(process: int) -> Iterator[None]:
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


async def test_a_verifier_that_hangs_is_replaced_by_the_other_and_the_text_is_unchanged(server: Server) -> None:
    short = [asked(seed=seed, max_tokens=40) for seed in range(4)]
    async with client() as openai:
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
