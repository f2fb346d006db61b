"""A tiny verifier behind a real stream, and texts decoded with it, verdict by verdict."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import cache

import tiny

from common.engine import reference
from common.engine.engine import Engine
from common.messages import Open, Verdict, Verify
from common.models import Fingerprint
from common.types import TokenIds
from serve.stream.replica import LeaseGrant, Replica
from serve.stream.streams import StreamPool

FINGERPRINT = Fingerprint(tokens="", special_tokens={}, vocab_size=tiny.VOCABULARY, context_length=256)
REQUEST = tiny.requests(1, temperature=1.0, max_tokens=8)[0]


@cache
def expected() -> TokenIds:
    return reference.generate_plain(reference.logits_of(tiny.model()), REQUEST)


@asynccontextmanager
async def replica(engine: Engine | None = None, tls: ssl.SSLContext | None = None) -> AsyncIterator[Replica]:
    made = Replica(lambda: engine or tiny.verifier(tiny.model()), name="v", fingerprint=FINGERPRINT, tls=tls)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def freed(*replicas: Replica) -> None:
    """Returns once no lease is held there."""
    async with asyncio.timeout(5):
        while any(each.num_leases for each in replicas):
            await asyncio.sleep(0)


def leases(verifier: Replica) -> AsyncGenerator[LeaseGrant]:
    return verifier.lease()  # type: ignore[return-value]


def opening(session: int, token: str, tokens: TokenIds = REQUEST.prompt) -> Open:
    return Open(
        session=session,
        token=token,
        committed=tokens,
        prompt_length=len(REQUEST.prompt),
        max_length=REQUEST.max_length,
        sampling=REQUEST.sampling,
    )


async def write(verifier: Replica, pool: StreamPool) -> TokenIds:
    """The output for `REQUEST`. Raises what taking the channel or asking raises."""
    tokens = list(REQUEST.prompt)
    async with aclosing(leases(verifier)) as grants:
        grant = await anext(grants)
        channel = await pool.channel(grant.address, grant.incarnation)
        channel.send(opening(channel.session, grant.token))
        while len(tokens) < REQUEST.max_length:
            verdict = await channel.ask(Verify(session=channel.session, base=len(tokens)))
            assert isinstance(verdict, Verdict)
            tokens.append(verdict.next_token)
        pool.forget(channel)
    return tuple(tokens[len(REQUEST.prompt) :])
