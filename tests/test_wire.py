"""The stream protocol: what is sent arrives, whatever the portions; anything else is a ProtocolError."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from unittest.mock import Mock, patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.messages import (
    VERSION,
    Alive,
    Close,
    Draft,
    Failure,
    Hello,
    Message,
    Open,
    Prefill,
    Prefilled,
    Propose,
    Score,
    Scored,
    Verdict,
    Verify,
)
from common.types import SamplingParams, StepCost, TokenLogprob
from serve.stream import wire
from serve.stream.streams import Channel
from serve.stream.wire import Connection, FrameDecoder, ProtocolError, encode

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
    st.builds(Prefill, session=_ids, base=_ids, committed=_tokens),
    st.builds(
        Prefilled,
        session=_ids,
        base=_ids,
        logprobs=st.lists(st.builds(TokenLogprob, _ids, st.floats(-9, 0)), max_size=3).map(tuple),
    ),
    st.builds(Verify, session=_ids, base=_ids, draft=_tokens),
    st.builds(Verdict, session=_ids, base=_ids, accepted=_ids, next_token=_ids),
    st.builds(Propose, session=_ids, base=_ids, committed=_tokens, count=_ids),
    st.builds(Draft, session=_ids, base=_ids, tokens=_tokens),
    st.builds(Close, session=_ids),
    st.just(Alive()),
    st.builds(Score, session=_ids, base=_ids, committed=_tokens),
    st.builds(Scored, session=_ids, base=_ids, agreed=_ids, cost=st.builds(StepCost, st.floats(0, 9), _ids)),
    st.builds(Failure, session=_ids, message=st.text()),
)


@given(
    together=st.lists(_messages, max_size=8),
    apart=st.lists(_messages, max_size=8),
    cuts=st.lists(st.integers(0, 2000), max_size=8),
)
def test_messages_survive_any_portioning(together: list[Message], apart: list[Message], cuts: list[int]) -> None:
    data = encode(*together) + b"".join(map(encode, apart))
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    decoder, received = FrameDecoder(), []
    for start, end in itertools.pairwise(edges):
        received += decoder.feed(data[start:end])
    assert received == together + apart


def _frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


@st.composite
def hostile_bytes(draw: st.DrawFn) -> bytes:
    """Valid frames that were repeated, dropped, put in another order, cut off and overwritten, and garbage between."""
    valid = st.lists(_messages, max_size=3).map(lambda messages: encode(*messages))
    frames = draw(st.lists(valid | st.binary(max_size=40).map(_frame) | st.binary(max_size=40)))
    if frames:
        frames = draw(st.lists(st.sampled_from(frames), max_size=12))
    data = bytearray(b"".join(frames))
    for place, value in draw(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), max_size=6)):
        data[place : place + 1] = bytes([value])
    return bytes(data[: draw(st.integers(0, 2000))])


@given(data=hostile_bytes(), portion=st.integers(1, 300), limit=st.integers(0, 100))
def test_hostile_bytes_are_a_protocol_error_and_never_fill_the_memory(data: bytes, portion: int, limit: int) -> None:
    decoder = FrameDecoder()
    with patch.object(wire, "MAX_FRAME_BYTES", limit), contextlib.suppress(ProtocolError):
        for start in range(0, len(data), portion):
            for message in decoder.feed(data[start : start + portion]):
                assert isinstance(message, Message)
            assert len(decoder._buffer) < 4 + limit  # less than a whole frame


def _map(**fields: bytes) -> bytes:
    """A msgpack map with these values, already encoded."""
    names = b"".join(bytes([0xA0 | len(name)]) + name.encode() + value for name, value in fields.items())
    return bytes([0x80 | len(fields)]) + names.replace(b"\xa5type_", b"\xa4type")


_ONE, _HUGE = b"\x01", b"\xff\xff\xff\xff"
_CLOSE = {"type_": b"\xa5close", "session": _ONE}
_VERIFY = {"type_": b"\xa6verify", "session": _ONE, "base": _ONE}
_BOMBS = {
    "nested arrays in an unknown field": _map(**_CLOSE, x=b"\x91" * 200_000),
    "nested maps in an unknown field": _map(**_CLOSE, x=b"\x81\x01" * 100_000),
    "nested arrays for tokens": _map(**_VERIFY, draft=b"\x91" * 200_000),
    "an array of four billion tokens": _map(**_VERIFY, draft=b"\xdd" + _HUGE),
    "an array of millions of tokens": _map(**_VERIFY, draft=b"\xdd\x04\x00\x00\x00" + b"\x01" * 100),
    "a map of four billion fields": b"\xdf" + _HUGE,
    "a map of four billion fields in an unknown field": _map(**_CLOSE, x=b"\xdf" + _HUGE),
    "a string of four gigabytes": _map(type_=b"\xa7failure", session=_ONE, message=b"\xdb" + _HUGE),
    "an extension of four gigabytes": _map(type_=b"\xa5close", session=b"\xc9" + _HUGE + b"\x05"),
    "text that is not UTF-8": _map(type_=b"\xa2\xff\xff", session=_ONE),
    "nothing": b"",
}


@pytest.mark.parametrize("name", _BOMBS)
def test_a_small_frame_that_asks_for_much_memory_is_refused_without_taking_it(name: str) -> None:
    frame = _frame(b"\x91" + _BOMBS[name])
    tracemalloc.start()
    with pytest.raises(ProtocolError, match="not messages"):
        FrameDecoder().feed(frame)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**18 + 4 * len(frame)


@pytest.mark.parametrize("item", [b"\x01", b"\xcd\x10\x00", b"\xce\x7f\x00\x00\x00"])
def test_a_message_takes_a_small_multiple_of_its_frame(item: bytes) -> None:
    count = 2**16
    frame = _frame(b"\x91" + _map(**_VERIFY, draft=b"\xdd" + count.to_bytes(4, "big") + item * count))
    tracemalloc.start()
    (message,) = FrameDecoder().feed(frame)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(message, Verify) and len(message.draft) == count
    assert peak < 25 * len(frame)


def test_many_messages_take_a_small_multiple_of_their_frame() -> None:
    count = 2**16
    frame = _frame(b"\xdd" + count.to_bytes(4, "big") + _map(type_=b"\xa5alive") * count)
    tracemalloc.start()
    messages = FrameDecoder().feed(frame)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert messages == [Alive()] * count
    assert peak < 25 * len(frame)


def test_what_does_not_fit_one_frame_leaves_in_several() -> None:
    messages: list[Message] = [Failure(session=session, message="x" * 20) for session in range(50)]
    with patch.object(wire, "MAX_FRAME_BYTES", 100):
        data = encode(*messages)
        assert FrameDecoder().feed(data) == messages
        with pytest.raises(ProtocolError, match="exceeds"):
            encode(*messages, Failure(session=1, message="x" * 100))


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
        (b"\x00\x00\x00\x02{}", "not messages"),
    ],
)
async def test_a_wrong_greeting_ends_the_connection(greeting: bytes, error: str) -> None:
    async with _pair(greeting) as (connection, reader, lost):
        with pytest.raises(ProtocolError, match=error):
            await connection.peer
        assert error in str(await lost)
        while await reader.read(100):
            pass  # our greeting, then the end


async def test_a_silent_peer_is_given_up_and_one_that_is_not_heard_because_nobody_listens_is_not() -> None:
    lost: list[Exception] = []
    connection = Connection(Hello(), lambda c, m: None, lambda c, e: lost.append(e), silence_s=5.0)
    transport = Mock(spec=asyncio.Transport)
    transport.abort.side_effect = lambda: connection.connection_lost(None)
    connection._loop = Mock(spec=asyncio.AbstractEventLoop)
    connection.connection_made(transport)

    def look() -> None:
        """The next one; how late it comes makes no difference."""
        interval_s, action, *arguments = connection._loop.call_later.call_args.args  # type: ignore[attr-defined]
        assert interval_s == 0.5
        action(*arguments)

    for _ in range(3):
        for _ in range(9):
            look()
        connection.data_received(encode(Hello()) if not connection.peer.done() else encode(Alive()))
    for _ in range(9):
        look()
    assert not lost
    look()
    look()
    assert [str(error) for error in lost] == ["nothing heard for 5 s"]


async def test_messages_of_one_turn_leave_in_one_frame() -> None:
    connection, transport = Connection(Hello(), lambda c, m: None, lambda c, e: None), Mock(spec=asyncio.Transport)
    connection.connection_made(transport)
    sent: list[Message] = [Close(session=session) for session in range(100)]
    for message in sent:
        connection.send(message)
    await asyncio.sleep(0)  # the end of this turn
    transport.write.assert_called_once()
    written = transport.write.call_args.args[0]
    assert len(written) == 4 + int.from_bytes(written[:4], "big")
    assert FrameDecoder().feed(written) == [Hello(), *sent]


async def test_one_timer_ends_each_question_at_its_own_deadline() -> None:
    channel, now = Channel(Mock(), session=1), 0.0
    timers: list[Mock] = []

    def call_at(when: float, action: Callable[[], None]) -> Mock:
        timers.append(Mock(action=action, when=lambda: when))
        return timers[-1]

    channel._loop = Mock(create_future=asyncio.get_running_loop().create_future, time=lambda: now, call_at=call_at)
    for base in range(10):
        asking = asyncio.create_task(channel.ask(Verify(session=1, base=base), within_s=1.0))
        await asyncio.sleep(0)
        channel.deliver(Verdict(session=1, base=base, accepted=0, next_token=1))
        await asking
        now += 0.1
    asking = asyncio.create_task(channel.ask(Verify(session=1, base=10), within_s=1.0))  # until 2.0
    await asyncio.sleep(0)
    assert len(timers) == 1
    timers[0].action()  # at 1.0
    assert len(timers) == 2 and timers[1].when() == pytest.approx(2.0) and not asking.done()
    now = 2.0
    timers[1].action()
    with pytest.raises(TimeoutError):
        await asking
    for within_s in (9.0, 0.5):  # the second does not wait for the first one's deadline
        asking = asyncio.create_task(channel.ask(Verify(session=1, base=11), within_s=within_s))
        await asyncio.sleep(0)
    assert timers[-2].cancel.called and timers[-1].when() == pytest.approx(2.5)
    asking.cancel()
