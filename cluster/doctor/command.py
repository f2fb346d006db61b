"""`polydraft doctor`: what is wrong, all of it, and what to do about it, before anything is deployed or trained."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import click

from cluster.options import run_of, run_options
from common.settings import SettingsError

if TYPE_CHECKING:
    from cluster.doctor.check import Check, Finding
    from cluster.run import Run

MARKS = {"right": "✓", "doubtful": "?", "wrong": "✗"}
COLOURS = {"right": "green", "doubtful": "yellow", "wrong": "red"}


@click.command()
@run_options
@click.option("--for", "purpose", type=click.Choice(["serve", "train"]), default="serve", show_default=True)
def doctor(config_name: str, data: str, purpose: Literal["serve", "train"], **options: Any) -> None:
    """Check a configuration and, where RAY_ADDRESS names one, a cluster; exits with 1 if something is wrong."""
    from cluster.doctor.check import Finding, examine

    try:
        run = run_of(config_name, **options)
    except SettingsError as error:
        found = [Finding(what="configuration", state="wrong", found=line) for line in str(error).splitlines()]
    else:
        found = [*examine(_of_configuration(run, data, purpose)), *_of_cluster(run, purpose)]
    _show(found, config_name)
    if any(finding.state == "wrong" for finding in found):
        sys.exit(1)


def _of_configuration(run: Run, data: str, purpose: str) -> Iterator[Check]:
    from cluster.doctor.serving import drafter_checks, serving_checks
    from cluster.doctor.training import training_checks

    return training_checks(run, data) if purpose == "train" else chain(serving_checks(run), drafter_checks(run))


def _of_cluster(run: Run, purpose: Literal["serve", "train"]) -> Iterator[Finding]:
    """Nothing but this one finding if the cluster cannot be joined."""
    from cluster.doctor.check import Check, examine
    from cluster.doctor.machines import join, machine_checks

    if "RAY_ADDRESS" not in os.environ:
        return
    [joined] = examine([Check("cluster", join, "RAY_ADDRESS, RAY_AUTH_MODE and RAY_AUTH_TOKEN must be the cluster's")])
    yield joined
    if joined.state == "right":
        yield from examine(machine_checks(run, purpose))


def _show(findings: list[Finding], config_name: str) -> None:
    from cluster.config import line_of

    for finding in findings:
        mark = click.style(MARKS[finding.state], fg=COLOURS[finding.state])
        if finding.state == "right":
            click.echo(f"{mark} {finding.what}: {finding.found}")
            continue
        line = line_of(config_name, finding.what)
        click.echo(f"{mark} {finding.what}: {f'{line}: ' if line else ''}{finding.found}")
        if finding.remedy:
            click.echo(f"    → {finding.remedy}")
