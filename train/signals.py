"""SIGINT and SIGTERM, while an event loop runs."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def on_signal(react: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Inside of it the running loop calls `react` at each signal, and nothing else happens.

    For the main thread, where alone signals can be received; the handlers from before (asyncio's and Ray's) come back.
    """
    loop = asyncio.get_running_loop()

    def receive(number: int, _: FrameType | None) -> None:
        loop.call_soon_threadsafe(react, signal.Signals(number))

    before = {number: signal.signal(number, receive) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
