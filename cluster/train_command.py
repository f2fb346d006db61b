"""`polydraft train`: one run, many languages."""

from __future__ import annotations

import shutil
import sys
from contextlib import nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from cluster.options import run_of, run_options
from common.settings import SettingsError

if TYPE_CHECKING:
    from cluster.run import Run
    from train.pipeline import Pipeline
    from train.plan import Plan

STAGES = ("corpus", "target", "pretrain", "distill", "ngram", "finetune", "refresh", "evaluate", "publish")
"""As in train.step, which takes long to import; a test compares them."""


@click.command()
@run_options
@click.option("--language", "languages", multiple=True, help="Only this language, and what it needs; repeatable.")
@click.option("--from", "first", type=click.Choice(STAGES), help="Do this stage, and all that builds on it, again.")
@click.option("--until", "last", type=click.Choice(STAGES), help="Do no more than this stage, and what it needs.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, with sizes and times, and do nothing.")
@click.option(
    "--from-traffic", "traffic", metavar="FOLDER", help="Make the published drafters better with these prompts."
)
@click.option("--force", is_flag=True, help="Publish also what is slower than plain decoding or worse than before.")
def train(
    config_name: str,
    data: str,
    languages: tuple[str, ...],
    first: str | None,
    last: str | None,
    dry_run: bool,
    traffic: str | None,
    force: bool,
    **options: Any,
) -> None:
    """Train and publish a drafter for every language of a configuration; what is done is not done again.

    With --from-traffic published drafters learn from captured prompts, and one that is certainly better is promoted.
    In the end a table says what the drafters are worth; its figures are the last line of standard output, as JSON.
    """
    from cluster.run import start_ray
    from cluster.traffic import Round
    from train.pipeline import Pipeline
    from train.selection import of_owners, until

    run = run_of(config_name, **options)
    run.check()
    unknown = sorted({*languages} - {*run.config.languages})
    if unknown:
        raise SettingsError(f"--language {unknown[0]}: the configuration has {', '.join(run.config.languages)}")
    with Round(run, data, traffic, languages, force=force) if traffic else nullcontext() as served:
        plan = served.plan if served else run.plan(data, force=force)
        steps = served.plan.improvements if served else of_owners(plan.steps, languages) if languages else plan.steps
        pipeline = Pipeline(until(steps, last) if last else steps)
        again = _again(pipeline, first, languages) if first else []
        if dry_run:
            _show_plan(run, plan, pipeline, again)
            return
        start_ray()
        _save_configuration(run)
        try:
            pipeline.run(again)
        finally:
            _report(pipeline)


def _again(pipeline: Pipeline, first: str, languages: tuple[str, ...]) -> list[str]:
    from train.selection import since

    names = since(pipeline.steps, first, languages)
    if not names:
        raise SettingsError(f"--from {first}: {', '.join(languages) or 'this configuration'} has no such stage")
    return names


def _save_configuration(run: Run) -> None:
    """With every setting, also those that were left to their defaults."""
    run.folder.mkdir(parents=True, exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(run.config))
    (run.folder / "configuration.json").write_bytes(text)


def _report(pipeline: Pipeline) -> None:
    from train.results import as_builtins, results, table, verdict_table, verdicts

    found = results(pipeline.steps.values())
    if found:
        Console(stderr=True).print(table(found))
    judged = verdicts(pipeline.steps.values())
    if judged:
        Console(stderr=True).print(verdict_table(judged))
    published = {name: manifest.version for name, manifest in pipeline.published().items()}
    published |= {language: verdict.promoted for language, verdict in judged.items() if verdict.promoted}
    figures = {"languages": as_builtins(found), "published": published, "failed": pipeline.failures}
    figures |= {"traffic": msgspec.to_builtins(judged)} if judged else {}
    sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")


def _show_plan(run: Run, plan: Plan, pipeline: Pipeline, again: list[str]) -> None:
    from train.estimate import Estimator

    estimator = Estimator(run.config.train, plan)
    table = Table("stage", "state", "tokens", "disk", "time", title=f"{run.folder}: what would be done")
    disk, seconds = 0, 0.0
    for name, step in pipeline.steps.items():
        estimate = estimator.estimate(step)
        done = step.done and name not in again
        state = "done" if done else "again" if name in again else "to do"
        if not done:
            disk, seconds = disk + estimate.disk_bytes, seconds + (estimate.seconds or 0.0)
        tokens = "" if estimate.tokens is None else f"{estimate.tokens:,}"
        table.add_row(name, state, tokens, _bytes(estimate.disk_bytes), _time(estimate.seconds))
    console = Console()
    console.print(table)
    # Not the table's caption, which would be as narrow as the table.
    console.print(
        f"To do, without the text itself: {decimal(disk)} ({decimal(_free(run))} are free) and {_time(seconds)} one "
        "after another. Tokens of decoding are an upper bound, times a rough guess by the speed of this machine.",
        highlight=False,
    )


def _bytes(size: int) -> str:
    return decimal(size) if size else ""


def _time(seconds: float | None) -> str:
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))


def _free(run: Run) -> int:
    existing = next(folder for folder in (run.folder, *run.folder.parents) if folder.exists())
    return shutil.disk_usage(existing).free
