"""The engine's own thread: requests in, replies out, the event loop never waits for a forward pass.

    event loop ──submit──▶ queue ──▶ thread: handle all, step, gather, step … (sleeps when not busy)
    event loop ◀──call_soon_threadsafe(replies)──┘

If the thread dies, everyone waiting is told, and whoever asks later as well.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from common.engine.session import Key
from common.messages import Close, Failure, Reply, Request
from serve.stream.gathering import Gathering

Replies = Sequence[tuple[Key, Reply]]


class SteppedEngine(Protocol):
    """What the thread runs: `common.engine.Engine`, or something that stands in for it in tests and benchmarks."""

    @property
    def busy(self) -> bool: ...
    @property
    def num_sessions(self) -> int: ...
    def handle(self, key: Key, request: Request) -> None: ...
    def step(self) -> Replies: ...
    def check_integrity(self) -> None: ...


class EngineThread:
    """Args:
    engine: touched by the thread only, from here on.
    on_replies: called in the event loop with what a step answered.
    on_death: called in the event loop, once, if the thread dies of an error.
    """

    def __init__(
        self,
        engine: SteppedEngine,
        on_replies: Callable[[Replies], None],
        on_death: Callable[[BaseException], None],
    ) -> None:
        self._engine = engine
        self._on_replies = on_replies
        self._on_death = on_death
        self._requests: queue.SimpleQueue[tuple[Key, Request, float] | None] = queue.SimpleQueue()
        self._gathering = Gathering()
        self._step_began: float | None = None
        self._session_ended = False
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._running = self._loop.run_in_executor(self._executor, self._run)
        self._running.add_done_callback(self._ended)

    def submit(self, key: Key, request: Request) -> None:
        self._requests.put((key, request, time.perf_counter()))

    @property
    def step_s(self) -> float:
        """Seconds that the step under way has taken so far; 0 between steps."""
        began = self._step_began
        return 0.0 if began is None else time.perf_counter() - began

    async def stop(self) -> None:
        """Ends after the step under way; what is still pending is dropped."""
        self._requests.put(None)
        await asyncio.wait([self._running])
        self._executor.shutdown(wait=False)

    def _run(self) -> None:
        while self._take():
            began = self._step_began = time.perf_counter()
            replies = self._engine.step()
            self._step_began = None
            step_s = time.perf_counter() - began
            if replies:
                self._loop.call_soon_threadsafe(self._on_replies, replies)
                # What needed no forward pass says nothing about steps, and nobody is to be waited for on its account.
                answered = [key for key, reply in replies if not isinstance(reply, Failure) and reply.cost.seconds]
                if answered:
                    self._gathering.answered(answered, step_s)
            elif self._session_ended and not self._engine.busy:
                # Idle is when a leak can be told from work in progress; between its rounds a text is not idle for long.
                self._session_ended = False
                self._engine.check_integrity()

    def _take(self) -> bool:
        """Hand over all requests that have come, waiting for one if there is nothing else to do; False to stop."""
        taken = False
        while True:
            wait_s = None
            if self._requests.empty() and (taken or self._engine.busy):
                wait_s = self._gathering.patience()
            try:
                item = self._requests.get(block=wait_s != 0.0, timeout=wait_s)
            except queue.Empty:
                return True
            if item is None:
                return False
            key, request, came_s = item
            if isinstance(request, Close):
                self._gathering.ended(key)
                self._session_ended = True
            else:
                self._gathering.came(key, came_s)
            self._engine.handle(key, request)
            taken = True

    def _ended(self, running: asyncio.Future[None]) -> None:
        error = None if running.cancelled() else running.exception()
        if error is not None:
            self._on_death(error)
