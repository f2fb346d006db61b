"""A proxy between router and replica that damages chosen frames, and the damages it can do.

router ──▶ up ──▶ replica        every message, in a frame of its own, passes Tampering, which may
       ◀── down ◀──              repeat, replace, cut, damage or withhold it, or reset the connection
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any

import msgspec
import tiny

from common.messages import Draft, Failure, Message
from serve.stream.lease import LeaseSource
from serve.stream.replica import LeaseGrant
from serve.stream.wire import MAX_FRAME_BYTES, FrameDecoder, encode

RESET = b""
"""In the place of a frame: the connection is reset there."""

Fault = Callable[[bytes, bytes], Sequence[bytes]]
"""From a frame and the one before it, to what is sent in its place."""

Faults = Mapping[int, Fault]
"""By number of the message; 0 is the first Hello."""


def duplicated(frame: bytes, before: bytes) -> Sequence[bytes]:
    return frame, frame


def stale(frame: bytes, before: bytes) -> Sequence[bytes]:
    return before, frame


def truncated(frame: bytes, before: bytes) -> Sequence[bytes]:
    return frame[:-1], RESET


def oversized(frame: bytes, before: bytes) -> Sequence[bytes]:
    return [(MAX_FRAME_BYTES + 1).to_bytes(4, "big") + frame[4:]]


def garbled(frame: bytes, before: bytes) -> Sequence[bytes]:
    return [frame[:4] + b"\xc1" * (len(frame) - 4)]  # a byte that msgpack never uses


def reset(frame: bytes, before: bytes) -> Sequence[bytes]:
    return [RESET]


def reset_after(frame: bytes, before: bytes) -> Sequence[bytes]:
    return frame, RESET


def withheld(frame: bytes, before: bytes) -> Sequence[bytes]:
    return ()


def cut(frame: bytes, before: bytes) -> Sequence[bytes]:
    """What follows is read as this frame's end."""
    return [frame[:-1]]


def changed(kind: type[Message], **changes: Any) -> Fault:
    """Replaces a message's fields; numbers are added to what they were."""

    def fault(frame: bytes, before: bytes) -> Sequence[bytes]:
        (message,) = FrameDecoder().feed(frame)
        if not isinstance(message, kind):
            return [frame]
        new = {n: getattr(message, n) + v if isinstance(v, int) else v for n, v in changes.items()}
        return [encode(msgspec.structs.replace(message, **new))]

    return fault


def preceded_by(fault: Fault) -> Fault:
    """The damaged frame comes first, then the right one."""
    return lambda frame, before: (*fault(frame, before), frame)


def failing(frame: bytes, before: bytes) -> Sequence[bytes]:
    (message,) = FrameDecoder().feed(frame)
    session = getattr(message, "session", None)
    return [frame] if session is None else [encode(Failure(session=session, message="says the test"))]


BREAKING = (duplicated, stale, truncated, oversized, garbled, reset, reset_after)
"""Faults after which the other end knows that something is wrong, or nothing is."""

SILENT = (withheld, cut)
"""Faults that leave the other end waiting: TCP does not lose bytes, but a drafter may."""

LYING = (
    changed(Draft, base=-1),
    changed(Draft, base=1),
    changed(Draft, session=1),
    changed(Draft, tokens=(3,) * 500),
    changed(Draft, tokens=(-1, tiny.VOCABULARY, 2**40)),
    changed(Draft, tokens=()),
    failing,
)
"""What a drafter may answer."""


class Tampering:
    """One direction's faults; its frames are counted through all connections."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._count = 0
        self._before = encode(Failure(session=0, message="nothing came before"))
        self.hits = 0
        self.begun = asyncio.Event()
        """Set by the first frame."""

    def __call__(self, frame: bytes) -> Sequence[bytes]:
        self.begun.set()
        fault = self._faults.get(self._count)
        self._count += 1
        before, self._before = self._before, frame
        if fault is None:
            return [frame]
        self.hits += 1
        return fault(frame, before)


@asynccontextmanager
async def proxied(source: LeaseSource, up: Tampering, down: Tampering) -> AsyncIterator[LeaseSource]:
    """The source, its streams led through a proxy that tampers."""
    replica_port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    relays: set[asyncio.Task[None]] = set()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        replica_reader, replica_writer = await asyncio.open_connection("127.0.0.1", await replica_port)
        ends = (writer, replica_writer)
        for way in ((reader, replica_writer, up), (replica_reader, writer, down)):
            task = asyncio.create_task(relay(*way, ends))
            relays.add(task)
            task.add_done_callback(relays.discard)

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def leases() -> AsyncGenerator[LeaseGrant]:
        async for grant in source():
            if not replica_port.done():
                replica_port.set_result(int(grant.address.rpartition(":")[2]))
            yield msgspec.structs.replace(grant, address=address)

    try:
        yield leases
    finally:
        server.close()
        for task in relays:
            task.cancel()
        await asyncio.gather(*relays, return_exceptions=True)


async def relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    tampering: Tampering,
    ends: Sequence[asyncio.StreamWriter],
) -> None:
    """Message by message, each in a frame of its own, until either end closes or a fault resets both."""
    try:
        decoder = FrameDecoder()
        while data := await reader.read(2**16):
            for piece in chain.from_iterable(tampering(encode(message)) for message in decoder.feed(data)):
                if piece == RESET:
                    return
                writer.write(piece)
    except ConnectionError:
        return
    finally:
        for end in ends:
            end.transport.abort() if tampering.hits else end.close()
