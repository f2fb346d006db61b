"""One request's life at the router: draft, verify, commit, until the text ends. Pure asyncio, knows no Ray.

Speculation.draft ──▶ RemoteVerifier.verify ──▶ TokenLog.commit ──▶ client
   never waited for      replayed elsewhere        the only truth
   when cold or late     when its replica dies     about the text

A text is written in a task of its own, a round ahead of whoever reads it: what draft-length controller, metrics and
client make of a round is made while the next one is under way, and holds up neither this text nor those that share a
step with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator

from common.rounds import TokenLog
from common.types import GenerationRequest, Progress, Timings
from serve.drafting.speculation import Speculation, Verified
from serve.errors import RequestTimeout
from serve.remote_verifier import RemoteVerifier


async def generate(
    request: GenerationRequest, verifier: RemoteVerifier, speculation: Speculation, *, time_limit_s: float | None = None
) -> AsyncGenerator[Progress]:
    """The rounds of one text. Whatever ends it, all leases are given up.

    Raises ServiceUnavailable, ServiceOverloaded, SessionRefused, or RequestTimeout once `time_limit_s` has passed; what
    was written until then comes first.
    """
    log = TokenLog(request)
    writer = _Writer(log, verifier, speculation, time_limit_s)
    try:
        while (written := await writer.next()) is not None:
            progress, verified = written
            if verified is not None:
                speculation.learn(log, verified)
            yield progress
    finally:
        writer.stop()


Written = tuple[Progress, Verified | None]
"""A round, and what there is to learn from it."""


class _Writer:
    """Writes a text; begins no round while two are still to be read."""

    def __init__(
        self, log: TokenLog, verifier: RemoteVerifier, speculation: Speculation, time_limit_s: float | None
    ) -> None:
        self._log = log
        self._verifier = verifier
        self._speculation = speculation
        self._time_limit_s = time_limit_s
        self._written: asyncio.Queue[Written | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(2)
        self._ended_at = time.perf_counter()
        """Of the latest round."""
        self._task = asyncio.create_task(self._write())
        self._task.add_done_callback(self._ended)

    async def next(self) -> Written | None:
        """None after the last; raises what has ended the writing before it."""
        written = await self._written.get()
        if written is None:
            self._task.result()
        self._room.release()
        return written

    def stop(self) -> None:
        """Nothing is waited for, so nobody's cancellation can come in between; it ends some turns of the loop later."""
        self._task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # whoever reads on sees it; nobody reading on is no error
        self._written.put_nowait(None)

    async def _write(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._verifier.close)
            stack.callback(self._speculation.close)
            try:
                async with asyncio.timeout(self._time_limit_s):
                    await self._write_rounds()
            except TimeoutError:
                raise RequestTimeout(f"not finished within {self._time_limit_s:g} s") from None

    async def _write_rounds(self) -> None:
        while self._log.finish_reason is None:
            await self._room.acquire()  # before the round: a text that is complete waits for nobody
            written = await (self._prefill() if self._log.prefilling else self._round())
            # The reader wakes up behind whatever this turn of the loop sends: the next question leaves first.
            asyncio.get_running_loop().call_soon(self._written.put_nowait, written)

    async def _prefill(self) -> Written:
        """Some of the prompt's log-probabilities; nothing is drafted meanwhile."""
        asked = time.perf_counter()
        prefilled = await self._verifier.prefill(self._log)
        wall_s, model_s = time.perf_counter() - asked, prefilled.cost.seconds
        return self._log.commit_prompt(prefilled, Timings(verify_s=model_s, wire_s=max(0.0, wall_s - model_s))), None

    async def _round(self) -> Written:
        log = self._log
        if log.stats.rounds == 0:
            self._speculation.start(log)
            await self._verifier.start(log)  # by then the drafter's lease has mostly come as well
        drafted = await self._speculation.draft(log)
        asked = time.perf_counter()
        verdict = await self._verifier.verify(log, drafted.tokens)
        began_at, self._ended_at = self._ended_at, time.perf_counter()
        verified = Verified(drafted, verdict, wall_s=self._ended_at - asked, seconds=self._ended_at - began_at)
        model_s = drafted.cost.seconds + verdict.cost.seconds
        timings = Timings(
            draft_s=drafted.cost.seconds,
            verify_s=verdict.cost.seconds,
            wire_s=max(0.0, drafted.wall_s + verified.wall_s - model_s),
        )
        return log.commit(drafted.tokens, verdict, drafted.version, timings, ahead=drafted.ahead), verified
