"""The stream protocol: what is sent arrives, whatever the portions; anything else is a ProtocolError."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.messages import (
    VERSION,
    Close,
    Draft,
    Failure,
    Hello,
    Message,
    Open,
    Propose,
    Score,
    Scored,
    Verdict,
    Verify,
)
from common.types import SamplingParams, StepCost
from serve import wire
from serve.wire import Connection, FrameDecoder, ProtocolError, encode

_ids = st.integers(0, 2**31)
_tokens = st.lists(_ids, max_size=20).map(tuple)
_sampling = st.builds(
    SamplingParams,
    temperature=st.floats(0, 2),
    top_k=st.integers(0, 100),
    top_p=st.floats(0.01, 1),
    seed=st.integers(-(2**63), 2**63 - 1),
)
_messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Hello, version=st.just(VERSION), incarnation=st.text(max_size=8)),
    st.builds(
        Open, session=_ids, token=st.text(), committed=_tokens, prompt_length=_ids, max_length=_ids, sampling=_sampling
    ),
    st.builds(Verify, session=_ids, base=_ids, draft=_tokens),
    st.builds(Verdict, session=_ids, base=_ids, accepted=_ids, next_token=_ids),
    st.builds(Propose, session=_ids, base=_ids, committed=_tokens, count=_ids),
    st.builds(Draft, session=_ids, base=_ids, tokens=_tokens),
    st.builds(Close, session=_ids),
    st.builds(Score, session=_ids, base=_ids, committed=_tokens),
    st.builds(Scored, session=_ids, base=_ids, agreed=_ids, cost=st.builds(StepCost, st.floats(0, 9), _ids)),
    st.builds(Failure, session=_ids, message=st.text()),
)


@given(messages=st.lists(_messages, max_size=8), cuts=st.lists(st.integers(0, 2000), max_size=8))
def test_messages_survive_any_portioning(messages: list[Message], cuts: list[int]) -> None:
    data = b"".join(map(encode, messages))
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    decoder, received = FrameDecoder(), []
    for start, end in itertools.pairwise(edges):
        received += decoder.feed(data[start:end])
    assert received == messages


@given(data=st.binary(max_size=300))
def test_garbage_is_a_protocol_error_or_an_unfinished_frame(data: bytes) -> None:
    decoder = FrameDecoder()
    try:
        decoder.feed(data)
    except ProtocolError:
        return
    assert len(decoder._buffer) <= len(data)


def test_a_frame_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(ProtocolError, match="exceeds"):
        FrameDecoder().feed((wire.MAX_FRAME_BYTES + 1).to_bytes(4, "big"))


def test_a_message_over_the_limit_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="exceeds"):
        encode(Failure(session=1, message="x" * (wire.MAX_FRAME_BYTES + 1)))


def test_invalid_sampling_parameters_are_refused_by_the_decoder() -> None:
    frame = encode(Open(session=1, token="t", committed=(1,), prompt_length=1, max_length=2, sampling=SamplingParams()))
    broken = frame.replace(b"temperature\xcb?\xf0", b"temperature\xcb\xbf\xf0")  # 1.0 → -1.0
    assert broken != frame
    with pytest.raises(ProtocolError, match="temperature"):
        FrameDecoder().feed(broken)


@asynccontextmanager
async def _pair(
    client_hello: bytes,
) -> AsyncIterator[tuple[Connection, asyncio.StreamReader, asyncio.Future[Exception]]]:
    """A server connection, driven by raw bytes. The writer is kept to the end: dropping it would close the stream."""
    loop = asyncio.get_running_loop()
    lost: asyncio.Future[Exception] = loop.create_future()
    made: asyncio.Future[Connection] = loop.create_future()

    def factory() -> Connection:
        connection = Connection(Hello(incarnation="me"), lambda c, m: None, lambda c, e: lost.set_result(e))
        made.set_result(connection)
        return connection

    server = await loop.create_server(factory, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    writer.write(client_hello)
    yield await made, reader, lost
    writer.close()
    server.close()


@pytest.mark.parametrize(
    ("greeting", "error"),
    [
        (encode(Hello(version=VERSION + 1)), "version"),
        (encode(Close(session=1)), "expected Hello"),
        (b"\x00\x00\x00\x02{}", "not a message"),
    ],
)
async def test_a_wrong_greeting_ends_the_connection(greeting: bytes, error: str) -> None:
    async with _pair(greeting) as (connection, reader, lost):
        with pytest.raises(ProtocolError, match=error):
            await connection.peer
        assert error in str(await lost)
        while await reader.read(100):
            pass  # our greeting, then the end


async def test_messages_of_one_turn_leave_in_one_write() -> None:
    connection, transport = Connection(Hello(), lambda c, m: None, lambda c, e: None), Mock(spec=asyncio.Transport)
    connection.connection_made(transport)
    sent: list[Message] = [Close(session=session) for session in range(100)]
    for message in sent:
        connection.send(message)
    await asyncio.sleep(0)  # the end of this turn
    transport.write.assert_called_once()
    assert FrameDecoder().feed(transport.write.call_args.args[0]) == [Hello(), *sent]
