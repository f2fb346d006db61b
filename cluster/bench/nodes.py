"""What clients see while a whole machine dies and another one comes: three raylets on this machine.

    head      the router, and Serve's proxy
    first     a verifier
    second    a verifier, and all drafters     killed under load; a third one like it is added

Every text must be the one that the same question got undisturbed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import ray
from ray.cluster_utils import Cluster

from cluster.bench.faults import (
    POLL_S,
    QUESTIONS,
    STREAMS,
    TEMPERATURES,
    Figures,
    at_work,
    compare,
    held_for_nothing,
    with_two_verifiers,
)
from cluster.bench.http_load import Endpoint, LoadGenerator, Question
from cluster.bench.replicas import Replicas
from cluster.bench.report import report
from cluster.bench.service import make_questions, serving
from cluster.config import Config
from cluster.deployment import usable_drafters
from cluster.run import Run
from serve.app import drafter_app_name
from serve.handles import DRAFTER, MAIN_APP, VERIFIER

WORKER_CPUS = 4
HEAD_CPUS = 2 * WORKER_CPUS
"""More than a worker has, and the router asks for all of them: so it is on the head."""
FIRST = {"verifier": 1.0}
SECOND = {"verifier": 1.0, "drafter": 1.0}


class Machines:
    """Three raylets, each with its own number of replicas that it can take."""

    def __init__(self) -> None:
        self._cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": HEAD_CPUS, "include_dashboard": False}
        )
        self._cluster.add_node(num_cpus=WORKER_CPUS, resources=FIRST)
        self._second = self._cluster.add_node(num_cpus=WORKER_CPUS, resources=SECOND)
        ray.init(address=self._cluster.address, logging_level="warning", log_to_driver=False)

    def replace_second(self) -> str:
        """Kill it without warning, with all that ran there; another one like it comes up. Returns the dead one's id."""
        died = self._second
        self._cluster.remove_node(died, allow_graceful=False)
        self._second = self._cluster.add_node(num_cpus=WORKER_CPUS, resources=SECOND)
        return str(died.node_id)

    def close(self) -> None:
        ray.shutdown()
        self._cluster.shutdown()


@contextmanager
def machines() -> Iterator[Machines]:
    made = Machines()
    try:
        yield made
    finally:
        made.close()


def main(run: Run, data: str) -> None:
    """Deploy, write all texts undisturbed and then while a machine is replaced, report.

    Raises CorpusError, SettingsError, and TimeoutError if what was lost is not replaced.
    """
    questions = make_questions(run, data, run.config.languages, QUESTIONS, TEMPERATURES)
    config = placed(with_two_verifiers(run.config))
    drafters = usable_drafters(config, run.target, run.registry)
    # Connections to the proxy of a machine that dies break with it: clients of the head's lose nothing.
    with machines() as three, serving(run, config, drafters, "HeadOnly") as endpoint, LoadGenerator() as load:
        deployments = [Replicas(MAIN_APP, VERIFIER), *(Replicas(drafter_app_name(name), DRAFTER) for name in drafters)]
        lost, figures = asyncio.run(measure(load, endpoint, questions, deployments, three))
    report(
        f"{STREAMS} streams while one of three machines dies",
        ["replicas of", "on the machine that died", "in all"],
        [[name, str(gone), str(whole)] for name, (gone, whole) in lost.items()],
        msgspec.to_builtins(figures),
    )


def placed(config: Config) -> Config:
    """The router on the head, a verifier on each worker, the drafters on the second."""
    replace: Any = msgspec.structs.replace
    serve = config.serve
    verifier = replace(serve.verifier, num_replicas=2, autoscaling=None, resources={"verifier": 1.0})
    drafter = replace(serve.drafter, resources={"drafter": 0.01})
    changed = replace(serve, router_replicas=1, router_cpus=HEAD_CPUS, verifier=verifier, drafter=drafter)
    made: Config = replace(config, serve=changed)
    return made


async def measure(
    load: LoadGenerator,
    endpoint: Endpoint,
    questions: Sequence[Question],
    deployments: Sequence[Replicas],
    three: Machines,
    streams: int = STREAMS,
) -> tuple[dict[str, tuple[int, int]], Figures]:
    """Replicas that died and replicas in all, by deployment; and both runs compared."""
    whole = {deployment: len(await deployment.status()) for deployment in deployments}
    undisturbed = await asyncio.wrap_future(load.start(endpoint, questions, streams))
    writing = load.start(endpoint, questions, streams, repeat=True)
    try:
        before = {d: [status.node for status in await at_work(d, whole[d])] for d in deployments}
        # In this thread, where Ray sets its signal handlers; the load is made by another process.
        died = three.replace_second()
        for deployment in deployments:
            await _elsewhere(deployment, whole[deployment], died)
    finally:
        load.stop()
        disturbed = await asyncio.wrap_future(writing)
    lost = {d.name: (nodes.count(died), len(nodes)) for d, nodes in before.items()}
    kills, left = sum(gone for gone, _ in lost.values()), await held_for_nothing(whole)
    return lost, compare(undisturbed.replies, disturbed.replies, kills=kills, leaked=left)


async def _elsewhere(deployment: Replicas, whole: int, died: str) -> None:
    """Until all replicas are up and at work on other machines: processes outlive their raylet for a moment."""
    while any(status.node == died for status in await at_work(deployment, whole)):
        await asyncio.sleep(POLL_S)
