"""One request's life at the router: draft, verify, commit, until the text ends. Pure asyncio, knows no Ray.

Speculation.draft ──▶ RemoteVerifier.verify ──▶ TokenLog.commit ──▶ client
   never waited for      replayed elsewhere        the only truth
   when cold or late     when its replica dies     about the text
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator

from common.rounds import TokenLog
from common.types import GenerationRequest, Progress, Timings
from serve.drafting.speculation import Speculation
from serve.errors import RequestTimeout
from serve.remote_verifier import RemoteVerifier


async def generate(
    request: GenerationRequest, verifier: RemoteVerifier, speculation: Speculation, *, time_limit_s: float | None = None
) -> AsyncGenerator[Progress]:
    """The rounds of one text. Whatever ends it, all leases are given up.

    Raises ServiceUnavailable, ServiceOverloaded, SessionRefused, or RequestTimeout once `time_limit_s` has passed.
    """
    log = TokenLog(request)
    until = asyncio.get_running_loop().time() + time_limit_s if time_limit_s is not None else None
    with contextlib.ExitStack() as stack:
        stack.callback(verifier.close)
        stack.callback(speculation.close)
        while log.finish_reason is None:
            # Not around the yield: there the time is the client's.
            try:
                async with asyncio.timeout_at(until):
                    progress = await (_prefill(log, verifier) if log.prefilling else _round(log, verifier, speculation))
            except TimeoutError:
                raise RequestTimeout(f"not finished within {time_limit_s:g} s") from None
            yield progress


async def _prefill(log: TokenLog, verifier: RemoteVerifier) -> Progress:
    """Some of the prompt's log-probabilities; nothing is drafted meanwhile."""
    asked = time.perf_counter()
    prefilled = await verifier.prefill(log)
    wall_s, model_s = time.perf_counter() - asked, prefilled.cost.seconds
    return log.commit_prompt(prefilled, Timings(verify_s=model_s, wire_s=max(0.0, wall_s - model_s)))


async def _round(log: TokenLog, verifier: RemoteVerifier, speculation: Speculation) -> Progress:
    if log.stats.rounds == 0:
        speculation.start(log)
        await verifier.start(log)  # by then the drafter's lease has mostly come as well
    drafted = await speculation.draft(log)
    asked = time.perf_counter()
    verdict = await verifier.verify(log, drafted.tokens)
    wall_s = time.perf_counter() - asked
    model_s = drafted.cost.seconds + verdict.cost.seconds
    timings = Timings(
        draft_s=drafted.cost.seconds,
        verify_s=verdict.cost.seconds,
        wire_s=max(0.0, drafted.wall_s + wall_s - model_s),
    )
    progress = log.commit(drafted.tokens, verdict, drafted.version, timings, ahead=drafted.ahead)
    speculation.learn(log, drafted, verdict, wall_s)
    return progress
