"""`polydraft serve-config`: the file for `serve deploy`, once everything about it is found right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cluster.options import run_of, run_options


@click.command()
@run_options
@click.option("--output", type=click.Path(path_type=Path), help="The file; standard output by default.")
@click.option("--cache", help="Folder on the machines of the cluster for fetched drafters; <run>/cache by default.")
@click.option("--working-dir", help="URI of a package of polydraft's source, where it is not installed.")
def serve_config(data: str, output: Path | None, cache: str | None, working_dir: str | None, **options: Any) -> None:
    """Write what `serve deploy` takes: router and verifier, and an application for each language's drafter.

    The target and the registry are read, so run it where they have the paths that the cluster's machines know.
    """
    from cluster.deployment import usable_drafters
    from cluster.doctor.check import require
    from cluster.doctor.serving import serving_checks
    from cluster.serve_config import Places, as_yaml
    from cluster.serve_config import serve_config as make

    run = run_of(**options)
    require(serving_checks(run), options["config_name"])
    places = Places(
        target=str(run.target),
        registry=run.registry,
        cache=cache or str(run.folder / "cache"),
        working_dir=working_dir,
    )
    text = as_yaml(make(run.config, places, usable_drafters(run.config, run.target, run.registry)))
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf8")
