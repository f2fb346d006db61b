"""The target's side of one text: a lease on a verifier replica, taken anew elsewhere when the replica is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from common.messages import Prefilled, Verdict
from common.rounds import TokenLog
from common.types import TokenIds
from serve.errors import ReplicaLost, ServiceOverloaded, ServiceUnavailable, SessionRefused
from serve.stream.lease import Lease, LeaseSource, take_lease
from serve.stream.streams import StreamPool

T = TypeVar("T")
logger = logging.getLogger(__name__)


class RemoteVerifier:
    """Outlives its replica: what was committed is replayed at another.

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
        self.losses = 0
        """Replicas lost so far."""

    async def start(self, log: TokenLog) -> None:
        """Take the first lease. Raises ServiceOverloaded when none is free, ServiceUnavailable when none is there."""

        async def nothing(lease: Lease) -> None: ...

        await self._with_lease(log, nothing)

    async def prefill(self, log: TokenLog) -> Prefilled:
        """Log-probabilities of the next tokens of the prompt. Raises what `verify` raises."""
        return await self._with_lease(log, lambda lease: lease.prefill(log))

    async def verify(self, log: TokenLog, draft: TokenIds) -> Verdict:
        """Raises ServiceUnavailable when no verifier can be had, SessionRefused if the target will not go on."""
        return await self._with_lease(log, lambda lease: lease.verify(log, draft))

    async def _with_lease(self, log: TokenLog, act: Callable[[Lease], Awaitable[T]]) -> T:
        """Act at a replica; if it is lost, or gives up a text that it has begun, take another lease and act there."""
        for attempt in range(self._attempts):
            if attempt:
                await asyncio.sleep(self._backoff_s * 2 ** (attempt - 1))
            try:
                if self._lease is None:
                    self._lease = await take_lease(self._source, self._streams)
                return await act(self._lease)
            except (ReplicaLost, ServiceOverloaded, SessionRefused) as error:
                if not log.begun and not isinstance(error, ReplicaLost):
                    raise  # nothing has been written: the client may as well be told
                logger.warning("verifier lost (attempt %d): %s", attempt + 1, error)
                self.losses += 1
                self.close()
        raise ServiceUnavailable(f"no verifier could be reached in {self._attempts} attempts")

    def close(self) -> None:
        if self._lease is not None:
            lease, self._lease = self._lease, None
            lease.release()
