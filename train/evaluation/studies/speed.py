"""Speed and acceptance of every method on every language's own test text, and of the specialist by draft length."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from train.evaluation.intervals import Interval
from train.evaluation.lab import Lab, inputs_of
from train.evaluation.measuring import Measurement, Timing, Way, ways
from train.evaluation.methods import SPECIALIST
from train.evaluation.records import Records
from train.evaluation.summary import Summary, acceptance_ratio, group, summarise

NAME = "speed"
RECORDS = "records.jsonl"
SETTINGS = ("questions", "repetitions", "temperatures", "draft_length", "draft_lengths", "max_tokens")
"""What the study depends on."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The specialist beside another drafter, question by question."""

    language: str
    temperature: float
    other: str
    acceptance: Interval
    """Mean acceptance length of the specialist over the other's."""


class SpeedReport(msgspec.Struct, frozen=True, kw_only=True):
    summaries: list[Summary]
    """Of every way: those with the draft length of the settings are the comparison, the others the sweep."""
    comparisons: list[Comparison]
    sizes: dict[str, int]
    """Bytes of a drafter's weights, by method."""
    held_out: dict[str, bool]
    """By language, whether no question was trained on."""
    draft_length: int
    """Of the comparison."""

    def compared(self) -> list[Summary]:
        """Every method, with the draft length of the settings."""
        return [found for found in self.summaries if found.way.draft_length in (0, self.draft_length)]

    def swept(self) -> list[Summary]:
        """The specialist at temperature 0, with every draft length."""
        return [s for s in self.summaries if s.way.method == SPECIALIST and s.way.temperature == 0.0]


def run(lab: Lab) -> Iterator[str]:
    """Measure what is not measured yet; yields what it is at."""
    settings = lab.settings
    stage = lab.stage(NAME, **inputs_of(settings, *SETTINGS))
    if stage.done:
        return
    records = Records(stage.folder / RECORDS)
    held_out = {}
    for language in lab.languages:
        test_set = lab.own_set(language, settings.questions)
        held_out[language] = test_set.held_out
        timing = Timing(max_tokens=settings.max_tokens, repetitions=settings.repetitions)
        decoders = lab.decoders(test_set.questions)
        for done in Measurement(
            decoders, lab.tokenizer, lab.stop_token_ids, test_set, _ways(lab, language), timing, records
        ).run():
            yield f"{language}: {done}"
    sizes = {method.name: method.size_bytes for language in lab.languages for method in lab.methods(language)}
    report = SpeedReport(
        summaries=summarise(records),
        comparisons=_comparisons(records, settings.draft_length),
        sizes=sizes,
        held_out=held_out,
        draft_length=settings.draft_length,
    )
    stage.finish(**msgspec.to_builtins(report))


def _ways(lab: Lab, language: str) -> list[Way]:
    settings, methods = lab.settings, lab.methods(language)
    compared = ways(methods, settings.temperatures, settings.draft_length)
    swept = [
        Way(method=method, draft_length=length, temperature=0.0)
        for method in methods
        if method.name == SPECIALIST
        for length in settings.draft_lengths
    ]
    return compared + [way for way in swept if way not in compared]


def _comparisons(records: Records, draft_length: int) -> list[Comparison]:
    groups = group(records)
    ways = [way for way in sorted(groups) if way.draft_length == draft_length and way.method != SPECIALIST]
    own = {way: msgspec.structs.replace(way, method=SPECIALIST) for way in ways}
    return [
        Comparison(
            language=way.language,
            temperature=way.temperature,
            other=way.method,
            acceptance=acceptance_ratio(groups[own[way]], groups[way]),
        )
        for way in ways
        if own[way] in groups
    ]
