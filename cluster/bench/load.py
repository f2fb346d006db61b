"""The service under load over HTTP: tokens per second and latencies at each concurrency, speculation on and off.

Every block of questions is asked both ways, one right after the other (see `paired`), with the same seeds: the texts
must be equal. Streams are closed-loop (see `http_load`), so a block's end, when streams run out of questions one by
one, is part of its time in both ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from rich.progress import Progress

from cluster.bench.http_load import Endpoint, LoadGenerator, LoadResult, Question, Reply
from cluster.bench.report import report
from cluster.bench.service import choose_languages, make_questions, serving, without_memory
from cluster.deployment import usable_drafters
from cluster.run import Run
from common.settings import SettingsError
from train.evaluation.intervals import Interval
from train.evaluation.paired import Timed, speed, speed_ratio

SPECULATION = {"on": "auto", "off": "off"}
MIN_QUESTIONS = 16
"""In a block, so that a block of one stream is long enough to be timed."""
QUESTIONS_PER_STREAM = 4

Pair = dict[str, LoadResult]
"""A block's results by way, "on" and "off"."""


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds; [p50, p99]."""

    first_token_ms: tuple[float, float]
    between_pieces_ms: tuple[float, float]
    """From one piece of a text to the next; a piece holds all tokens of a round."""
    per_token_ms: tuple[float, float]
    """A text's time, the wait for its first piece included, for each of its tokens: pieces have several."""


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured at one concurrency."""

    on: float
    """Tokens per second."""
    off: float
    ratio: Interval
    latencies: dict[str, Latencies]
    mean_acceptance_length: float
    """Output tokens per verification with speculation on, 1.0 for plain decoding."""
    unequal: int
    """Questions whose text was another one with speculation than without."""
    failed: int
    client_load: float
    """Part of a processor core that the load generator used."""


def main(
    run: Run, data: str, languages: str, concurrencies: Sequence[int], repetitions: int, temperatures: Sequence[float]
) -> None:
    """Deploy, measure, report."""
    if repetitions < 3:
        raise SettingsError(f"--repetitions: at least 3 are needed for an interval, not {repetitions}")
    if min(concurrencies) < 1:
        raise SettingsError(f"--concurrency: at least one stream is needed, not {min(concurrencies)}")
    chosen = choose_languages(run.config, languages)
    questions = make_questions(run, data, chosen, repetitions * block_size(max(concurrencies)), temperatures)
    config = msgspec.structs.replace(run.config, languages=chosen, serve=without_memory(run.config.serve))
    drafters = usable_drafters(config, run.target, run.registry)
    levels = {}
    with serving(run, config, drafters) as endpoint, LoadGenerator() as load, Progress(transient=True) as bars:
        bar = bars.add_task("blocks", total=len(concurrencies) * (1 + repetitions))
        for concurrency in concurrencies:
            pairs = []
            for pair in _measure(load, endpoint, questions, concurrency, repetitions):
                pairs.append(pair)
                bars.advance(bar)
            levels[str(concurrency)] = summarise(pairs[1:])
    report(
        f"load: {', '.join(chosen)}, temperatures {', '.join(f'{t:g}' for t in temperatures)}; ms are p50 and p99",
        COLUMNS,
        [row for concurrency, level in levels.items() for row in _rows(concurrency, level)],
        {
            "concurrency": msgspec.to_builtins(levels),
            "unequal": sum(level.unequal for level in levels.values()),
            "failed": sum(level.failed for level in levels.values()),
            "repetitions": repetitions,
            "languages": chosen,
            "temperatures": list(temperatures),
        },
    )


def block_size(concurrency: int) -> int:
    return max(MIN_QUESTIONS, QUESTIONS_PER_STREAM * concurrency)


def _measure(
    load: LoadGenerator, endpoint: Endpoint, questions: Sequence[Question], concurrency: int, repetitions: int
) -> Iterator[Pair]:
    """An unmeasured pair to warm up, then one for each repetition, with questions of its own."""
    size = block_size(concurrency)
    for turn in range(-1, repetitions):
        block = questions[max(0, turn) * size :][:size]
        pair = {}
        for way in sorted(SPECULATION, reverse=turn % 2 == 1):
            pair[way] = load.start(endpoint, block, concurrency, speculation=SPECULATION[way]).result()
        yield pair


def summarise(pairs: Sequence[Pair]) -> Level:
    """Figures of one concurrency."""
    timed = {way: [_timed(pair[way]) for pair in pairs] for way in SPECULATION}
    replies = {way: [reply for pair in pairs for reply in pair[way].replies] for way in SPECULATION}
    both = list(zip(replies["on"], replies["off"], strict=True))
    results = [result for pair in pairs for result in pair.values()]
    rounds = sum(reply.rounds for reply in replies["on"])
    return Level(
        on=round(speed(timed["on"]), 2),
        off=round(speed(timed["off"]), 2),
        ratio=speed_ratio(list(zip(timed["on"], timed["off"], strict=True))),
        latencies={way: latencies(replies[way]) for way in SPECULATION},
        mean_acceptance_length=round(sum(r.tokens for r in replies["on"]) / rounds, 4) if rounds else 0.0,
        unequal=sum(on.text != off.text for on, off in both if not (on.error or off.error)),
        failed=sum(reply.error is not None for pair in both for reply in pair),
        client_load=round(sum(r.cpu_seconds for r in results) / sum(r.seconds for r in results), 4),
    )


def latencies(replies: Sequence[Reply]) -> Latencies:
    """Of the replies that brought any text."""
    answered = [reply for reply in replies if reply.error is None and reply.piece_times_s]
    firsts = [reply.piece_times_s[0] - reply.started_s for reply in answered]
    gaps = [gap for reply in answered for gap in np.diff(reply.piece_times_s)]
    per_token = [(reply.ended_s - reply.started_s) / reply.tokens for reply in answered if reply.tokens]
    return Latencies(
        first_token_ms=_p50_p99_ms(firsts), between_pieces_ms=_p50_p99_ms(gaps), per_token_ms=_p50_p99_ms(per_token)
    )


COLUMNS = (
    "streams",
    "speculation",
    "tokens/s",
    "on / off [95%]",
    "first token ms",
    "between pieces ms",
    "per token ms",
    "tokens per verification",
    "unequal",
    "failed",
)


def _rows(concurrency: str, level: Level) -> list[list[str]]:
    """One for each way; what concerns both is in the first."""
    both = [f"{level.mean_acceptance_length:.2f}", str(level.unequal), str(level.failed)]
    return [
        [concurrency, "on", f"{level.on:.0f}", str(level.ratio), *_cells(level.latencies["on"]), *both],
        ["", "off", f"{level.off:.0f}", "", *_cells(level.latencies["off"]), "1.00", "", ""],
    ]


def _cells(latencies: Latencies) -> list[str]:
    return [
        f"{p50:.1f} {p99:.1f}"
        for p50, p99 in (latencies.first_token_ms, latencies.between_pieces_ms, latencies.per_token_ms)
    ]


def _timed(result: LoadResult) -> Timed:
    return Timed(tokens=sum(reply.tokens for reply in result.replies), seconds=result.seconds)


def _p50_p99_ms(seconds: Sequence[float]) -> tuple[float, float]:
    """NaN, which JSON writes as null, where there is nothing."""
    p50, p99 = np.percentile(seconds, [50, 99]) * 1e3 if seconds else (np.nan, np.nan)
    return round(float(p50), 3), round(float(p99), 3)
