"""What clients see while replicas are killed: seeded streams over HTTP, first undisturbed, then with faults.

    streams   ask the same questions over and over, sixteen at a time
    killer    waits until its next victim's replicas are all up, kills the busiest (SIGKILL), goes to the next

Verifiers and drafters are killed in turns. Every text must be the one that the same question got undisturbed.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from cluster.bench.http_load import Endpoint, LoadGenerator, Question, Reply
from cluster.bench.replicas import Replicas, kill
from cluster.bench.report import report
from cluster.bench.service import make_questions, serving
from cluster.config import Config
from cluster.deployment import usable_drafters
from cluster.run import Run
from serve.app import drafter_app_name
from serve.handles import DRAFTER, MAIN_APP, VERIFIER
from serve.model_replica import ReplicaStatus

STREAMS = 16
QUESTIONS = 48
TEMPERATURES = (0.0, 0.7)
POLL_S = 0.1
RECOVERY_S = 300.0
"""A killed replica that is not replaced by then ends the benchmark."""
FREED_S = 10.0
"""What is still held so long after the last text is a leak."""
logger = logging.getLogger(__name__)


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """One replica killed."""

    victim: str
    """Application and deployment."""
    held: int
    """Texts in progress there."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What the benchmark found."""

    kills: int
    failed: int
    """Questions without a whole text, in either run."""
    unequal: int
    """Whole texts that differ from the undisturbed run's."""
    leaked: int
    """Sessions and leases still held after the last text."""
    longest_pause_s: float
    """That a client waited for the first piece of a text, the next one, or its end."""
    undisturbed_longest_pause_s: float
    texts: int
    """Of the disturbed run."""


def main(run: Run, data: str, kills: int) -> None:
    """Deploy, write all texts undisturbed and then under faults, report.

    Raises CorpusError, SettingsError, and TimeoutError if a killed replica is not replaced.
    """
    questions = make_questions(run, data, run.config.languages, QUESTIONS, TEMPERATURES)
    config = with_two_verifiers(run.config)
    drafters = usable_drafters(config, run.target, run.registry)
    with serving(run, config, drafters) as endpoint, LoadGenerator() as load:
        deployments = [Replicas(MAIN_APP, VERIFIER), *(Replicas(drafter_app_name(name), DRAFTER) for name in drafters)]
        done, figures = asyncio.run(measure(load, endpoint, questions, deployments, kills))
    report(
        f"{STREAMS} streams while replicas are killed",
        ["kill", "replica of", "texts in progress there"],
        [[f"{number}", kill.victim, f"{kill.held}"] for number, kill in enumerate(done, start=1)],
        msgspec.to_builtins(figures),
    )


def with_two_verifiers(config: Config) -> Config:
    """So that one can take over; in float64, so that a text that differs is a fault and not rounding."""
    verifier = config.serve.verifier
    changed = msgspec.structs.replace(
        verifier,
        num_replicas=max(2, verifier.num_replicas),
        dtype="float64" if verifier.dtype == "float32" else verifier.dtype,
    )
    return msgspec.structs.replace(config, serve=msgspec.structs.replace(config.serve, verifier=changed))


async def measure(
    load: LoadGenerator,
    endpoint: Endpoint,
    questions: Sequence[Question],
    deployments: Sequence[Replicas],
    kills: int,
    streams: int = STREAMS,
) -> tuple[list[Kill], Figures]:
    """Both runs, and what is held after them. `deployments`: the verifier's, then the drafters'."""
    whole = {deployment: len(await deployment.status()) for deployment in deployments}
    undisturbed = await asyncio.wrap_future(load.start(endpoint, questions, streams))
    writing = load.start(endpoint, questions, streams, repeat=True)
    try:
        done = [await _kill_busiest(d, whole[d]) for d in itertools.islice(victims(deployments), kills)]
        for deployment in deployments:
            await at_work(deployment, whole[deployment])
    finally:
        load.stop()
        disturbed = await asyncio.wrap_future(writing)
    leaked = await held_for_nothing(whole)
    return done, compare(undisturbed.replies, disturbed.replies, kills=len(done), leaked=leaked)


def victims(deployments: Sequence[Replicas]) -> Iterator[Replicas]:
    """Verifier, first drafter, verifier, second drafter, … for ever."""
    verifier, *drafters = deployments
    for drafter in itertools.cycle(drafters or [verifier]):
        yield verifier
        yield drafter


def compare(undisturbed: Sequence[Reply], disturbed: Sequence[Reply], *, kills: int, leaked: int) -> Figures:
    """Both in the order of the questions, the disturbed ones over and over."""
    failed = [reply for reply in (*undisturbed, *disturbed) if reply.error is not None]
    for reply in failed:
        logger.error("no whole text: %s", reply.error)
    both = zip(itertools.cycle(undisturbed), disturbed, strict=False)
    return Figures(
        kills=kills,
        failed=len(failed),
        unequal=sum(before.text != after.text for before, after in both if not (before.error or after.error)),
        leaked=leaked,
        longest_pause_s=_longest_pause(disturbed),
        undisturbed_longest_pause_s=_longest_pause(undisturbed),
        texts=len(disturbed),
    )


def _longest_pause(replies: Sequence[Reply]) -> float:
    times = ([reply.started_s, *reply.piece_times_s, reply.ended_s] for reply in replies)
    return round(max(after - before for t in times for before, after in itertools.pairwise(t)), 3)


async def _kill_busiest(deployment: Replicas, whole: int) -> Kill:
    victim = max(await at_work(deployment, whole), key=lambda replica: replica.held)
    logger.info("killing %s, %d texts in progress", victim.actor, victim.held)
    await asyncio.to_thread(kill, victim.actor)
    return Kill(victim=deployment.name, held=victim.held)


async def at_work(deployment: Replicas, whole: int) -> list[ReplicaStatus]:
    """All replicas, once they are up and texts in progress there. Raises TimeoutError."""
    deadline = time.monotonic() + RECOVERY_S
    while time.monotonic() < deadline:
        replicas = await deployment.status()
        if len(replicas) >= whole and any(replica.held for replica in replicas):
            return replicas
        await asyncio.sleep(POLL_S)
    raise TimeoutError(f"{deployment.name}: its {whole} replicas are not up and at work after {RECOVERY_S:.0f} s")


async def held_for_nothing(whole: Mapping[Replicas, int]) -> int:
    """Sessions and leases that are held although no text is in progress, by so many replicas of each deployment.

    Raises TimeoutError if some of them do not say.
    """
    deadline = time.monotonic() + FREED_S
    while True:
        told = [(deployment.name, count, await deployment.status()) for deployment, count in whole.items()]
        silent = [name for name, count, replicas in told if len(replicas) < count]
        held = sum(replica.held for _, _, replicas in told for replica in replicas)
        late = time.monotonic() > deadline
        if late and silent:
            raise TimeoutError(f"{', '.join(silent)}: some replicas do not say what they hold")
        if late or not (silent or held):
            return held
        await asyncio.sleep(POLL_S)
