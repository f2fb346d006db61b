"""The emulated service at work on a mix of texts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import uvloop

from cluster.bench.emulated_service import MakeEngine, replica_processes, service
from cluster.bench.mixes import Mix
from cluster.bench.streams import Measured, Stream, Tally, measure
from serve.router import TargetModel
from serve.settings import ServeSettings
from serve.stream.lease import LeaseSource


class MixEngines(NamedTuple):
    """That write a mix, or another one with the same engines."""

    verifiers: list[LeaseSource]
    drafters: dict[str, list[LeaseSource]]
    """By language."""


@contextmanager
def replicas_of(mix: Mix, target: TargetModel) -> Iterator[MixEngines]:
    """Each in a process of its own, as long as the context lasts."""
    with ExitStack() as stack:

        def start(engine: MakeEngine, number: int) -> list[LeaseSource]:
            return stack.enter_context(replica_processes([engine] * number, target.fingerprint))

        emulated = {language: mix.emulated(language) for language in mix.languages}
        yield MixEngines(
            verifiers=start(next(iter(emulated.values())).verifier_engine, mix.verifiers),
            drafters={
                language: start(emulated[language].drafter_engine, texts.drafters)
                for language, texts in mix.languages.items()
                if texts.drafters
            },
        )


def write(
    mix: Mix, target: TargetModel, replicas: MixEngines, *, seconds: float, warm_up_s: float
) -> dict[str, Measured]:
    """All streams at the same time, with a router that has seen nothing yet; by language."""
    tallies = {language: Tally(mix.emulated(language)) for language in mix.languages}
    settings = ServeSettings(speculation=mix.speculation)

    async def written() -> dict[Tally, Measured]:
        with service(target, replicas.verifiers, replicas.drafters, settings) as router:
            streams = [
                Stream(texts, tallies[language]) for language in mix.languages for texts in mix.requests(language)
            ]
            return await measure(router, streams, seconds=seconds, warm_up_s=warm_up_s)

    found = uvloop.run(written())
    return {language: found[tally] for language, tally in tallies.items()}
