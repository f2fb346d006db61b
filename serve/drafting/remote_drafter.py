"""One drafter's side of one text: made ready in the background, a draft when there is one in time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable
from typing import TypeVar

from common.messages import Draft, Scored
from common.rounds import TokenLog
from serve.drafting.outlook import DraftLength
from serve.errors import ReplicaLost, ServiceOverloaded, SessionRefused
from serve.stream.lease import Lease, LeaseSource, take_lease
from serve.stream.streams import StreamPool

T = TypeVar("T")
FOLLOW_EVERY = 32
"""Tokens after which a drafter that is not asked for drafts is told what was committed: it stays in step, so that
drafting can begin again at once, at the cost of one pass over so many tokens."""
logger = logging.getLogger(__name__)


class RemoteDrafter:
    """A drafter that is cold, late or broken costs a round, never the text.

    Args:
        name: of the deployed drafter, such as `de`.
        deadline_s: an answer that takes longer is not waited for, and the replica is given up.
        attempts: leases taken for one text; then its drafter is not asked again.
    """

    def __init__(
        self, name: str, source: LeaseSource, streams: StreamPool, *, deadline_s: float = 1.0, attempts: int = 3
    ) -> None:
        self.name = name
        self.losses = 0
        """Replicas lost so far."""
        self._source = source
        self._streams = streams
        self._deadline_s = deadline_s
        self._attempts = attempts
        self._leasing: asyncio.Task[Lease] | None = None
        self._lease: Lease | None = None
        """What has come of it."""

    @property
    def version(self) -> str | None:
        """What drafts, such as `de/v0003`; None while there is no lease."""
        return self._lease.grant.name if self._lease is not None else None

    @property
    def asked(self) -> bool:
        """Whether a lease is held or on its way, or no more are to be had."""
        return self._leasing is not None or self._attempts == 0

    def start(self, log: TokenLog) -> None:
        """Ask for a lease, unless one is held or on its way; the text goes on meanwhile."""
        if not self.asked:
            self._attempts -= 1
            self._leasing = asyncio.create_task(self._take(log))

    async def arrive(self, patience_s: float) -> None:
        """Wait until it is ready, but no longer than `patience_s`."""
        if self._leasing is not None and patience_s > 0.0:
            await asyncio.wait([self._leasing], timeout=patience_s)

    def ready(self, log: TokenLog) -> bool:
        """Whether it can draft now; a lease that could not be had is asked for anew."""
        if self._lease is None and self._leasing is not None and self._leasing.done():
            error = _error_of(self._leasing)
            if isinstance(error, SessionRefused):
                self._attempts = 0  # a text that does not fit one replica fits none
            self._renew(log, error)
        return self._lease is not None

    async def draft(self, log: TokenLog, length: DraftLength) -> Draft | None:
        """At most so many tokens; None if it is not ready, or gives no answer in time."""
        if self._lease is None:
            return None
        proposed = self._lease.propose(log, length.wanted, length.ahead, within_s=self._deadline_s)
        return await self._answer(log, proposed)

    async def score(self, log: TokenLog, window: int) -> Scored | None:
        """How many of the last `window` tokens it would have drawn; waits until it is ready.

        None if there is no lease to be had, or no answer in time.
        """
        await self.arrive(self._deadline_s)
        if self._lease is None:
            return None
        return await self._answer(log, self._lease.score(log, window, within_s=self._deadline_s))

    def keep_in_step(self, log: TokenLog) -> None:
        """Tell what was committed while no draft is wanted."""
        if self._lease is not None and self._lease.behind(log) >= FOLLOW_EVERY:
            self._lease.follow(log)

    def close(self) -> None:
        """Give the lease up, also one that is only on its way, and take no other. Nothing is waited for."""
        self._attempts = 0
        self._drop()

    def _drop(self) -> None:
        if self._leasing is not None:
            leasing, self._leasing, self._lease = self._leasing, None, None
            leasing.cancel()  # if it is done already, this does nothing
            leasing.add_done_callback(_give_up)

    async def _take(self, log: TokenLog) -> Lease:
        """A lease on a replica that has read the text: until then drafts would come late, and their rounds with them.

        Raises ReplicaLost, ServiceOverloaded or SessionRefused.
        """
        with contextlib.ExitStack() as unless_ready:
            lease = await take_lease(self._source, self._streams)
            unless_ready.callback(lease.release)
            await lease.propose(log, 1)  # of which nothing is used but that it has come
            unless_ready.pop_all()
            self._lease = lease
            return lease

    async def _answer(self, log: TokenLog, answer: Awaitable[T]) -> T | None:
        try:
            return await answer
        except (TimeoutError, ReplicaLost, SessionRefused) as error:
            self._renew(log, error)
            return None

    def _renew(self, log: TokenLog, error: BaseException | None) -> None:
        """Whatever the drafter died of, the text goes on without it."""
        foreseen = isinstance(error, TimeoutError | ReplicaLost | SessionRefused | ServiceOverloaded)
        level = logging.WARNING if foreseen else logging.ERROR
        logger.log(level, "drafter %s lost: %s", self.name, error, exc_info=None if foreseen else error)
        self.losses += 1
        self._drop()
        self.start(log)


def _error_of(leasing: asyncio.Task[Lease]) -> BaseException | None:
    return asyncio.CancelledError("the call was cancelled") if leasing.cancelled() else leasing.exception()


def _give_up(leasing: asyncio.Task[Lease]) -> None:
    if not leasing.cancelled() and leasing.exception() is None:
        leasing.result().release()
