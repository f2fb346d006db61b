"""`polydraft job`: Ray's own command for submitting a job, written out and run."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import click

JOBS = ("train", "distill", "evaluate", "publish")


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--address", help="Of the cluster's dashboard, http://HEAD:8265; RAY_API_SERVER_ADDRESS by default.")
@click.option("--no-wait", is_flag=True, help="Do not follow the job's log.")
@click.argument("name", type=click.Choice(JOBS))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def job(address: str | None, no_wait: bool, name: str, arguments: tuple[str, ...]) -> None:
    """Submit a job to a cluster: options of `ray job submit` first, then the job, then the job's own options.

    In a checkout of polydraft the checkout is sent along, and elsewhere the cluster's own polydraft runs.
    """
    command = ["ray", "job", "submit"]
    command += ["--address", address] if address else []
    command += ["--no-wait"] if no_wait else []
    command += ["--working-dir", "."] if Path("cluster/jobs").is_dir() else []
    command += ["--", "python", "-m", f"cluster.jobs.{name}", *arguments]
    click.echo(shlex.join(command), err=True)
    sys.exit(subprocess.run([str(Path(sys.executable).with_name("ray")), *command[1:]], check=False).returncode)
