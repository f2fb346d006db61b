"""Train and publish a drafter for every language."""

from __future__ import annotations

from cluster.cli import run_job
from cluster.doctor.training import training_checks
from cluster.jobs.job import as_job
from cluster.train_command import train

job = as_job(train, training_checks)

if __name__ == "__main__":
    run_job(job)
