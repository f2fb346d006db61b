"""Several streams at once, as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")


async def interleaved(sources: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
    """What `sources` yield, in the order in which it comes; each runs in a task of its own, from beginning to end.

    A source is at most a few items ahead of the reader. However this ends, all sources are closed first; the first
    error among them is raised.
    """
    arrived: asyncio.Queue[T | asyncio.Task[None]] = asyncio.Queue()
    room = asyncio.Semaphore(len(sources))

    async def pump(source: AsyncGenerator[T, None]) -> None:
        async with aclosing(source):
            async for item in source:
                await room.acquire()
                arrived.put_nowait(item)

    pumps = [asyncio.create_task(pump(source)) for source in sources]
    for task in pumps:
        task.add_done_callback(arrived.put_nowait)
    running = len(pumps)
    try:
        while running:
            item = await arrived.get()
            if isinstance(item, asyncio.Task):
                running -= 1
                item.result()
            else:
                room.release()
                yield item
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
