"""What the paper claims (arXiv 2406.16758), held against what was measured, in words."""

from __future__ import annotations

from collections.abc import Iterator

from common.languages import GENERALIST, language_name
from train.evaluation.intervals import Interval
from train.evaluation.report.findings import Findings
from train.evaluation.report.tables import interval
from train.evaluation.studies.domains import DomainReport
from train.evaluation.studies.scaling import ScalingReport
from train.evaluation.studies.speed import SpeedReport
from train.plan import GENERIC

OTHERS = {
    GENERIC: "the generic drafter, trained on English only",
    GENERALIST: "the generalist, trained on all languages with the same budget",
    "P": "pretraining alone",
    "F": "finetuning alone",
}


def claims(findings: Findings) -> Iterator[str]:
    """A sentence each."""
    if findings.speed is not None:
        yield from _specialist(findings.speed)
    if findings.domains is not None and findings.domains.matched:
        yield _matching(findings.domains)
    if findings.scaling is not None:
        yield from _scaling(findings.scaling)


def verdict(intervals: list[Interval], than: float = 1.0) -> str:
    """Of a claim that each of these is above `than`."""
    if all(found.low > than for found in intervals):
        return "Confirmed"
    if all(found.high < than for found in intervals):
        return "Refuted"
    if any(found.high < than for found in intervals):
        return "Refuted for some"
    return "Not settled for all"


def _specialist(report: SpeedReport) -> Iterator[str]:
    for temperature in sorted({one.temperature for one in report.comparisons}):
        for other, described in OTHERS.items():
            found = {
                one.language: one.acceptance
                for one in report.comparisons
                if (one.other, one.temperature) == (other, temperature)
            }
            if found:
                yield (
                    f"{verdict(list(found.values()))}: P+F accepts more than {described}, at temperature "
                    f"{temperature:g}. Tokens per verification over the other's: {_list(found)}."
                )


def _matching(report: DomainReport) -> str:
    return (
        f"{verdict(list(report.matched.values()))}: the drafter's language must match the text's. Tokens per "
        "verification of a language's own drafter over those of the other languages', all sets: "
        f"{_list(report.matched)}."
    )


def _scaling(report: ScalingReport) -> Iterator[str]:
    for kind, slope in report.slopes.items():
        yield (
            f"{verdict([slope], 0.0)}: what {kind} gains grows with the logarithm of its tokens. Tokens per "
            f"verification gained by each doubling of them, {language_name(report.language)}: {slope}; "
            f"a line over the logarithm explains {report.explained[kind]:.0%} of the variance."
        )


def _list(found: dict[str, Interval]) -> str:
    return ", ".join(f"{language} {interval(value)}" for language, value in found.items())
