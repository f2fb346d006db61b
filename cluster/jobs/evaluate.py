"""Measure what a run's drafters are worth, and write the report."""

from __future__ import annotations

from cluster.cli import run_job
from cluster.doctor.training import evaluation_checks
from cluster.evaluate_command import evaluate
from cluster.jobs.job import as_job

job = as_job(evaluate, evaluation_checks)

if __name__ == "__main__":
    run_job(job)
