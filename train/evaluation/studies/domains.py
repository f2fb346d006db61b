"""Drafters out of their domain: every language's specialist, and those for all, on every language's every test set."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from common.languages import GENERALIST
from train.evaluation.intervals import Interval, jackknife, ratio, ratio_of_ratios
from train.evaluation.lab import Lab, inputs_of
from train.evaluation.measuring import Measurement, Timing, ways
from train.evaluation.methods import SPECIALIST, Method
from train.evaluation.questions import TestSet
from train.evaluation.records import Record, Records
from train.plan import GENERIC

NAME = "domains"
SETTINGS = ("sets", "domain_questions", "draft_length", "max_tokens", "concurrency")
"""What the study depends on."""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One drafter on one set in one language, at temperature 0."""

    test_set: str
    task: str
    language: str
    """Of the questions."""
    drafter: str
    """The language it was made for, or what it is called."""
    questions: int
    held_out: bool
    mean_acceptance_length: Interval


class DomainReport(msgspec.Struct, frozen=True, kw_only=True):
    cells: list[Cell]
    matched: dict[str, Interval]
    """By language, over all its sets: mean acceptance length of its own drafter over that of the other languages'."""

    def worst(self) -> Cell:
        """Where a language's own drafter is worth least."""
        own = [cell for cell in self.cells if cell.drafter == cell.language]
        return min(own, key=lambda cell: cell.mean_acceptance_length.value)


def run(lab: Lab) -> Iterator[str]:
    """Measure what is not measured yet; yields what it is at."""
    settings = lab.settings
    stage = lab.stage(NAME, **inputs_of(settings, *SETTINGS))
    if stage.done:
        return
    records = Records(stage.folder / "records.jsonl")
    drafters, cells = _drafters(lab), list[Cell]()
    for language in lab.languages:
        for test_set in lab.sets(language, settings.domain_questions):
            timing = Timing(max_tokens=settings.max_tokens, concurrency=settings.concurrency)
            decoders = lab.decoders(test_set.questions, settings.concurrency)
            compared = ways(drafters, [0.0], settings.draft_length)
            measurement = Measurement(decoders, lab.tokenizer, lab.stop_token_ids, test_set, compared, timing, records)
            for done in measurement.run():
                yield f"{language}, {test_set.name}: {done} questions"
            cells += _cells(test_set, records)
    stage.finish(**msgspec.to_builtins(DomainReport(cells=cells, matched=_matched(records))))


def _drafters(lab: Lab) -> list[Method]:
    """Specialists by their languages, then those for all languages."""
    by_language = {language: {m.name: m for m in lab.methods(language)} for language in lab.languages}
    own = [
        Method(name=lang, drafter=found[SPECIALIST].drafter)
        for lang, found in by_language.items()
        if SPECIALIST in found
    ]
    shared = next(iter(by_language.values()))
    return own + [shared[name] for name in (GENERALIST, GENERIC) if name in shared]


def _cells(test_set: TestSet, records: Records) -> list[Cell]:
    by_drafter: dict[str, list[Record]] = {}
    for record in records:
        if (record.test_set, record.language) == (test_set.name, test_set.language):
            by_drafter.setdefault(record.method, []).append(record)
    return [
        Cell(
            test_set=test_set.name,
            task=test_set.task,
            language=test_set.language,
            drafter=drafter,
            questions=len(found),
            held_out=test_set.held_out,
            mean_acceptance_length=jackknife([(len(r.output), len(r.rounds)) for r in found], ratio),
        )
        for drafter, found in by_drafter.items()
    ]


def _matched(records: Records) -> dict[str, Interval]:
    languages = {record.language for record in records}
    items: dict[str, dict[tuple[str, str], list[float]]] = {language: {} for language in sorted(languages)}
    for record in records:
        if record.method in languages:
            row = items[record.language].setdefault((record.test_set, record.question), [0.0] * 4)
            first = 0 if record.method == record.language else 2
            row[first] += len(record.output)
            row[first + 1] += len(record.rounds)
    if len(languages) < 2:
        return {}
    return {language: jackknife(list(rows.values()), ratio_of_ratios) for language, rows in items.items()}
