"""Tokens per verification of each language's published drafter, by real speculative decoding of test sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from rich.progress import Progress

from cluster.bench.report import report
from cluster.run import Run
from common.registry import Registry
from train.evaluation.acceptance import Acceptance
from train.evaluation.drafter import Models
from train.pair import CorpusError
from train.plan import GENERIC
from train.prompts import sample_prompts


def main(run: Run, prompts: int | None) -> None:
    """Measure and report. The baseline trained on English only is measured beside, where the run has one."""
    generic = run.folder / GENERIC / "pretrain" / "model"
    results: dict[str, dict[str, list[Acceptance]]] = {}
    for language, manifest in _published(run).items():
        drafters = {"drafter": Registry(run.registry).fetch(manifest, run.folder / "cache")}
        drafters |= {GENERIC: generic} if generic.exists() else {}
        results[language] = {name: _measure(run, language, path, prompts) for name, path in drafters.items()}
    rows = [
        [
            language,
            name,
            f"{a.temperature:g}",
            f"{a.mean_acceptance_length:.3f}",
            " ".join(format(share, ".2f") for share in a.accepted_per_position),
        ]
        for language, by_drafter in results.items()
        for name, acceptances in by_drafter.items()
        for a in acceptances
    ]
    columns = ["language", "drafter", "temperature", "mean acceptance length", "accepted at each position"]
    report("acceptance on test sentences", columns, rows, {"languages": msgspec.to_builtins(results)})


def _published(run: Run) -> dict[str, Any]:
    found = {language: Registry(run.registry).current(language) for language in run.config.languages}
    return {language: manifest for language, manifest in found.items() if manifest is not None}


def _measure(run: Run, language: str, drafter: Path, prompts: int | None) -> list[Acceptance]:
    """As the run's own evaluation does it, on the same sentences."""
    recipe, corpus = run.config.train, run.folder / language / "corpus"
    if not corpus.exists():
        raise CorpusError(f"{corpus}: no such text; train first (polydraft train)")
    settings = msgspec.structs.replace(recipe.evaluate, prompts=prompts or recipe.evaluate.prompts)
    asked = sample_prompts(
        recipe, {language: corpus}, run.target, "test", settings.prompts, max_tokens=settings.max_tokens
    ).tokens
    models = Models(run.target, drafter, settings)
    with Progress(transient=True) as bars:
        bar = bars.add_task(f"{language} {drafter.name}", total=len(asked) * len(settings.temperatures))
        return models.acceptance(asked, lambda: bars.advance(bar))
