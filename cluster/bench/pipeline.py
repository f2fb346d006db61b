"""How near the pipeline of router, verifier and drafter comes to what its engines' times allow: all figures emulated.

    serial           one text, against max over n of E[tokens(n)] / (n drafts + a verification)
    batched          many texts, against as many times that, all of them sharing each step
    regret           what the controller loses, by learning and exploring, of the best fixed length, measured as well
    never accepted   one text whose drafts are all wrong, learning included, against one that is never drafted for
    router           rounds that a router's process carries in a second of its processor time, with engines that answer
                     at once and say that they took the emulated times

A round counts for the tokens that its draft was worth on average: luck is no merit of a pipeline's. What was really
written is told beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import msgspec
import uvloop

from cluster.bench.emulated import CONTEXT_LENGTH, Emulated
from cluster.bench.emulated_service import MakeEngine, replica_processes, service, write_target
from cluster.bench.instant import InstantEngine
from cluster.bench.report import report
from cluster.bench.streams import Measured, Stream, Tally, measure
from common.types import GenerationRequest, SamplingParams
from serve.drafting.settings import SpeculationSettings
from serve.router import TargetModel
from serve.settings import RUN_AHEAD, ServeSettings

LANGUAGE = "de"
"""The one whose drafter there is."""
ROUTER_STREAMS = 64
WARM_UP_S = 5.0
"""Before a measurement, unless what is learned at the start is to be measured too."""

Turns = Sequence[Sequence[GenerationRequest]]


def requests(count: int, **fields: Any) -> list[GenerationRequest]:
    """Different texts, longer than any that is measured."""
    return [
        GenerationRequest(
            prompt=(number, number, *range(14)),
            max_tokens=CONTEXT_LENGTH // 2,
            sampling=SamplingParams(temperature=0.0),
            language=LANGUAGE,
            **fields,
        )
        for number in range(count)
    ]


class Pipeline:
    """Makes the measurements, each with replicas and a router that have seen nothing yet."""

    def __init__(
        self, emulated: Emulated, seconds: float, target: TargetModel, *, draft_length: int | None = None
    ) -> None:
        self._emulated = emulated
        self._seconds = seconds
        self._target = target
        self._settings = ServeSettings(speculation=SpeculationSettings(draft_length=draft_length))

    def always(self, drafted: int) -> Self:
        """One that drafts so many tokens whatever it learns."""
        return type(self)(self._emulated, self._seconds, self._target, draft_length=drafted)

    def texts(self, streams: int, *, run_ahead: int = 0) -> Measured:
        """Speculation as the controller sees fit, if it is asked."""
        emulated = msgspec.structs.replace(self._emulated, run_ahead=run_ahead)
        return self._run(emulated, [requests(streams)], warm_up_s=WARM_UP_S)[0]

    def never_accepted(self) -> tuple[Measured, Measured]:
        """With drafts that are all wrong, and without any."""
        useless = msgspec.structs.replace(self._emulated, acceptance=0.0, runner_up=0.0)
        drafted, plain = self._run(useless, [requests(1), requests(1, max_draft_length=0)], warm_up_s=0.0)
        return drafted, plain

    def router(self) -> Measured:
        """Many texts at engines that answer at once."""
        engines = [partial(InstantEngine, says) for says in (self._emulated.verify, self._emulated.draft)]
        return self._measure(self._emulated, engines, [requests(ROUTER_STREAMS)], warm_up_s=WARM_UP_S)[0]

    def _run(self, emulated: Emulated, turns: Turns, *, warm_up_s: float) -> list[Measured]:
        engines = emulated.verifier_engine, emulated.drafter_engine
        return self._measure(emulated, engines, turns, warm_up_s=warm_up_s)

    def _measure(
        self, emulated: Emulated, engines: Sequence[MakeEngine], turns: Turns, *, warm_up_s: float
    ) -> list[Measured]:
        """Each turn's texts together, the turns one after the other at the same replicas."""
        with replica_processes(engines, self._target.fingerprint) as (verifier, drafter):

            async def measure_turn(texts: Sequence[GenerationRequest]) -> Measured:
                with service(self._target, [verifier], {LANGUAGE: [drafter]}, self._settings) as router:
                    tally = Tally(emulated)
                    streams = [Stream([text], tally) for text in texts]
                    return (await measure(router, streams, seconds=self._seconds, warm_up_s=warm_up_s))[tally]

            return [uvloop.run(measure_turn(texts)) for texts in turns]


