"""From records to the figures of a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import msgspec

from train.evaluation.acceptance import accepted_per_position
from train.evaluation.intervals import Interval, jackknife, ratio, ratio_of_ratios
from train.evaluation.methods import PLAIN
from train.evaluation.records import Record

Group = dict[str, list[Record]]
"""A way's records by question."""
Figures = Callable[[Record], tuple[float, float]]
"""What is summed over records, to be divided."""


class WayKey(msgspec.Struct, frozen=True, order=True):
    """What a row of a table is about."""

    test_set: str
    language: str
    temperature: float
    method: str
    draft_length: int

    @property
    def plain(self) -> WayKey:
        """Plain decoding of the same."""
        return msgspec.structs.replace(self, method=PLAIN, draft_length=0)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Of one way; tokens are the target's, counted alike for all, the end of the text included."""

    way: WayKey
    questions: int
    tokens: int
    mean_acceptance_length: Interval
    """Output tokens per verification."""
    accepted_per_position: list[float]
    speedup: Interval
    """Time of plain decoding over this one's, for the same texts."""
    decode_speedup: Interval | None
    """The same without prefill: of the tokens after the first round. None where all texts end with that."""
    predicted_speedup: float
    """What it would be if nothing but forward passes took time."""
    draft_ms: float
    """In the drafter's forward passes, a round."""
    verify_ms: float
    """In the target's, a round."""
    tokens_per_s: float
    characters_per_s: float
    """Of the text, which is what a reader waits for: languages differ in characters per token."""
    unequal: int
    """Texts that are not what plain decoding wrote."""


def group(records: Iterable[Record]) -> dict[WayKey, Group]:
    groups: dict[WayKey, Group] = defaultdict(lambda: defaultdict(list))
    for record in records:
        way = WayKey(record.test_set, record.language, record.temperature, record.method, record.draft_length)
        groups[way][record.question].append(record)
    return groups


def summarise(records: Iterable[Record]) -> list[Summary]:
    """One summary a way, sorted; plain decoding of the same questions must be among the records."""
    groups = group(records)
    return [_summary(way, groups[way], groups[way.plain]) for way in sorted(groups)]


def acceptance_ratio(own: Group, other: Group) -> Interval:
    """Mean acceptance length of one way over another's, question by question."""
    return jackknife(_paired(own, other, _written), ratio_of_ratios)


def _summary(way: WayKey, own: Group, plain: Group) -> Summary:
    records = [record for found in own.values() for record in found]
    plainly = [record for found in plain.values() for record in found]
    rounds, seconds = sum(len(r.rounds) for r in records), sum(r.total_s for r in records)
    tokens = sum(len(r.output) for r in records)
    model_s = sum(r.draft_s + r.verify_s for r in records)
    plain_s = sum(r.verify_s for r in plainly) / sum(len(r.output) for r in plainly)
    return Summary(
        way=way,
        questions=len(own),
        tokens=tokens,
        mean_acceptance_length=jackknife([_total(found, _written) for found in own.values()], ratio),
        accepted_per_position=accepted_per_position(one for r in records for one in r.rounds),
        speedup=jackknife(_paired(own, plain, _timed), ratio_of_ratios),
        decode_speedup=_decode_speedup(own, plain),
        predicted_speedup=round(tokens * plain_s / model_s, 4),
        draft_ms=round(1e3 * sum(r.draft_s for r in records) / rounds, 4),
        verify_ms=round(1e3 * sum(r.verify_s for r in records) / rounds, 4),
        tokens_per_s=round(tokens / seconds, 2),
        characters_per_s=round(sum(len(r.text) for r in records) / seconds, 2),
        unequal=sum(
            one.output != other.output
            for question in own.keys() & plain.keys()
            for one in own[question]
            for other in plain[question][:1]
        ),
    )


def _decode_speedup(own: Group, plain: Group) -> Interval | None:
    pairs = _paired(own, plain, _timed_decoding)
    written, _, plainly, _ = (sum(column) for column in zip(*pairs, strict=True))
    return jackknife(pairs, ratio_of_ratios) if written and plainly else None


def _written(record: Record) -> tuple[float, float]:
    return len(record.output), len(record.rounds)


def _timed(record: Record) -> tuple[float, float]:
    return len(record.output), record.total_s


def _timed_decoding(record: Record) -> tuple[float, float]:
    first = min(len(record.output), record.rounds[0][1] + 1)
    return len(record.output) - first, record.total_s - record.first_s


def _paired(own: Group, other: Group, figures: Figures) -> list[tuple[float, ...]]:
    """Of every question in both."""
    return [(*_total(own[q], figures), *_total(other[q], figures)) for q in own if q in other]


def _total(records: Iterable[Record], figures: Figures) -> tuple[float, float]:
    one, other = zip(*map(figures, records), strict=True)
    return sum(one), sum(other)
