"""Publish what a run has trained and measured; nothing is trained here."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.cli import run_job
from cluster.doctor.check import Check
from cluster.doctor.training import training_checks
from cluster.jobs.job import as_job
from cluster.run import Run
from cluster.train_command import train
from common.settings import SettingsError


def publishing_checks(run: Run, data: str) -> Iterator[Check]:
    """Those of training, and that all is done but publishing."""
    yield from training_checks(run, data)
    yield Check("--run", lambda: _trained(run, data), "run the job train first")


def _trained(run: Run, data: str) -> str:
    steps = run.plan(data).steps.values()
    missing = [need.name for step in steps if step.kind == "publish" for need in step.needs if not need.done]
    if missing:
        raise SettingsError(f"{run.folder}: {', '.join(missing)} not done, or done with other settings")
    return str(run.folder)


job = as_job(train, publishing_checks, last="publish")

if __name__ == "__main__":
    run_job(job)
