"""The router's hold on a replica: a lease call that stays open, and a channel on the replica's stream.

`LeaseSource` is anything that grants leases: a Serve deployment in production (`handles.leases_of`), a `Replica` in
the same process in tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing

import msgspec

from common.messages import Close, Draft, Prefilled, Propose, Scored, Verdict
from common.rounds import TokenLog
from common.types import TokenIds
from serve.errors import ReplicaLost
from serve.stream.replica import LeaseGrant
from serve.stream.streams import Channel, StreamPool

LeaseSource = Callable[[], AsyncGenerator[LeaseGrant]]
"""Each call asks for one lease. The generator yields its grant and then stays open; closing it gives the lease up,
its end means that the replica gave it up. Raises ReplicaLost when the replica dies."""


class Lease:
    """One session at one replica. Made by `take_lease`, ended by `release`."""

    def __init__(
        self,
        grant: LeaseGrant,
        grants: AsyncGenerator[LeaseGrant],
        channel: Channel,
        streams: StreamPool,
    ) -> None:
        self.grant = grant
        self._grants = grants
        self._channel = channel
        self._streams = streams
        self._known: int | None = None
        """Tokens of the text that the replica has been told; None until it is asked something."""
        # The stream tells first when a process dies or hangs; only the lease tells when its replica gives it up.
        self._watch = asyncio.create_task(self._watch_lease())

    async def prefill(self, log: TokenLog) -> Prefilled:
        """Ask about the next tokens of the prompt. Raises ReplicaLost or SessionRefused."""
        self._open(log)
        reply = await self._channel.ask(log.prefill(self._channel.session))
        assert isinstance(reply, Prefilled)
        return reply

    async def verify(self, log: TokenLog, draft: TokenIds) -> Verdict:
        """Raises ReplicaLost or SessionRefused."""
        self._open(log)
        reply = await self._channel.ask(log.verify(self._channel.session, draft))
        assert isinstance(reply, Verdict)
        return reply

    async def propose(self, log: TokenLog, count: int, ahead: int = 0, *, within_s: float | None = None) -> Draft:
        """Tell the drafter what was committed and get a draft; see `Propose`.

        Raises ReplicaLost, SessionRefused, or TimeoutError if it takes longer than `within_s` seconds.
        """
        message = self._news(log, count, ahead)
        reply = await self._channel.ask(message, within_s)
        assert isinstance(reply, Draft)
        tokens = reply.tokens[: max(message.count, message.ahead)]
        return msgspec.structs.replace(reply, tokens=tokens, ahead=max(0, min(reply.ahead, len(tokens))))

    def follow(self, log: TokenLog) -> None:
        """Tell the drafter what was committed; it answers with nothing, which is not waited for."""
        self._channel.send(self._news(log, 0))

    async def score(self, log: TokenLog, window: int, *, within_s: float) -> Scored:
        """Ask how many of the last `window` tokens it would have drawn. Raises what `propose` raises."""
        message = log.score(self._channel.session, window)
        if self._open(log) < message.base:
            self.follow(log)
        self._known = len(log.tokens)
        reply = await self._channel.ask(message, within_s)
        assert isinstance(reply, Scored)
        return reply

    def behind(self, log: TokenLog) -> int:
        """Tokens that the drafter has not been told."""
        return 0 if self._known is None else len(log.tokens) - self._known

    def _open(self, log: TokenLog) -> int:
        """Open the session, unless it is; returns how many tokens the replica knows.

        Not before there is something to ask: what is asked with it is answered by the step that reads the prompt.
        """
        if self._known is None:
            self._channel.send(log.open(self._channel.session, self.grant.token))
            self._known = len(log.tokens)
        return self._known

    def _news(self, log: TokenLog, count: int, ahead: int = 0) -> Propose:
        message = log.propose(self._channel.session, self._open(log), count, ahead)
        self._known = len(log.tokens)
        return message

    def release(self) -> None:
        """Free the replica's slot and give the lease up.

        Nothing is waited for, so nobody's cancellation can come in between; the call ends a moment later.
        """
        if self._known is not None:
            self._channel.send(Close(session=self._channel.session))
        self._streams.forget(self._channel)
        # After the task's first step, which is queued already: a task cancelled before would close nothing.
        asyncio.get_running_loop().call_soon(self._watch.cancel)

    async def _watch_lease(self) -> None:
        """Owns the call: it is closed here, whatever ends the lease."""
        lost = ReplicaLost("the replica ended the lease")
        try:
            async with aclosing(self._grants):
                async for _ in self._grants:
                    pass
        except ReplicaLost as error:
            lost = error
        finally:
            self._channel.fail(lost)


async def take_lease(source: LeaseSource, streams: StreamPool) -> Lease:
    """A lease, whose session is opened when something is asked. Raises ReplicaLost if no replica could be reached."""
    async with AsyncExitStack() as unless_taken:
        grants = await unless_taken.enter_async_context(aclosing(source()))
        async for grant in grants:
            channel = await streams.channel(grant.address, grant.incarnation)
            unless_taken.callback(streams.forget, channel)
            lease = Lease(grant, grants, channel, streams)
            unless_taken.pop_all()
            return lease
    raise ReplicaLost("the replica granted no lease")
