"""What a run's drafters are worth, from its evaluations: a table for people and built-in types for programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from rich.table import Table

from train.evaluation.drafter import Evaluation
from train.step import Step
from train.traffic_tasks import Verdict, promote_if_better

Results = dict[str, dict[str, Evaluation]]
"""By language and drafter."""
TITLES = {
    "generic": "generic",
    "generalist": "generalist",
    "pretrain": "P only",
    "finetune-alone": "F only",
    "finetune": "P+F",
    "refresh": "P+F, refreshed",
    "ngram": "n-gram",
}
"""What the literature calls the drafters, by the names of their evaluations; a variant is P+F too."""


def results(steps: Iterable[Step]) -> Results:
    """Of the evaluations that are done."""
    found: Results = {}
    for step in steps:
        if step.kind == "evaluate" and step.done:
            measured = step.label.partition("/")[2]
            found.setdefault(step.owner, {})[measured] = msgspec.convert(step.stage.facts(), Evaluation)
    return found


def table(results: Results) -> Table:
    """One row a drafter: mean acceptance length and speed over plain decoding, at each temperature."""
    measured = [evaluation for drafters in results.values() for evaluation in drafters.values()]
    temperatures = sorted({at.temperature for evaluation in measured for at in evaluation.speed})
    shown = Table("language", "drafter", *(f"{kind} T={t:g}" for kind in ("length", "speed") for t in temperatures))
    for language, drafters in sorted(results.items()):
        for name, evaluation in drafters.items():
            cells = [format(value, ".2f") for value in (*_lengths(evaluation), *_speedups(evaluation))]
            shown.add_row(language, _title(name), *cells)
    return shown


def verdicts(steps: Iterable[Step]) -> dict[str, Verdict]:
    """By language, of what was made of traffic and is decided."""
    judged = [step for step in steps if step.work is promote_if_better and step.done]
    return {step.owner: msgspec.convert(step.stage.facts(), Verdict) for step in judged}


def verdict_table(verdicts: dict[str, Verdict]) -> Table:
    """Two rows a language: tokens per verification on served prompts and on the test text."""
    shown = Table("language", "text", "before", "after", "difference", "promoted")
    for language, verdict in sorted(verdicts.items()):
        for name, found in (("traffic", verdict.traffic), ("test", verdict.ordinary)):
            cells = map(str, (found.before, found.after, found.difference))
            shown.add_row(language, name, *cells, verdict.promoted or f"no: {verdict.why_not}")
    return shown


def as_builtins(results: Results) -> dict[str, Any]:
    """The table's figures and what they are made of."""
    return {
        language: {name: evaluation.metrics() for name, evaluation in drafters.items()}
        for language, drafters in results.items()
    }


def _title(name: str) -> str:
    return TITLES[name] if name in TITLES else f"P+F {name.partition('-')[2]}"


def _lengths(evaluation: Evaluation) -> list[float]:
    return [at.mean_acceptance_length for at in sorted(evaluation.acceptance, key=lambda at: at.temperature)]


def _speedups(evaluation: Evaluation) -> list[float]:
    return [at.speedup.value for at in sorted(evaluation.speed, key=lambda at: at.temperature)]
