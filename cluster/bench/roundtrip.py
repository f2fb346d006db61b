"""What one draft–verify round costs to coordinate, through real Serve replicas.

Three deployments on one machine: a prober (it stands where the router stands), a verifier and a drafter. Their
engines answer at once, so that only the way there and back is timed. In turns, the same round is made

    by our path      lease, then a frame each way on an open stream: propose → draft, verify → verdict
    by handle calls  two `DeploymentHandle` calls, awaited one after the other
"""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator
from typing import Any

import ray
from ray import serve as ray_serve
from ray.serve.handle import DeploymentHandle

from cluster.bench.instant import InstantEngine
from cluster.bench.report import report
from cluster.run import start_ray
from common.models import Fingerprint
from common.rounds import TokenLog
from common.types import GenerationRequest, SamplingParams, TokenIds
from serve.handles import leases_of
from serve.stream.lease import take_lease
from serve.stream.replica import LeaseGrant, Replica
from serve.stream.streams import StreamPool

DRAFT = (11, 12, 13, 14)
PROMPT = tuple(range(1, 33))
APP = "roundtrip"


class InstantReplica:
    """A model replica with an instant engine, reachable both ways."""

    # Ray awaits an asynchronous constructor; type checkers do not know.
    async def __init__(self) -> None:  # type: ignore[misc]
        fingerprint = Fingerprint(tokens="", special_tokens={}, vocab_size=16, context_length=10**9)
        host = ray.util.get_node_ip_address()
        self._replica = Replica(InstantEngine, name="instant", fingerprint=fingerprint, host=host)
        await self._replica.start()

    async def lease(self) -> AsyncIterator[LeaseGrant]:
        async for grant in self._replica.lease():
            yield grant

    async def propose(self, base: int, committed: TokenIds) -> TokenIds:
        return DRAFT

    async def verify(self, base: int, draft: TokenIds) -> tuple[int, int]:
        return len(draft), 15


class Prober:
    """Makes the rounds."""

    def __init__(self, verifier: DeploymentHandle, drafter: DeploymentHandle) -> None:
        self._verifier, self._drafter = verifier, drafter

    async def measure(self, rounds: int) -> dict[str, list[float]]:
        """Milliseconds of each round, both ways in turns of a hundred, after one unmeasured turn each."""
        streams = StreamPool()
        log = TokenLog(GenerationRequest(prompt=PROMPT, max_tokens=10**8, sampling=SamplingParams()))
        verifier = await take_lease(leases_of(self._verifier), streams)
        drafter = await take_lease(leases_of(self._drafter), streams)

        async def stream_round() -> None:
            draft = (await drafter.propose(log, len(DRAFT))).tokens
            log.commit(draft, await verifier.verify(log, draft))

        async def handle_round() -> None:
            draft = await self._drafter.propose.remote(len(PROMPT), DRAFT)
            await self._verifier.verify.remote(len(PROMPT), draft)

        times: dict[str, list[float]] = {"stream": [], "handle": []}
        for turn in range(1 + max(1, rounds // 100)):
            for way, make_round in (("stream", stream_round), ("handle", handle_round)):
                measured = [await _milliseconds(make_round) for _ in range(100)]
                times[way] += measured if turn else []
        drafter.release()
        verifier.release()
        return times


async def _milliseconds(make_round: Any) -> float:
    started = time.perf_counter()
    await make_round()
    return (time.perf_counter() - started) * 1e3


def main(rounds: int) -> None:
    """Deploy, measure, report."""
    start_ray()
    replica = ray_serve.deployment(InstantReplica).options(ray_actor_options={"num_cpus": 0.1})
    prober = ray_serve.deployment(Prober).options(ray_actor_options={"num_cpus": 0.1})
    app = prober.bind(replica.options(name="Verifier").bind(), replica.options(name="Drafter").bind())
    handle = ray_serve.run(app, name=APP, route_prefix=None)
    times = handle.measure.remote(rounds).result()
    ray_serve.delete(APP)
    rows = [[way, f"{len(t)}", f"{_quantile(t, 50):.3f}", f"{_quantile(t, 99):.3f}"] for way, t in times.items()]
    ours, theirs = times["stream"], times["handle"]
    report(
        "coordination of one draft-verify round, engines that answer at once",
        ["path", "rounds", "p50 ms", "p99 ms"],
        rows,
        {
            "p50_ms": round(_quantile(ours, 50), 4),
            "p99_ms": round(_quantile(ours, 99), 4),
            "handle_p50_ms": round(_quantile(theirs, 50), 4),
            "handle_p99_ms": round(_quantile(theirs, 99), 4),
            "ratio": round(_quantile(theirs, 50) / _quantile(ours, 50), 2),
        },
    )


def _quantile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]
