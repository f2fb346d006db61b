"""A replica and those who talk to it without a right to, or without sense: it serves on, and keeps nothing of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from unittest.mock import Mock

import msgspec
import pytest
import remote
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from test_wire import hostile_bytes

from common.engine.engine import Engine
from common.messages import (
    Close,
    Draft,
    Hello,
    Open,
    Prefill,
    Prefilled,
    Propose,
    Question,
    Reply,
    Request,
    Score,
    Verdict,
    Verify,
)
from common.types import SamplingParams
from serve.errors import SessionRefused
from serve.stream.streams import Channel, StreamPool
from serve.stream.wire import Connection, FrameDecoder, ProtocolError, encode

_GREETING = encode(Hello())


def _is_refused(data: bytes) -> bool:
    """Whether a replica must close the stream on which this comes after the greeting."""
    try:
        messages = FrameDecoder().feed(data)
    except ProtocolError:
        return True
    return not all(isinstance(message, Open | Question | Close) for message in messages)


async def _send(address: str, data: bytes) -> None:
    """Connect, greet, send; wait for the end of the stream if it is to be closed, else leave."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(_GREETING + data)
    try:
        if _is_refused(data):
            async with asyncio.timeout(20):
                while await reader.read(2**16):
                    pass
    except ConnectionError:
        pass  # closed the hard way
    finally:
        writer.close()


@settings(max_examples=20, deadline=None)
@given(streams=st.lists(hostile_bytes(), min_size=1, max_size=10))
def test_garbage_ends_its_own_stream_only(streams: Sequence[bytes]) -> None:
    async def run() -> None:
        engine = tiny.verifier(tiny.model())
        async with remote.replica(engine) as verifier, aclosing(remote.leases(verifier)) as grants:
            address = (await anext(grants)).address
            pool = StreamPool()
            text, *_ = await asyncio.gather(remote.write(verifier, pool), *(_send(address, data) for data in streams))
            assert text == remote.expected() == await remote.write(verifier, pool)
            verifier.check_health()
            pool.close()
            await grants.aclose()
            while len(verifier._connections):
                await asyncio.sleep(0)
            assert verifier.num_leases == 0
        assert engine.num_sessions == 0
        engine.check_integrity()

    asyncio.run(run())


async def _refused(pool: StreamPool, address: str, incarnation: str, token: str) -> bool:
    channel = await pool.channel(address, incarnation)
    channel.send(remote.opening(channel.session, token))
    try:
        await channel.ask(_first(channel))
    except SessionRefused as error:
        assert "token" in str(error)
        return True
    return False


def _first(channel: Channel) -> Verify:
    return Verify(session=channel.session, base=len(remote.REQUEST.prompt))


async def test_a_token_opens_one_session_once_at_its_own_replica_while_its_lease_lasts() -> None:
    first_pool, second_pool = StreamPool(), StreamPool()
    async with remote.replica() as verifier, remote.replica() as other:
        async with aclosing(remote.leases(verifier)) as grants:
            grant = await anext(grants)
            place = grant.address, grant.incarnation
            async with aclosing(remote.leases(other)) as others:
                assert await _refused(first_pool, *place, token=(await anext(others)).token)
            assert await _refused(first_pool, *place, token="")
            assert not await _refused(first_pool, *place, token=grant.token)
            assert await _refused(first_pool, *place, token=grant.token)
            assert await _refused(second_pool, *place, token=grant.token)
            assert verifier.num_leases == 1
        assert await _refused(second_pool, *place, token=grant.token)
        assert verifier.num_leases == other.num_leases == 0
    first_pool.close()
    second_pool.close()


async def test_two_leases_cannot_share_a_session() -> None:
    engine, pool = tiny.verifier(tiny.model()), StreamPool()
    async with remote.replica(engine) as verifier:
        async with aclosing(remote.leases(verifier)) as first, aclosing(remote.leases(verifier)) as second:
            grant = await anext(first)
            channel = await pool.channel(grant.address, grant.incarnation)
            channel.send(remote.opening(channel.session, grant.token))
            channel.send(remote.opening(channel.session, (await anext(second)).token))
            with pytest.raises(SessionRefused, match="token"):
                await channel.ask(_first(channel))
        assert verifier.num_leases == 0
        assert await remote.write(verifier, pool) == remote.expected()
    assert engine.num_sessions == 0
    pool.close()


