"""The router's end of the streams: one connection per replica, a channel on it per session."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from contextlib import ExitStack

from common.messages import (
    Answer,
    Close,
    Draft,
    Failure,
    Hello,
    Message,
    Open,
    Prefill,
    Prefilled,
    Propose,
    Question,
    Score,
    Scored,
    Verdict,
    Verify,
)
from serve.errors import ReplicaLost, SessionRefused
from serve.stream.wire import Connection

_ANSWERS: dict[type[Question], type[Answer]] = {
    Prefill: Prefilled,
    Verify: Verdict,
    Propose: Draft,
    Score: Scored,
}


class Channel:
    """One session on a stream: one question at a time, answered in order."""

    def __init__(self, connection: Connection, session: int) -> None:
        self.session = session
        self._connection = connection
        self._waiting: asyncio.Future[Answer] | None = None
        self._expected: type[Answer] = Verdict
        self._base = 0
        self._lost: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._expires_at: float | None = None
        """When the question is given up, by the loop's clock."""
        self._timer: asyncio.TimerHandle | None = None

    def send(self, message: Open | Close | Propose) -> None:
        self._connection.send(message)

    async def ask(self, message: Question, within_s: float | None = None) -> Answer:
        """Send and wait for the answer to just this message; any other, such as one to an earlier, is dropped.

        Raises ReplicaLost or SessionRefused, and TimeoutError if it takes longer than `within_s` seconds.
        """
        if self._lost is not None:
            raise self._lost
        self._expected = _ANSWERS[type(message)]
        self._base = message.base + len(message.committed if isinstance(message, Propose) else ())
        self._waiting = self._loop.create_future()
        self._connection.send(message)
        self._expires_at = None if within_s is None else self._loop.time() + within_s
        self._set_timer()
        return await self._waiting

    def deliver(self, message: Message) -> None:
        if isinstance(message, Failure):
            self.fail(SessionRefused(message.message))
        elif isinstance(message, self._expected) and message.base == self._base and self._pending:
            self._pending.set_result(message)

    def fail(self, error: Exception) -> None:
        """Whoever waits, and whoever will ask, gets `error`."""
        self._lost = error
        if self._pending:
            self._pending.set_exception(error)

    def _set_timer(self) -> None:
        """One for many questions: to make one for each would be a good part of what a round takes."""
        if self._expires_at is None or (self._timer is not None and self._timer.when() <= self._expires_at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._expires_at, self._look_at_clock)

    def _look_at_clock(self) -> None:
        self._timer = None
        if not self._pending or self._expires_at is None:
            return
        if self._expires_at <= self._loop.time():
            self._pending.set_exception(TimeoutError())
        else:
            self._set_timer()

    @property
    def _pending(self) -> asyncio.Future[Answer] | None:
        return self._waiting if self._waiting is not None and not self._waiting.done() else None


class StreamPool:
    """Connections by replica; made when first asked for, shared by all sessions with that replica.

    Args:
        silence_s: a replica of which nothing is heard for so long is lost to all its sessions.
        tls: how replicas are known; None connects unencrypted.
    """

    def __init__(
        self, *, connect_timeout_s: float = 5.0, silence_s: float = 10.0, tls: ssl.SSLContext | None = None
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._silence_s = silence_s
        self._tls = tls
        self._streams: dict[tuple[str, str], asyncio.Task[Connection]] = {}
        self._channels: dict[Connection, dict[int, Channel]] = {}
        self._numbers = itertools.count(1)

    async def channel(self, address: str, incarnation: str) -> Channel:
        """A new session's channel to the replica. Raises ReplicaLost if it cannot be reached or is another."""
        key = (address, incarnation)
        if key not in self._streams:
            self._streams[key] = asyncio.create_task(self._connect(address, incarnation))
        try:
            connection = await asyncio.shield(self._streams[key])
        except OSError as error:
            self._streams.pop(key, None)
            raise ReplicaLost(f"{address}: {error}") from error
        if connection not in self._channels:
            self._streams.pop(key, None)
            raise ReplicaLost(f"{address}: lost as soon as it was reached")
        channel = Channel(connection, next(self._numbers))
        self._channels[connection][channel.session] = channel
        return channel

    def forget(self, channel: Channel) -> None:
        """The session is over; late messages for it are dropped."""
        for channels in self._channels.values():
            channels.pop(channel.session, None)

    def close(self) -> None:
        for connection in list(self._channels):
            connection.close()

    async def _connect(self, address: str, incarnation: str) -> Connection:
        host, _, port = address.rpartition(":")
        connection = Connection(Hello(), self._on_message, self._on_lost, silence_s=self._silence_s)
        with ExitStack() as unless_greeted:
            # At once: messages may come before the connection is told here to be made.
            self._channels[connection] = {}
            unless_greeted.callback(self._channels.pop, connection, None)
            async with asyncio.timeout(self._connect_timeout_s):
                await asyncio.get_running_loop().create_connection(lambda: connection, host, int(port), ssl=self._tls)
                unless_greeted.callback(connection.close)
                peer = await connection.peer
            if peer.incarnation != incarnation:
                raise ReplicaLost(f"{address} is now another replica")
            unless_greeted.pop_all()
        return connection

    def _on_message(self, connection: Connection, message: Message) -> None:
        channel = self._channels[connection].get(getattr(message, "session", 0))
        if channel is not None:
            channel.deliver(message)

    def _on_lost(self, connection: Connection, error: Exception) -> None:
        self._streams = {k: t for k, t in self._streams.items() if not (t.done() and _result(t) is connection)}
        for channel in self._channels.pop(connection, {}).values():
            channel.fail(ReplicaLost(str(error)))


def _result(task: asyncio.Task[Connection]) -> Connection | None:
    return None if task.cancelled() or task.exception() else task.result()
