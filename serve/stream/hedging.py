"""Leases where a replica may hang: a call that was sent there is never granted, and looks like one that waits in a
queue because all replicas are full. So it is not given up, and loses no place, but others are made beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection

from serve.errors import ReplicaLost
from serve.stream.lease import LeaseSource
from serve.stream.replica import LeaseGrant


class _Call:
    """One call for a lease, its grant waited for in a task."""

    def __init__(self, grants: AsyncGenerator[LeaseGrant]) -> None:
        self.grants = grants
        self.granted = asyncio.create_task(_first(grants))

    @property
    def failed(self) -> bool:
        return self.granted.done() and self.granted.exception() is not None

    async def close(self) -> None:
        self.granted.cancel()
        await asyncio.gather(self.granted, return_exceptions=True)
        await self.grants.aclose()


def hedged(source: LeaseSource, patience_s: float) -> LeaseSource:
    """Asks `source` again when nothing was granted for `patience_s`, then for twice as long, and so on.

    The first grant is taken and the other calls are given up. An error is raised only when no other call is left.
    """

    async def leases() -> AsyncGenerator[LeaseGrant]:
        calls: list[_Call] = []
        try:
            taken = await _race(calls, source, patience_s)
            await _close([call for call in calls if call is not taken])
            yield taken.granted.result()
            async for grant in taken.grants:
                yield grant
        finally:
            await _close(calls)

    return leases


async def _race(calls: list[_Call], source: LeaseSource, patience_s: float) -> _Call:
    """Adds to `calls`; returns the one that was granted, or the last one, however it ended."""
    calls.append(_Call(source()))
    while True:
        waiting = [call.granted for call in calls if not call.failed]
        done, _ = await asyncio.wait(waiting, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        ended = [call for call in calls if call.granted in done]
        granted = [call for call in ended if not call.failed]
        if granted or len(done) == len(waiting):
            return (granted or ended)[0]
        if not done:
            calls.append(_Call(source()))
            patience_s *= 2


async def _close(calls: Collection[_Call]) -> None:
    """They are closed also if this is cancelled."""
    await asyncio.shield(asyncio.gather(*(call.close() for call in calls)))


async def _first(grants: AsyncGenerator[LeaseGrant]) -> LeaseGrant:
    async for grant in grants:
        return grant
    raise ReplicaLost("the replica granted no lease")
