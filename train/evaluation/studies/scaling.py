"""What more finetuning data is worth: drafters trained on more and more of the target's answers, several seeds each.

The paper's claim is a line over the logarithm of the tokens. Every point is a training run of its own, of equally many
passes over its answers; what is measured is acceptance on the language's own test text, at temperature 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from math import ceil

import msgspec
import numpy as np
from scipy.stats import linregress

from common.settings import SettingsError
from train.distillation.store import read_documents
from train.evaluation.intervals import Interval, around
from train.evaluation.lab import Lab, inputs_of
from train.evaluation.measuring import Measurement, Timing, ways
from train.evaluation.methods import SCALING, Method
from train.evaluation.records import Records
from train.pipeline import Pipeline
from train.recipe import Variant
from train.selection import with_needs

NAME = "scaling"
SETTINGS = ("scaling", "domain_questions", "draft_length", "max_tokens", "concurrency")
"""What the study depends on."""
PRETRAINED = {"P+F": True, "F": False}


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One training run."""

    kind: str
    """P+F or F."""
    tokens: int
    """Of the answers and their prompts, without repetition."""
    seed: int
    mean_acceptance_length: float


class ScalingReport(msgspec.Struct, frozen=True, kw_only=True):
    language: str
    points: list[Point]
    slopes: dict[str, Interval]
    """Tokens per verification gained by each doubling of the tokens, by kind; intervals over the runs."""
    explained: dict[str, float]
    """Share of the runs' variance that a line over the logarithm explains (R²)."""


class _Run(msgspec.Struct, frozen=True):
    kind: str
    answers: int
    tokens: int
    seed: int

    @property
    def variant(self) -> str:
        return f"{SCALING}{'pf' if PRETRAINED[self.kind] else 'f'}_{self.answers}_{self.seed}"


def run(lab: Lab) -> Iterator[str]:
    """Train what is not trained yet and measure it; yields what it is at. Raises SettingsError, PipelineError."""
    settings = lab.settings.scaling
    if settings is None:
        return
    if settings.language not in lab.languages:
        raise SettingsError(f"lab.scaling.language: `{settings.language}` is not among {', '.join(lab.languages)}")
    stage = lab.stage(NAME, **inputs_of(lab.settings, *SETTINGS))
    if stage.done:
        return
    runs = _runs(lab)
    yield f"training {len(runs)} drafters"
    _train(lab, runs)
    records = Records(stage.folder / "records.jsonl")
    drafters = [Method(name=run.variant, drafter=lab.variant(settings.language, run.variant)) for run in runs]
    test_set = lab.own_set(settings.language, lab.settings.domain_questions)
    timing = Timing(max_tokens=lab.settings.max_tokens, concurrency=lab.settings.concurrency)
    decoders = lab.decoders(test_set.questions, lab.settings.concurrency)
    compared = ways(drafters, [0.0], lab.settings.draft_length)
    for done in Measurement(decoders, lab.tokenizer, lab.stop_token_ids, test_set, compared, timing, records).run():
        yield f"{done} questions"
    stage.finish(**msgspec.to_builtins(_report(settings.language, runs, records)))


def _runs(lab: Lab) -> list[_Run]:
    """Raises SettingsError where there are fewer answers than are asked for."""
    settings = lab.settings.scaling
    assert settings is not None
    lengths = [len(document.tokens) for document in read_documents(lab.answers(settings.language))]
    if max(settings.answers) > len(lengths):
        raise SettingsError(f"lab.scaling.answers: {max(settings.answers)}, but there are only {len(lengths)}")
    tokens = list(accumulate(lengths))
    return [
        _Run(kind, answers, tokens[answers - 1], seed)
        for kind in PRETRAINED
        for answers in settings.answers
        for seed in settings.seeds
    ]


def _train(lab: Lab, runs: list[_Run]) -> None:
    settings = lab.settings.scaling
    assert settings is not None
    finetune = lab.recipe.finetune
    a_step = finetune.rows_per_step * finetune.row_length
    variants = {
        run.variant: Variant(
            loop={"steps": max(1, ceil(settings.passes * run.tokens / a_step)), "seed": run.seed},
            pretrained=PRETRAINED[run.kind],
            answers=run.answers,
        )
        for run in runs
    }
    plan = lab.plan(msgspec.structs.replace(lab.recipe, variants=variants))
    wanted = [f"{settings.language}/finetune-{run.variant}" for run in runs]
    Pipeline(with_needs(plan.steps, wanted)).run()


def _report(language: str, runs: list[_Run], records: Records) -> ScalingReport:
    written: dict[str, tuple[int, int]] = {}
    for record in records:
        tokens, rounds = written.get(record.method, (0, 0))
        written[record.method] = tokens + len(record.output), rounds + len(record.rounds)
    points = [
        Point(
            kind=run.kind,
            tokens=run.tokens,
            seed=run.seed,
            mean_acceptance_length=written[run.variant][0] / written[run.variant][1],
        )
        for run in runs
    ]
    fits = {kind: fit([point for point in points if point.kind == kind]) for kind in PRETRAINED}
    return ScalingReport(
        language=language,
        points=points,
        slopes={kind: slope for kind, (slope, _) in fits.items()},
        explained={kind: explained for kind, (_, explained) in fits.items()},
    )


def fit(points: list[Point]) -> tuple[Interval, float]:
    """Least squares over log2 of the tokens: the slope with its interval, by the residuals, and R²."""
    line = linregress(np.log2([point.tokens for point in points]), [point.mean_acceptance_length for point in points])
    interval = around(float(line.slope), float(line.stderr), len(points) - 2)
    return interval, round(float(line.rvalue**2), 4)
