"""The data plane's stream: length-prefixed msgpack frames over TCP, many sessions on one connection.

    frame   [ length: 4 bytes, big-endian ][ msgpack of an array of Messages ]

What is sent during one turn of the event loop leaves in one frame, as the texts that share a step all do. What comes in
is decoded into typed messages; anything else (a broken frame, one over the limit, another protocol version) is a
ProtocolError and ends the connection: nothing from a socket is ever evaluated.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec

from common.messages import VERSION, Hello, Message

MAX_FRAME_BYTES = 8 * 2**20
_PREFIX, _ARRAY = 4, 5
"""Bytes of a frame's length, and at most of what begins an array."""
_LOOKS = 10
"""How often a silence is looked at before it is believed."""
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[list[Message]] = msgspec.msgpack.Decoder(list[Message])
logger = logging.getLogger(__name__)


class ProtocolError(ConnectionError):
    """The peer does not speak this protocol."""


def encode(*messages: Message) -> bytes:
    """One frame, or more if the limit demands it. Raises ProtocolError if a message fits none."""
    return _framed([_packed(message) for message in messages])


def _packed(message: Message) -> msgspec.Raw:
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME_BYTES - _ARRAY:
        raise ProtocolError(f"message of {len(body)} bytes exceeds {MAX_FRAME_BYTES - _ARRAY}")
    return msgspec.Raw(body)


def _framed(packed: Sequence[msgspec.Raw]) -> bytes:
    body = _encoder.encode(packed)
    if len(body) > MAX_FRAME_BYTES:
        middle = len(packed) // 2
        return _framed(packed[:middle]) + _framed(packed[middle:])
    return len(body).to_bytes(_PREFIX, "big") + body


class FrameDecoder:
    """Bytes in, in any portions; messages out. Never buffers more than one frame beyond what it was given.

    A decoder that has raised ProtocolError is of no more use.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Raises ProtocolError on a frame that is too large or not a message."""
        self._buffer += data
        messages: list[Message] = []
        start = 0
        while len(self._buffer) - start >= _PREFIX:
            body = start + _PREFIX
            length = int.from_bytes(self._buffer[start:body], "big")
            if length > MAX_FRAME_BYTES:
                raise ProtocolError(f"frame of {length} bytes exceeds {MAX_FRAME_BYTES}")
            if len(self._buffer) < body + length:
                break
            messages += self._decode(self._buffer[body : body + length])
            start = body + length
        del self._buffer[:start]
        return messages

    @staticmethod
    def _decode(body: bytes | bytearray) -> list[Message]:
        try:
            return _decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # recursion: nested too deep
            raise ProtocolError(f"not messages: {error}") from error


class Connection(asyncio.Protocol):
    """One end of a stream.

    Args:
        greeting: sent at once; the peer's Hello must come first and have the same version.
        on_message: called for every message after the peer's Hello.
        on_lost: called once when the connection is gone, with the reason.
        silence_s: a connection on which nothing comes for so long is given up; None waits for ever.
    """

    def __init__(
        self,
        greeting: Hello,
        on_message: Callable[[Connection, Message], None],
        on_lost: Callable[[Connection, Exception], None],
        *,
        silence_s: float | None = None,
    ) -> None:
        self._greeting = greeting
        self._on_message = on_message
        self._on_lost = on_lost
        self._silence_s = silence_s
        self._silent_looks = 0
        self._decoder = FrameDecoder()
        self._outgoing: list[msgspec.Raw] = []
        self._transport: asyncio.Transport | None = None
        self._error: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self.peer: asyncio.Future[Hello] = self._loop.create_future()
        """Resolves to the peer's Hello."""

    def send(self, message: Message) -> None:
        """Queue a message; it leaves at the end of this turn of the event loop. Without a peer it is dropped.

        Raises ProtocolError if it fits no frame.
        """
        if self._transport is None:
            return
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(_packed(message))

    def close(self) -> None:
        if self._transport is not None:
            self._flush()
            self._transport.close()

    # The base class knows no better, but for TCP it is a Transport (uvloop's is one in all but name).
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self.send(self._greeting)
        if self._silence_s is not None:
            self._listen(self._silence_s / _LOOKS)

    def data_received(self, data: bytes) -> None:
        self._silent_looks = 0
        try:
            for message in self._decoder.feed(data):
                self._receive(message)
        except ProtocolError as error:
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        error = self._error or exc or ConnectionResetError("the peer closed the stream")
        if not self.peer.done():
            self.peer.set_exception(error)
            self.peer.exception()  # whoever waits sees it; nobody waiting is no error
        self._on_lost(self, error)

    def _receive(self, message: Message) -> None:
        if self.peer.done():
            self._on_message(self, message)
        elif not isinstance(message, Hello):
            raise ProtocolError(f"expected Hello, got {type(message).__name__}")
        elif message.version != VERSION:
            raise ProtocolError(f"the peer speaks protocol version {message.version}, this is {VERSION}")
        else:
            self.peer.set_result(message)

    def _listen(self, interval_s: float) -> None:
        """Counts looks, not seconds: while this process itself stands still there is none, and no peer is blamed."""
        if self._transport is None:
            return
        if self._silent_looks == _LOOKS:
            self._fail(ConnectionAbortedError(f"nothing heard for {self._silence_s:g} s"))
            return
        self._silent_looks += 1
        self._loop.call_later(interval_s, self._listen, interval_s)

    def _fail(self, error: ConnectionError) -> None:
        logger.warning("stream closed: %s", error)
        self._error = error
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        if self._transport is not None and self._outgoing:
            self._transport.write(_framed(self._outgoing))
        self._outgoing.clear()
