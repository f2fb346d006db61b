"""Findings as tables of cells that are ready to print."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from common.languages import language_name
from train.evaluation.intervals import Interval
from train.evaluation.methods import LOOKUP, PLAIN
from train.evaluation.report.findings import Findings
from train.evaluation.studies.domains import DomainReport
from train.evaluation.studies.http import HttpReport
from train.evaluation.studies.judge import JudgeReport
from train.evaluation.studies.peers import PeerReport
from train.evaluation.studies.quality import QualityReport
from train.evaluation.studies.speed import SpeedReport
from train.evaluation.summary import Summary

NAMES = {PLAIN: "plain decoding", LOOKUP: "prompt lookup", "ngram": "n-gram drafter"}


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


def tables(findings: Findings) -> Iterator[Table]:
    if findings.speed is not None:
        yield _speed(findings.speed)
        yield _sweep(findings.speed)
    if findings.http is not None:
        yield _http(findings.http)
    if findings.domains is not None:
        yield _domains(findings.domains)
    if findings.quality is not None:
        yield _quality(findings.quality)
    if findings.judge is not None:
        yield _judge(findings.judge)
    if findings.peers is not None:
        yield _peers(findings.peers)


def _speed(report: SpeedReport) -> Table:
    rows = [_speed_row(summary, report) for summary in report.compared()]
    seen = sorted(language for language, clean in report.held_out.items() if not clean)
    doubt = f" NOT HELD OUT, some questions were trained on: {', '.join(seen)}." if seen else ""
    return Table(
        "Speed and acceptance on each language's own test text",
        (
            "language",
            "T",
            "method",
            "tokens per verification",
            "accepted at each position",
            "speedup",
            "without prefill",
            "predicted",
            "draft + verify ms a round",
            "characters/s",
            "drafter MB",
            "unequal",
        ),
        rows,
        "Speedup is over plain decoding of the same questions, with 95% intervals over questions; predicted is what it "
        "would be if only forward passes took time; unequal counts texts other than the plain one." + doubt,
    )


def _speed_row(summary: Summary, report: SpeedReport) -> tuple[str, ...]:
    return (
        summary.way.language,
        f"{summary.way.temperature:g}",
        method_name(summary.way.method),
        interval(summary.mean_acceptance_length),
        " ".join(f"{share:.2f}" for share in summary.accepted_per_position),
        interval(summary.speedup),
        interval(summary.decode_speedup),
        f"{summary.predicted_speedup:.2f}",
        f"{summary.draft_ms:.1f} + {summary.verify_ms:.1f}",
        f"{summary.characters_per_s:.0f}",
        f"{report.sizes.get(summary.way.method, 0) / 1e6:.1f}",
        str(summary.unequal),
    )


def _sweep(report: SpeedReport) -> Table:
    rows = [
        (
            summary.way.language,
            str(summary.way.draft_length),
            interval(summary.mean_acceptance_length),
            interval(summary.speedup),
            f"{summary.predicted_speedup:.2f}",
        )
        for summary in report.swept()
    ]
    columns = ("language", "draft length", "tokens per verification", "speedup", "predicted")
    return Table("The specialist by draft length, temperature 0", columns, rows)


def _http(report: HttpReport) -> Table:
    rows = [
        (
            found.language,
            f"{found.temperature:g}",
            method_name(found.way),
            interval(found.tokens_per_verification),
            interval(found.speedup),
            f"{found.first_piece_ms:.0f}",
            str(found.unequal),
            str(found.failed),
        )
        for found in report.summaries
    ]
    columns = ("language", "T", "way", "tokens per verification", "speedup", "first piece ms", "unequal", "failed")
    note = "P+F: the server chooses how much the specialist drafts, 0 included; auto: it chooses the drafter as well."
    return Table("Through HTTP, one stream", columns, rows, note)


def _domains(report: DomainReport) -> Table:
    drafters = list(dict.fromkeys(cell.drafter for cell in report.cells))
    by_place: dict[tuple[str, str, str, bool], dict[str, str]] = {
        (c.language, c.test_set, c.task, c.held_out): {} for c in report.cells
    }
    for cell in report.cells:
        place = (cell.language, cell.test_set, cell.task, cell.held_out)
        by_place[place][cell.drafter] = f"{cell.mean_acceptance_length.value:.2f}"
    rows = [
        (language, test_set, task, "yes" if clean else "NO", *(found.get(name, "") for name in drafters))
        for (language, test_set, task, clean), found in by_place.items()
    ]
    worst = report.worst()
    note = (
        f"Tokens per verification at temperature 0 of the drafter named above. A language's own drafter is worth least "
        f"on {worst.test_set} in {language_name(worst.language)}: {interval(worst.mean_acceptance_length)}."
    )
    return Table("Out of domain", ("language", "set", "task", "held out", *drafters), rows, note)


def _quality(report: QualityReport) -> Table:
    rows = []
    for language, equality in report.equality.items():
        scores, law = report.scores.get(language, {}), report.law[language]
        cells = [f"{one.bleu:.2f} / {one.chrf:.2f}" for one in scores.values()] or ["no references"]
        rows.append(
            (
                language,
                f"{equality.same} of {equality.texts}",
                str(equality.ties),
                str(equality.unequal),
                " and ".join(cells),
                str(report.missing_references[language]),
                str(law.texts),
                f"{law.p_log_probability:.3f}",
                f"{law.p_length:.3f}",
            )
        )
    columns = (
        "language",
        "equal texts, T = 0",
        "rounding decided",
        "unequal",
        "BLEU / chrF without and with drafts",
        "without reference",
        "texts each way, T = 1",
        "p of log-probability",
        "p of length",
    )
    note = "p: how often chance alone makes two samples of one law differ so much; small values would speak of a bias."
    return Table("Quality and losslessness", columns, rows, note)


def _judge(report: JudgeReport) -> Table:
    rows = [
        (
            language,
            str(found.graded),
            "–" if found.plain_grade is None else f"{found.plain_grade:.2f}",
            "–" if found.drafted_grade is None else f"{found.drafted_grade:.2f}",
            interval(found.difference),
            f"{found.wins} / {found.ties} / {found.losses}",
            str(found.without_verdict),
        )
        for language, found in report.languages.items()
    ]
    columns = ("language", "graded", "plain", "drafted", "difference", "drafted wins / ties / losses", "no verdict")
    return Table(f"Judged by {report.model}", columns, rows, "Grades from 1 to 10; a win is one in both orders.")


def _peers(report: PeerReport) -> Table:
    rows = [
        (
            name.replace("_", " "),
            f"{report.tokens_per_s[f'ours {name}']:.0f}",
            f"{report.tokens_per_s[f'transformers {name}']:.0f}",
            interval(ratio),
        )
        for name, ratio in report.ratios.items()
    ]
    equality = report.equality
    note = (
        f"{equality.same} of {equality.texts} texts equal transformers' plain ones, {equality.ties} part where "
        f"rounding decides, {equality.unequal} otherwise."
    )
    return Table("Beside transformers' generate", ("method", "ours, tokens/s", "theirs", "ratio"), rows, note)


def method_name(name: str) -> str:
    return NAMES.get(name, name)


def interval(found: Interval | None) -> str:
    return "–" if found is None else f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
