"""One request's life at the router: draft, verify, commit, until the text ends. Pure asyncio, knows no Ray.

RemoteDrafter.draft ──▶ RemoteVerifier.verify ──▶ TokenLog.commit ──▶ client
    never waited for        replayed elsewhere        the only truth
    when cold or late       when its replica dies     about the text
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from common.messages import Verdict
from common.rounds import TokenLog
from common.types import GenerationRequest, Progress, TokenIds
from serve.errors import ReplicaLost, ServiceUnavailable, SessionRefused
from serve.lease import Lease, LeaseSource, take_lease
from serve.streams import StreamPool

T = TypeVar("T")
logger = logging.getLogger(__name__)


class RemoteVerifier:
    """The target's side of a session. Outlives its replica: what was committed is replayed at another.

    Args:
        attempts: leases tried in a row before the request is given up.
        backoff_s: pause after the first failure; it doubles with each.
    """

    def __init__(self, source: LeaseSource, streams: StreamPool, *, attempts: int = 6, backoff_s: float = 0.1) -> None:
        self._source = source
        self._streams = streams
        self._attempts = attempts
        self._backoff_s = backoff_s
        self._lease: Lease | None = None

    async def start(self, log: TokenLog) -> None:
        """Take the first lease. Raises ServiceOverloaded when none is free, ServiceUnavailable when none is there."""

        async def nothing(lease: Lease) -> None: ...

        await self._with_lease(log, nothing)

    async def verify(self, log: TokenLog, draft: TokenIds) -> Verdict:
        """Raises ServiceUnavailable when no verifier can be had, SessionRefused if the target will not go on."""
        return await self._with_lease(log, lambda lease: lease.verify(log, draft))

    async def _with_lease(self, log: TokenLog, act: Callable[[Lease], Awaitable[T]]) -> T:
        """Act at a replica; if it is lost, take another lease and act there."""
        for attempt in range(self._attempts):
            try:
                if self._lease is None:
                    self._lease = await take_lease(self._source, self._streams, log)
                return await act(self._lease)
            except ReplicaLost as error:
                logger.warning("verifier lost (attempt %d): %s", attempt + 1, error)
                await self.close()
                await asyncio.sleep(self._backoff_s * 2**attempt)
        raise ServiceUnavailable(f"no verifier could be reached in {self._attempts} attempts")

    async def close(self) -> None:
        if self._lease is not None:
            lease, self._lease = self._lease, None
            await lease.release()


class RemoteDrafter:
    """The drafter's side of a session: a lease taken in the background, a draft when there is one in time.

    Args:
        source: grants leases; None decodes plainly.
        draft_length: tokens asked for each round.
        deadline_s: a draft that takes longer is not waited for, and its drafter is given up.
        attempts: leases taken for one text; then it is decoded plainly.
    """

    def __init__(
        self,
        source: LeaseSource | None,
        streams: StreamPool,
        *,
        draft_length: int,
        deadline_s: float = 1.0,
        attempts: int = 3,
    ) -> None:
        self._source = source
        self._streams = streams
        self._draft_length = draft_length
        self._deadline_s = deadline_s
        self._attempts = attempts
        self._leasing: asyncio.Task[Lease] | None = None

    @property
    def name(self) -> str | None:
        """The drafter at work, None while there is none."""
        return self._lease.grant.name if self._lease is not None else None

    def start(self, log: TokenLog) -> None:
        """Ask for a lease; the text goes on meanwhile."""
        if self._source is not None and self._attempts > 0:
            self._attempts -= 1
            self._leasing = asyncio.create_task(take_lease(self._source, self._streams, log))

    async def draft(self, log: TokenLog) -> TokenIds:
        """A draft, or nothing: a drafter that is not there, late or broken costs a round, never the text."""
        if self._leasing is not None and self._leasing.done() and self._lease is None:
            await self._renew(log, self._leasing.exception())
        if self._lease is None:
            return ()
        try:
            async with asyncio.timeout(self._deadline_s):
                return await self._lease.propose(log, self._draft_length)
        except (TimeoutError, ReplicaLost, SessionRefused) as error:
            await self._renew(log, error)
            return ()

    async def close(self) -> None:
        if self._leasing is None:
            return
        leasing, self._leasing = self._leasing, None
        leasing.cancel()
        await asyncio.wait([leasing])
        if not leasing.cancelled() and leasing.exception() is None:
            await leasing.result().release()

    @property
    def _lease(self) -> Lease | None:
        leasing = self._leasing
        if leasing is None or not leasing.done() or leasing.cancelled() or leasing.exception():
            return None
        return leasing.result()

    async def _renew(self, log: TokenLog, error: BaseException | None) -> None:
        logger.warning("drafter lost: %r", error)
        await self.close()
        self.start(log)


async def generate(
    request: GenerationRequest, verifier: RemoteVerifier, drafter: RemoteDrafter
) -> AsyncGenerator[Progress]:
    """The rounds of one text. Whatever ends it, both leases are given up.

    Raises ServiceUnavailable or SessionRefused.
    """
    log = TokenLog(request)
    drafter.start(log)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(verifier.close)
        stack.push_async_callback(drafter.close)
        await verifier.start(log)  # by then the drafter's lease has mostly come as well
        while log.finish_reason is None:
            draft = await drafter.draft(log)
            verdict = await verifier.verify(log, draft)
            yield log.commit(draft, verdict, drafter.name)
