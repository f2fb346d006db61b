"""Wall-clock speed beside transformers, on a target made as dear as a real one: one stream, and several.

    server            HTTP, one stream: speculation on, off                     and several streams at once
    in process        our engine, plain
    transformers      generate: plain, static cache, assisted by the same drafter

One question after the other is answered in every way, in another order each time; all models have the same weights and
the same number of threads. Assisted generation is measured as transformers chooses its draft lengths, and with fixed
ones; it is compared with at its best.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import msgspec
import torch
from rich.console import Console
from rich.progress import track

from cluster.bench.decoding_ways import ASSISTED, ENGINE, PLAIN, STATIC, Answer, Decoding, Row, Way
from cluster.bench.http_load import Endpoint, LoadGenerator, LoadResult, Question
from cluster.bench.inflation import inflate
from cluster.bench.report import report
from cluster.bench.service import choose_languages, make_questions, serving, without_memory
from cluster.deployment import usable_drafters
from cluster.run import Run
from common.models import load_model, load_tokenizer
from common.registry import Registry
from train.evaluation.equality import Equality
from train.evaluation.intervals import Interval
from train.evaluation.paired import Timed, speed, speed_ratio

ON, OFF = "server on", "server off"
LONGEST = 0.1
"""Share of the test sentences that are asked about: of an answer of ten tokens the prompt is half the work."""
BLOCK = 5
"""Questions for each of several streams. Answers differ in length: with few, some streams would mostly be idle."""


class Several(msgspec.Struct, frozen=True):
    """What a server with several streams wrote beside assisted generation, which knows but one."""

    streams: Timed
    assisted: Timed


def main(run: Run, data: str, languages: str, millions: int, count: int, streams: int, repetitions: int) -> None:
    """Inflate, deploy, measure, report. `count` questions of each language; `repetitions` blocks of several streams."""
    chosen = choose_languages(run.config, languages)
    ask = partial(make_questions, run, data, chosen, temperatures=[0.0], longest=LONGEST)
    questions, block = ask(count * len(chosen)), ask(BLOCK * streams)
    torch.set_num_threads(run.config.serve.verifier.threads)
    with tempfile.TemporaryDirectory() as folder:
        _write_inflated(run.target, Path(folder), millions)
        dear = msgspec.structs.replace(run, given_target=Path(folder))
        config = msgspec.structs.replace(run.config, languages=chosen, serve=without_memory(run.config.serve))
        manifests = usable_drafters(config, dear.target, run.registry)
        registry, cache = Registry(run.registry), run.folder / "cache"
        drafters = {language: registry.fetch(manifests[language], cache) for language in chosen}
        decoding = Decoding(dear.target, drafters, questions)
        with serving(dear, config, manifests) as endpoint, LoadGenerator() as load:
            _warm_up(load, endpoint, questions, streams)
            rows = list(_one_stream(decoding, load, endpoint, questions))
            ask_block = partial(load.start, endpoint, block, streams)
            several = list(_several(decoding, ask_block, questions, repetitions, _best(rows)))
        equality = decoding.equality(questions, rows)
    _report(questions, rows, several, equality, streams)


def _write_inflated(source: Path, folder: Path, millions: int) -> None:
    with Console(stderr=True).status("inflating the target"):
        model = load_model(source)
        inflate(model, millions * 10**6).save_pretrained(folder)
        load_tokenizer(source).save_pretrained(folder)


def _server(load: LoadGenerator, endpoint: Endpoint, speculation: str) -> Way:
    def answer(question: Question) -> Answer:
        result = load.start(endpoint, [question], 1, speculation=speculation).result()
        reply = result.replies[0]
        if reply.error is not None:
            raise RuntimeError(f"the server failed: {reply.error}")
        return Answer(reply.text, Timed(tokens=reply.tokens, seconds=reply.ended_s - reply.started_s))

    return answer


def _warm_up(load: LoadGenerator, endpoint: Endpoint, questions: Sequence[Question], streams: int) -> None:
    """The server learns what drafts cost and are worth, with one stream and with several."""
    for concurrency in (streams, 1):
        load.start(endpoint, questions, concurrency).result()


def _one_stream(
    decoding: Decoding, load: LoadGenerator, endpoint: Endpoint, questions: Sequence[Question]
) -> Iterator[Row]:
    server = {ON: _server(load, endpoint, "auto"), OFF: _server(load, endpoint, "off")}
    warm = set[str]()
    for number, question in enumerate(track(questions, "one stream", transient=True)):
        ways = server | decoding.ways(question.language)
        if question.language not in warm:
            warm.add(question.language)
            _in_turns(ways, question, number)
        yield _in_turns(ways, question, number)


def _in_turns(ways: dict[str, Way], question: Question, number: int) -> Row:
    names = list(ways)
    first = number % len(names)
    return {name: ways[name](question) for name in (*names[first:], *names[:first])}


def _best(rows: Sequence[Row]) -> str:
    """Assisted generation as it is fastest here."""
    names = [name for name in rows[0] if name.startswith(ASSISTED)]
    return max(names, key=lambda name: speed([row[name].timed for row in rows]))


def _several(
    decoding: Decoding,
    block: Callable[[], Future[LoadResult]],
    questions: Sequence[Question],
    repetitions: int,
    assisted: str,
) -> Iterator[Several]:
    """Each time a block of several streams, and right after it one question of each language."""
    languages = len({question.language for question in questions})
    for turn in range(repetitions):
        result = block().result()
        few = [questions[(turn * languages + i) % len(questions)] for i in range(languages)]
        answers = [decoding.ways(question.language)[assisted](question) for question in few]
        yield Several(
            Timed(tokens=sum(reply.tokens for reply in result.replies), seconds=result.seconds),
            Timed(tokens=sum(a.timed.tokens for a in answers), seconds=sum(a.timed.seconds for a in answers)),
        )


def _report(
    questions: Sequence[Question], rows: Sequence[Row], several: Sequence[Several], equality: Equality, streams: int
) -> None:
    best = _best(rows)
    speedup = {
        language: _ratio(ON, OFF, [row for q, row in zip(questions, rows, strict=True) if q.language == language])
        for language in dict.fromkeys(question.language for question in questions)
    }
    figures = {
        "speedup": speedup,
        "mean_speedup": round(sum(each.value for each in speedup.values()) / len(speedup), 4),
        "vs_assisted": _ratio(ON, best, rows),
        f"vs_assisted_{streams}_streams": speed_ratio([(each.streams, each.assisted) for each in several]),
        "plain_vs_static_cache": _ratio(ENGINE, STATIC, rows),
        "plain_vs_transformers": _ratio(ENGINE, PLAIN, rows),
        "tokens_per_s": {name: round(speed([row[name].timed for row in rows]), 2) for name in rows[0]},
        "equality": equality,
    }
    report(
        f"decoding, {len(rows)} questions; {torch.get_num_threads()} threads a model",
        ("way", "tokens/s", "server on / this [95%]"),
        [[name, f"{speed([row[name].timed for row in rows]):.1f}", str(_ratio(ON, name, rows))] for name in rows[0]]
        + [[f"server on, {streams} streams", f"{speed([each.streams for each in several]):.1f}", ""]],
        msgspec.to_builtins(figures),
    )


def _ratio(one: str, other: str, rows: Sequence[Row]) -> Interval:
    return speed_ratio([(row[one].timed, row[other].timed) for row in rows])