class Result(msgspec.Struct, kw_only=True):
    """What is reported; None was not measured."""

    efficiency_serial: float | None = None
    efficiency_run_ahead: float | None = None
    """Of one text, by the same ideal as `efficiency_serial`."""
    efficiency_batched: float | None = None
    regret: dict[str, float] = {}
    """1 - the throughput over that of the best fixed length, of `one` text and of `many`, the most streams."""
    never_accepted: float | None = None
    rounds_per_s: int | None = None


def main(emulated: Emulated, streams: Sequence[int], seconds: float, cases: Collection[str]) -> None:
    """Measure, report. The batched efficiency is that of the most streams."""
    result, rows = Result(), []
    with TemporaryDirectory() as folder:
        pipeline = Pipeline(emulated, seconds, TargetModel(str(write_target(Path(folder)))))
        if "efficiency" in cases:
            for count in sorted(streams):
                rows += _efficiencies(emulated, count, pipeline, result)
        if "never_accepted" in cases:
            row, result.never_accepted = _never_accepted(*pipeline.never_accepted())
            rows.append(row)
        if "router" in cases:
            row, result.rounds_per_s = _router(pipeline.router())
            rows.append(row)
    columns = ["case", "streams", "reached", "beside", "share", "drafted", "draft verify wire ms", "written / expected"]
    report("emulated engines: what the pipeline makes of their times", columns, rows, msgspec.to_builtins(result))


def _efficiencies(emulated: Emulated, streams: int, pipeline: Pipeline, result: Result) -> list[list[str]]:
    best = min(emulated.best_length(streams), SpeculationSettings().max_draft_length)
    chosen, fixed = pipeline.texts(streams), pipeline.always(best).texts(streams)
    row, share = _efficiency(emulated, streams, chosen)
    row_fixed, _ = _efficiency(emulated, streams, fixed)
    row_ahead, share_ahead = _efficiency(emulated, streams, pipeline.texts(streams, run_ahead=RUN_AHEAD))
    result.regret["one" if streams == 1 else "many"] = round(1.0 - chosen.tokens_per_s / fixed.tokens_per_s, 4)
    if streams == 1:
        result.efficiency_serial, result.efficiency_run_ahead = share, share_ahead
    else:
        result.efficiency_batched = share
    return [row, [f"{row_fixed[0]}, always {best}", *row_fixed[1:]], [f"{row_ahead[0]}, run ahead", *row_ahead[1:]]]


def _efficiency(emulated: Emulated, streams: int, measured: Measured) -> tuple[list[str], float]:
    ideal = emulated.ideal(streams)
    aim = f"ideal {ideal:.1f} tokens/s, {emulated.best_length(streams)} drafted"
    return _row("serial" if streams == 1 else "batched", streams, measured, aim, measured.tokens_per_s / ideal)


def _never_accepted(drafted: Measured, plain: Measured) -> tuple[list[str], float]:
    aim = f"plain {plain.tokens_per_s:.1f} tokens/s"
    return _row("never accepted", 1, drafted, aim, drafted.tokens_per_s / plain.tokens_per_s)


def _row(case: str, streams: int, measured: Measured, aim: str, share: float) -> tuple[list[str], float]:
    reached, drafted = f"{measured.tokens_per_s:.1f} tokens/s", f"{measured.drafted / measured.rounds:.2f}"
    spent = measured.timings
    legs = "  ".join(f"{1e3 * leg / measured.rounds:.2f}" for leg in (spent.draft_s, spent.verify_s, spent.wire_s))
    row = [case, f"{streams}", reached, aim, f"{share:.3f}", drafted, legs, f"{measured.luck:.3f}"]
    return row, round(share, 4)


def _router(measured: Measured) -> tuple[list[str], int]:
    carried = measured.rounds / measured.cpu_s
    on_the_clock = f"on the clock {measured.rounds / measured.seconds:.0f} rounds/s"
    busy, drafted = f"{measured.cpu_s / measured.seconds:.2f} cores", f"{measured.drafted / measured.rounds:.2f}"
    row = [
        "router",
        f"{ROUTER_STREAMS}",
        f"{carried:.0f} rounds/s of processor time",
        on_the_clock,
        busy,
        drafted,
        "",
        "",
    ]
    return row, round(carried)
