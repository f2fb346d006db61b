"""Streams at once: nothing is lost, errors end all, everything is closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.http.interleaving import interleaved


class Source:
    """Yields its items, then raises `error` if there is one."""

    def __init__(self, items: list[int], error: Exception | None = None) -> None:
        self.items = items
        self.error = error
        self.taken = 0
        self.closed = False

    async def read(self) -> AsyncGenerator[int, None]:
        try:
            for item in self.items:
                self.taken += 1
                yield item
                await asyncio.sleep(0)
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


@given(st.lists(st.lists(st.integers(), max_size=5), max_size=5))
def test_every_item_comes_in_its_sources_order(lists: list[list[int]]) -> None:
    async def collect() -> list[tuple[int, int]]:
        async def tagged(index: int) -> AsyncGenerator[tuple[int, int], None]:
            async for item in Source(lists[index]).read():
                yield index, item

        return [pair async for pair in interleaved([tagged(index) for index in range(len(lists))])]

    found = asyncio.run(collect())
    assert [[item for index, item in found if index == wanted] for wanted in range(len(lists))] == lists


async def test_an_error_of_one_closes_all_and_is_raised() -> None:
    endless, failing = Source(list(range(1000))), Source([1, 2], RuntimeError("lost"))
    with pytest.raises(RuntimeError, match="lost"):
        async for _ in interleaved([endless.read(), failing.read()]):
            pass
    assert endless.closed and failing.closed
    assert endless.taken < 1000


async def test_closing_closes_all() -> None:
    sources = [Source(list(range(1000))) for _ in range(3)]
    merged = interleaved([source.read() for source in sources])
    await anext(merged)
    await merged.aclose()
    assert all(source.closed for source in sources)


async def test_sources_wait_for_a_slow_reader() -> None:
    sources = [Source(list(range(1000))) for _ in range(3)]
    merged = interleaved([source.read() for source in sources])
    await anext(merged)
    for _ in range(100):
        await asyncio.sleep(0)
    assert sum(source.taken for source in sources) <= 2 * len(sources) + 1
    await merged.aclose()