async def test_a_session_belongs_to_the_stream_that_opened_it() -> None:
    pool, stranger = StreamPool(), StreamPool()
    async with remote.replica() as verifier, aclosing(remote.leases(verifier)) as grants:
        grant = await anext(grants)
        channel = await pool.channel(grant.address, grant.incarnation)
        channel.send(remote.opening(channel.session, grant.token))
        foreign = await stranger.channel(grant.address, grant.incarnation)
        foreign.send(Close(session=channel.session))
        unanswered = asyncio.create_task(foreign.ask(_first(channel)))
        assert isinstance(await channel.ask(_first(channel)), Verdict)
        assert not unanswered.done()
        assert verifier.num_leases == 1
        stranger.close()
        await asyncio.wait([unanswered])
    pool.close()


_sessions = st.integers(1, 3)
_any = st.integers(0, 70) | st.integers(-(2**63), 2**64 - 1)
_few = st.lists(st.integers(0, 60), min_size=1, max_size=10).map(tuple)
_tokens = _few | st.lists(_any, max_size=10).map(tuple)
_DENORMAL = 5e-324
_sampling = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, _DENORMAL, 1e-308, 1e-30, 1.0, 100.0, 1, 100]) | st.floats(0, 100),
    top_k=st.integers(0, 50) | st.integers(0, 2**63),
    top_p=st.sampled_from([_DENORMAL, 1 - 2**-53, 1]) | st.floats(1e-9, 1),
    min_p=st.sampled_from([0, _DENORMAL, 1]) | st.floats(0, 1),
    presence_penalty=st.floats(-2, 2),
    frequency_penalty=st.floats(-2, 2),
    repetition_penalty=st.sampled_from([_DENORMAL, 1, 100]) | st.floats(1e-300, 100),
    logit_bias=st.lists(st.tuples(st.integers(0, 2**64 - 1), st.floats(-100, 100)), max_size=3).map(tuple),
    seed=st.integers(-(2**63), 2**63 - 1),
    logprobs=st.none() | st.integers(0, 20),
)


def _open(committed: st.SearchStrategy[tuple[int, ...]], length: st.SearchStrategy[int]) -> st.SearchStrategy[Open]:
    return st.builds(
        Open,
        session=_sessions,
        token=st.just(""),
        committed=committed,
        prompt_length=st.just(1) | length,
        max_length=length,
        sampling=_sampling,
    )


_base = st.integers(0, 25) | _any
_requests: st.SearchStrategy[Request] = st.one_of(
    _open(_few, st.integers(10, 25)),
    _open(_tokens, _any),
    st.builds(Verify, session=_sessions, base=_base, draft=_tokens),
    st.builds(Prefill, session=_sessions, base=_base, committed=_tokens),
    st.builds(Propose, session=_sessions, base=_base, committed=_tokens, count=_base),
    st.builds(Score, session=_sessions, base=_base, committed=_tokens),
    st.builds(Close, session=_sessions),
)


@settings(max_examples=60, deadline=None)
@given(messages=st.lists(_requests, max_size=20), drafter=st.booleans())
def test_no_sequence_of_messages_kills_an_engine(messages: Sequence[Request], drafter: bool) -> None:
    engine = (tiny.drafter if drafter else tiny.verifier)(tiny.model(), kv_tokens=256)
    lengths: dict[int, int] = {}
    for message in messages:
        if isinstance(message, Open):
            lengths[message.session] = len(message.committed)
        elif isinstance(message, Question) and message.base == 0:  # no text is as short: let some be right
            message = msgspec.structs.replace(message, base=lengths.get(message.session, 0))
        engine.handle(message.session, message)
        for reply in _until_idle(engine):
            if isinstance(reply, Verdict):
                lengths[reply.session] = reply.base + reply.accepted + 1
            elif isinstance(reply, Prefilled):
                lengths[reply.session] = reply.base + len(reply.logprobs)
    for session in lengths:
        engine.handle(session, Close(session=session))
    assert engine.num_sessions == 0
    engine.check_integrity()


def _until_idle(engine: Engine) -> Iterator[Reply]:
    for _ in range(100):
        if not engine.busy:
            return
        yield from (reply for _, reply in engine.step())
    raise AssertionError("the engine does not come to rest")


async def test_an_answer_of_another_kind_or_about_another_place_is_dropped() -> None:
    channel = Channel(Mock(spec=Connection), session=1)
    asking = asyncio.create_task(channel.ask(Propose(session=1, base=5, committed=(7,), count=2)))
    await asyncio.sleep(0)
    right = Draft(session=1, base=6, tokens=(8, 9))
    for wrong in (Verdict(session=1, base=6, accepted=0, next_token=8), Draft(session=1, base=5, tokens=(8,)), Hello()):
        channel.deliver(wrong)
    channel.deliver(right)
    assert await asking == right
    channel.deliver(right)  # repeated: nobody waits
