"""A verifier's or a drafter's process, less Ray: engine thread, stream server, leases.

    lease()      a session's place here: yields a grant (address, one-time token, incarnation), stays open until the
                 session closes; its caller learns of this replica's death by it
    stream       Open with the grant's token begins the session; everything after that runs on the stream

A session ends, and its memory is freed, when the router closes it, when its lease ends, or when the stream breaks.

A process that was stopped cannot say so: all routers are told every second that this one lives, whatever its engine is
busy with. Whether the engine still gets anywhere only its own process can judge, by how long the step under way takes.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
import uuid
import weakref
from collections.abc import AsyncIterator, Callable

import msgspec

from common.engine.session import Key
from common.messages import Alive, Close, Failure, Hello, Message, Open, Prefill, Propose, Score, Verify
from common.models import Fingerprint
from serve.errors import ReplicaLost
from serve.stream.engine_thread import EngineThread, Replies, SteppedEngine
from serve.stream.wire import Connection, ProtocolError

BEAT_S = 1.0
"""How often a replica says that it lives."""

logger = logging.getLogger(__name__)


class LeaseGrant(msgspec.Struct, frozen=True, kw_only=True):
    """Where to open the session, and with what."""

    address: str
    """host:port of the stream server."""
    token: str
    """Opens one session, once."""
    incarnation: str
    """Names the replica process, so that a successor on the same address is not mistaken for it."""
    name: str
    """What runs there: the target's name, or the drafter's version."""
    fingerprint: Fingerprint
    """Of the model's vocabulary and context; a drafter must fit the target."""


class _Held(msgspec.Struct, kw_only=True):
    """A lease as its replica sees it."""

    ended: asyncio.Event
    key: tuple[Connection, int] | None = None


class Replica:
    """Start it with `start`, in the event loop that serves it.

    Args:
        make_engine: called once; the engine lives in its thread.
        host: address to listen on and to tell others.
        tls: who may connect; None lets anyone, unencrypted, who can reach the address.
        longest_step_s: an engine that takes longer over one step is taken for dead.
        beat_s: how often routers are told that this process lives.
    """

    def __init__(
        self,
        make_engine: Callable[[], SteppedEngine],
        *,
        name: str,
        fingerprint: Fingerprint,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        longest_step_s: float = 120.0,
        beat_s: float = BEAT_S,
    ) -> None:
        self._make_engine = make_engine
        self._name = name
        self._fingerprint = fingerprint
        self._host = host
        self._tls = tls
        self._longest_step_s = longest_step_s
        self._beat_s = beat_s
        self._incarnation = uuid.uuid4().hex
        self._leases: dict[str, _Held] = {}
        self._tokens: dict[Key, str] = {}
        # Weak, for one whose TLS handshake fails is never told that it is lost.
        self._connections: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._dead: BaseException | None = None

    async def start(self) -> None:
        self._stepped = self._make_engine()
        self._engine = EngineThread(self._stepped, self._send_replies, self._die)
        self._server = await asyncio.get_running_loop().create_server(self._connection, self._host, 0, ssl=self._tls)
        self._port = self._server.sockets[0].getsockname()[1]
        self._beating = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        self._beating.cancel()
        self._server.close()
        for held in self._leases.values():
            held.ended.set()
        for connection in list(self._connections):
            connection.close()
        await self._engine.stop()

    async def lease(self) -> AsyncIterator[LeaseGrant]:
        """Yields one grant, and ends when the session does. Raises ReplicaLost once the engine is dead."""
        self.check_health()
        token = secrets.token_urlsafe(16)
        held = self._leases[token] = _Held(ended=asyncio.Event())
        try:
            yield LeaseGrant(
                address=f"{self._host}:{self._port}",
                token=token,
                incarnation=self._incarnation,
                name=self._name,
                fingerprint=self._fingerprint,
            )
            await held.ended.wait()
        finally:
            self._end(token)

    @property
    def num_leases(self) -> int:
        return len(self._leases)

    @property
    def num_sessions(self) -> int:
        """In the engine; after a lease's end its session is there until the engine's next step."""
        return self._stepped.num_sessions

    def check_health(self) -> None:
        """Raises when the replica must be replaced: ReplicaLost if the engine's thread died or hangs, or what telling
        routers that it lives died of.
        """
        if self._dead is not None:
            raise ReplicaLost(f"the engine died: {self._dead!r}") from self._dead
        if self._beating.done():
            self._beating.result()

    async def _beat(self) -> None:
        while self._dead is None:
            if self._engine.step_s > self._longest_step_s:
                self._die(TimeoutError(f"it has been at one step for more than {self._longest_step_s:g} s"))
                return
            for connection in self._connections:
                connection.send(Alive())
            await asyncio.sleep(self._beat_s)

    def _connection(self) -> Connection:
        connection = Connection(Hello(incarnation=self._incarnation), self._receive, self._lost)
        self._connections.add(connection)
        return connection

    def _receive(self, connection: Connection, message: Message) -> None:
        match message:
            case Open():
                self._open(connection, message)
            case Prefill() | Verify() | Propose() | Score():
                if (connection, message.session) in self._tokens:  # else: never opened, or over
                    self._engine.submit((connection, message.session), message)
            case Close():
                self._end(self._tokens.get((connection, message.session), ""))
            case _:
                raise ProtocolError(f"a replica does not take {type(message).__name__}")

    def _open(self, connection: Connection, message: Open) -> None:
        held = self._leases.get(message.token)
        key = (connection, message.session)
        if held is not None and held.key == key:
            return  # said twice
        if held is None or held.key is not None or key in self._tokens:
            connection.send(Failure(session=message.session, message="token: not a lease of this replica, or used"))
            return
        held.key = key
        self._tokens[held.key] = message.token
        self._engine.submit(held.key, message)

    def _send_replies(self, replies: Replies) -> None:
        for key, reply in replies:
            if key in self._tokens:  # else: closed while it was being answered
                connection: Connection = key[0]  # type: ignore[index]
                connection.send(reply)

    def _lost(self, connection: Connection, error: Exception) -> None:
        self._connections.discard(connection)
        for token in [t for t, held in self._leases.items() if held.key and held.key[0] is connection]:
            self._end(token)

    def _end(self, token: str) -> None:
        held = self._leases.pop(token, None)
        if held is None:
            return
        held.ended.set()
        if held.key is not None:
            del self._tokens[held.key]
            self._engine.submit(held.key, Close(session=held.key[1]))

    def _die(self, error: BaseException) -> None:
        logger.critical("the engine died; all its sessions fail", exc_info=error)
        self._dead = error
        self._server.close()
        for open_connection in self._connections:
            open_connection.close()
        for token in list(self._leases):
            self._end(token)
