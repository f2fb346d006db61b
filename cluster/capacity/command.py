"""`polydraft plan`: how many replicas a traffic needs, and what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
import yaml

from cluster.options import run_of, run_options

if TYPE_CHECKING:
    from cluster.capacity.traffic import Traffic
    from cluster.run import Run


@click.command()
@run_options
@click.option("--traffic", "traffic_file", required=True, type=click.Path(path_type=Path), help="YAML: what is asked.")
@click.option("--costs", "costs_file", type=click.Path(path_type=Path), help="Measured costs; <run>/costs.yaml.")
@click.option("--measure", is_flag=True, help="Measure the configured models on this machine, and write --costs anew.")
def plan(data: str, traffic_file: Path, costs_file: Path | None, measure: bool, **options: Any) -> None:
    """How many verifier and drafter replicas a traffic needs, what they cost, and whether drafters pay.

    A table on standard error, JSON as the last line of standard output.
    """
    from cluster.bench.report import report
    from cluster.capacity.costs import Costs
    from cluster.capacity.report import COLUMNS, figures, rows, sentence
    from cluster.capacity.sizing import size
    from cluster.capacity.traffic import Traffic
    from common.settings import SettingsError, load

    run, traffic = run_of(**options), load(traffic_file, Traffic)
    path = costs_file or run.folder / "costs.yaml"
    if measure:
        _measure(run, traffic, path)
    elif not path.exists():
        raise SettingsError(f"{path}: nothing has been measured; --measure does it, --costs names another file")
    costs, serve = load(path, Costs), run.config.serve
    if costs.temperature not in (None, traffic.temperature):
        measured = f"{path} was measured at {costs.temperature:g}; --measure does it anew, --costs names another file"
        raise SettingsError(f"{traffic_file}: temperature is {traffic.temperature:g}, but {measured}")
    sizing, plain = size(traffic, costs, serve), size(traffic, costs.plain(), serve)
    report(
        sentence(sizing),
        COLUMNS,
        rows(sizing, plain, traffic),
        {"with": figures(sizing, traffic), "without": figures(plain, traffic)},
    )
    click.echo(f"without speculation: {sentence(plain)}", err=True)


def _measure(run: Run, traffic: Traffic, path: Path) -> None:
    """Raises ModelError, RegistryError or SettingsError for what cannot be measured."""
    from cluster.capacity.measure import measure

    run.check_trained()
    costs = measure(run, traffic)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(msgspec.to_builtins(costs), sort_keys=False), encoding="utf8")
