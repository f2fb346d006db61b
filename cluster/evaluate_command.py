"""`polydraft evaluate`: the studies, and a report of what they found."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.console import Console

from cluster.options import options_with, run_of
from common.settings import SettingsError

if TYPE_CHECKING:
    from cluster.run import Run
    from train.evaluation.lab import Lab
    from train.evaluation.report.findings import Findings
    from train.evaluation.settings import LabSettings

DEFAULT = "lab"
"""The embedded default with all the drafters that are compared."""
STUDIES = ("speed", "http", "domains", "quality", "peers", "scaling", "judge")


@click.group(invoke_without_command=True)
@options_with(DEFAULT)
@click.option("--what", default="all", show_default=True, help=f"Of {', '.join(STUDIES)}; commas between.")
@click.option("--quick", is_flag=True, help="A tenth of the work, all but scaling: a first look.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the report; <run>/evaluation/report.")
@click.pass_context
def evaluate(
    context: click.Context, /, config_name: str, data: str, what: str, quick: bool, output: Path | None, **options: Any
) -> None:
    """Measure what a run's drafters are worth, and write a report; what is measured is not measured again.

    Without --config the embedded default is trained first. The last line of standard output is JSON.
    """
    if context.invoked_subcommand is not None:
        return
    from train.evaluation.report.findings import read_findings
    from train.evaluation.report.page import write_report

    run = run_of(config_name, **options)
    settings = run.config.lab.quick() if quick else run.config.lab
    chosen = _chosen(what, settings)
    if config_name == DEFAULT:
        from cluster.quickstart import train_default

        data = train_default(run)
    run.check_trained()
    lab = _lab(run, data, settings)
    for name in chosen:
        _run(name, lab, run)
    findings = read_findings(lab.folder)
    written = write_report(findings, output or lab.folder / "report")
    sys.stdout.write(msgspec.json.encode(_figures(chosen, findings, written)).decode() + "\n")


def _chosen(what: str, settings: LabSettings) -> list[str]:
    there = [name for name in STUDIES if getattr(settings, name, name) is not None]
    names = there if what == "all" else what.split(",")
    for name in names:
        if name not in there:
            raise SettingsError(f"--what: `{name}` is not among {', '.join(there)}, as `lab` is set up")
    return names


def _lab(run: Run, data: str, settings: LabSettings) -> Lab:
    import torch
    from transformers.utils.logging import disable_progress_bar

    from train.evaluation.lab import Lab

    disable_progress_bar()  # a dozen models are loaded

    config = run.config
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    lab = Lab(
        config.train,
        settings,
        config.languages,
        run=run.folder,
        target=run.target,
        data=data,
        plan=lambda recipe: run.with_recipe(recipe).plan(data),
    )
    for language in config.languages:
        if not any(method.drafter for method in lab.methods(language)):
            raise SettingsError(f"{run.folder}: no drafter for {language} yet; train it first (polydraft train)")
    return lab


def _run(name: str, lab: Lab, run: Run) -> None:
    from cluster.asking import asking
    from cluster.run import start_ray
    from train.evaluation.studies import domains, http, judge, peers, quality, scaling, speed

    studies: dict[str, Callable[[Lab], Iterator[str]]] = {
        "speed": speed.run,
        "http": lambda lab: http.run(lab, asking(run)),
        "domains": domains.run,
        "quality": quality.run,
        "peers": peers.run,
        "scaling": scaling.run,
        "judge": judge.run,
    }
    if name == "scaling":
        start_ray()  # it trains
    with Console(stderr=True).status(name) as status:
        for doing in studies[name](lab):
            status.update(f"{name}: {doing}")


def _figures(chosen: list[str], findings: Findings, written: list[Path]) -> dict[str, Any]:
    """For programs: where the report is and, if peers were measured, how we compare."""
    peers, figures = findings.peers, dict[str, Any]()
    if peers is not None and "peers" in chosen:
        ratios = {f"ratio_{name}": ratio.value for name, ratio in peers.ratios.items()}
        intervals = {name: [ratio.low, ratio.high] for name, ratio in peers.ratios.items()}
        figures = {"equal": peers.equality.equal, **ratios, "intervals": intervals}
    return figures | {"studies": chosen, "report": [str(path) for path in written]}


@evaluate.command()
@click.argument("before", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, file_okay=False, path_type=Path))
def compare(before: Path, after: Path) -> None:
    """Two runs' acceptance on the questions that both have answered, by language and method."""
    from train.evaluation.report.comparison import compare_runs, comparison_table

    compared = compare_runs(before / "evaluation", after / "evaluation")
    Console(stderr=True, width=None if sys.stderr.isatty() else 160).print(comparison_table(compared))
    sys.stdout.write(msgspec.json.encode(compared).decode() + "\n")
