"""The same questions through the whole service, one stream, to be held beside what decoding in process gains.

What a client waits for is more than forward passes: Serve, the router, leases, the streams. So speculation gains less
here, and how much less is this study's answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from train.evaluation.intervals import Interval, jackknife, ratio, ratio_of_ratios
from train.evaluation.lab import Lab, inputs_of
from train.evaluation.methods import PLAIN, SPECIALIST

NAME = "http"
SETTINGS = ("questions", "repetitions", "temperatures", "draft_length", "max_tokens")
"""What the study depends on."""
AUTO = "auto"
"""As the server chooses: who drafts, how much, and whether at all."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks for."""

    prompt: str
    language: str
    temperature: float
    seed: int
    max_tokens: int


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """What came back, and how long it took from the asking."""

    text: str
    tokens: int
    rounds: int
    first_s: float
    """Until the first piece of the text."""
    total_s: float
    error: str | None = None


Ask = Callable[[Asked, Any], Answered]
"""Asks the service; the second is the request's `speculation` field."""
Row = dict[str, list[Answered]]
"""Answers to one question by way, one a repetition."""


class HttpSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One way of asking for a language's texts at one temperature."""

    language: str
    temperature: float
    way: str
    speedup: Interval
    """Time of plain decoding over this one's."""
    tokens_per_verification: Interval
    first_piece_ms: float
    unequal: int
    """Texts that are not the plain one."""
    failed: int


class HttpReport(msgspec.Struct, frozen=True, kw_only=True):
    summaries: list[HttpSummary]


def run(lab: Lab, service: AbstractContextManager[Ask]) -> Iterator[str]:
    """Measure; yields what it is at. Broken off, it starts over. `service` is up as long as the context lasts."""
    stage = lab.stage(NAME, **inputs_of(lab.settings, *SETTINGS))
    if stage.done:
        return
    yield "starting target, drafters and router"
    summaries: list[HttpSummary] = []
    with service as ask:
        for language in lab.languages:
            for temperature in lab.settings.temperatures:
                yield f"{language}, temperature {temperature:g}"
                rows = _rows(lab, ask, language, temperature)
                summaries += [_summary(language, temperature, way, rows) for way in rows[0]]
    stage.finish(**msgspec.to_builtins(HttpReport(summaries=summaries)))


def _rows(lab: Lab, ask: Ask, language: str, temperature: float) -> list[Row]:
    """Every question in every way, in turns."""
    settings = lab.settings
    ways = {PLAIN: "off", SPECIALIST: {"drafter": language, "max_draft_length": settings.draft_length}, AUTO: "auto"}
    questions = [
        Asked(
            prompt=question.prompt,
            language=language,
            temperature=temperature,
            seed=number,
            max_tokens=settings.max_tokens,
        )
        for number, question in enumerate(lab.own_set(language, settings.questions).questions)
    ]
    for speculation in ways.values():
        ask(questions[0], speculation)  # warms up
    rows: list[Row] = [{way: [] for way in ways} for _ in questions]
    for repetition in range(settings.repetitions):
        for number, (question, row) in enumerate(zip(questions, rows, strict=True)):
            names, turn = list(ways), (repetition + number) % len(ways)
            for way in (*names[turn:], *names[:turn]):
                row[way].append(ask(question, ways[way]))
    return rows


def _summary(language: str, temperature: float, way: str, rows: Sequence[Row]) -> HttpSummary:
    own, plain = ([row[name] for row in rows] for name in (way, PLAIN))
    answers = [answer for found in own for answer in found]
    pairs = [(answer, other[0]) for found, other in zip(own, plain, strict=True) for answer in found]
    return HttpSummary(
        language=language,
        temperature=temperature,
        way=way,
        speedup=jackknife(
            [(*_timed(one), *_timed(other)) for one, other in zip(own, plain, strict=True)], ratio_of_ratios
        ),
        tokens_per_verification=jackknife([(sum(a.tokens for a in f), sum(a.rounds for a in f)) for f in own], ratio),
        first_piece_ms=round(1e3 * sum(answer.first_s for answer in answers) / len(answers), 2),
        unequal=sum(one.text != other.text for one, other in pairs if not (one.error or other.error)),
        failed=sum(answer.error is not None for answer in answers),
    )


def _timed(answers: Sequence[Answered]) -> tuple[float, float]:
    return sum(answer.tokens for answer in answers), sum(answer.total_s for answer in answers)
