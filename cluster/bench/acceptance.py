"""Tokens per verification of each language's published drafter, by real speculative decoding of test sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from rich.progress import Progress

from cluster.bench.report import report
from cluster.run import Run
from common.engine.decoding import build_decoder
from common.engine.drafters import load_drafter
from common.models import load_model, load_tokenizer, stop_token_ids
from common.registry import Registry
from train.corpus import read_test
from train.documents import Prompter
from train.evaluation.acceptance import Acceptance, measure_acceptance
from train.plan import GENERIC


def main(run: Run, data: str, prompts: int | None) -> None:
    """Measure and report. The baseline trained on English only is measured beside, where the run has one."""
    generic = run.folder / GENERIC / "pretrain" / "model"
    results: dict[str, dict[str, list[Acceptance]]] = {}
    for language, manifest in _published(run).items():
        drafters = {"drafter": Registry(run.registry).fetch(manifest, run.folder / "cache")}
        drafters |= {GENERIC: generic} if generic.exists() else {}
        results[language] = {name: _measure(run, language, path, data, prompts) for name, path in drafters.items()}
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


def _measure(run: Run, language: str, drafter: Path, data: str, prompts: int | None) -> list[Acceptance]:
    recipe = run.config.train
    settings = msgspec.structs.replace(recipe.evaluate, prompts=prompts or recipe.evaluate.prompts)
    tokenizer = load_tokenizer(run.target)
    pairs = read_test(recipe.corpus, language, data)[: settings.prompts]
    questions = Prompter(tokenizer, recipe.prompt, language).prompts([pair.source for pair in pairs])
    decoder = build_decoder(
        load_model(run.target),
        load_drafter(drafter),
        max_length=max(map(len, questions)) + settings.max_tokens,
        concurrency=settings.concurrency,
        draft_length=settings.draft_length,
    )
    with Progress(transient=True) as bars:
        bar = bars.add_task(f"{language} {drafter.name}", total=len(questions) * len(settings.temperatures))
        return measure_acceptance(
            decoder, questions, settings, stop_token_ids(run.target, tokenizer), lambda: bars.advance(bar)
        )
