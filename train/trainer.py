"""Ray Train around the training loop: one trainer per language, all at the same time."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
import ray

from train.job import LoopSettings, TrainingJob
from train.progress import Progress, read_progress
from train.run import Resources, Stopped, run, worker_environment
from train.stop_file import StopFile

__all__ = [
    "LoopSettings",
    "Outcome",
    "Progress",
    "Resources",
    "TrainingFailure",
    "TrainingJob",
    "fit",
    "fit_all",
    "read_progress",
]

logger = logging.getLogger(__name__)

ENVIRONMENT = {
    # Trainers queue for resources while others use them; Ray gives up and starts over after a minute. What no
    # machine has at all is refused before (train.capacity).
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(24 * 3600),
    # How often a controller asks its workers: a finished run holds its resources until then. Ray's own is 2 s.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}
"""Of Ray Train's controllers and workers, unless set by the user."""


class TrainingFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A run that did not end with a model."""

    name: str
    message: str


Outcome = Progress | TrainingFailure
"""How a run ended: with the last line of its log, or not."""


def fit(job: TrainingJob, resources: Resources) -> Progress:
    """Train one model and wait for it. Raises ValueError with the failure's message if it did not end well."""
    outcome = fit_all({job.name: job}, resources)[job.name]
    if isinstance(outcome, TrainingFailure):
        raise ValueError(f"{job.name}: {outcome.message}")
    return outcome


def fit_all(
    jobs: dict[str, TrainingJob],
    resources: Resources,
    on_progress: Callable[[str, Progress], None] | None = None,
    given_up: threading.Event | None = None,
) -> dict[str, Outcome]:
    """Train one model per language, all at the same time, each as soon as its workers' resources are free.

    A run that is repeated with the same name and storage resumes at its newest checkpoint. The failure of one
    language leaves the others alone. One that is asked to end early (StopFile) is a failure, too; so are those that
    are ended when `given_up` is set. `on_progress` is called with the language and the newest log line about once a
    second; without it progress is logged.
    """
    on_progress, given_up = on_progress or _log_progress, given_up or threading.Event()
    stop_files = [StopFile(job.output) for job in jobs.values()]
    for file in stop_files:
        file.clear()
    running = _start(jobs, resources)
    seen: dict[str, Progress] = {}
    outcomes: dict[str, Outcome] = {
        language: TrainingFailure(name=job.name, message="given up") for language, job in jobs.items()
    }
    try:
        while running and not given_up.is_set():
            for done in ray.wait(list(running), timeout=1.0)[0]:
                outcomes |= _result(done, running.pop(done))
            _tell(jobs, seen, on_progress)
    finally:
        for task in running:
            ray.cancel(task, force=True)
        for file in stop_files:
            file.clear()
    return outcomes


def _result(done: ray.ObjectRef, jobs: dict[str, TrainingJob]) -> dict[str, Outcome]:
    """What a task ended with; if it died itself (out of memory, machine lost), that is its jobs' failure."""
    try:
        return ray.get(done)
    except ray.exceptions.RayError as error:
        return {language: TrainingFailure(name=job.name, message=str(error)) for language, job in jobs.items()}


def _start(jobs: dict[str, TrainingJob], resources: Resources) -> dict[ray.ObjectRef, dict[str, TrainingJob]]:
    """Ray tasks that together train all jobs, each with its own; they end with their jobs' outcomes."""
    if not any(job.settings.resumable(resources.workers) for job in jobs.values()):
        # Nothing to coordinate and nothing to go back to: the worker can do without the five processes that
        # Ray Train starts around it, which cost a small machine more than the training.
        # A process each: DeepSpeed keeps the process group of its first run for good.
        needs = {"num_cpus": resources.cpus_per_worker, "num_gpus": int(resources.use_gpu)}
        alone = ray.remote(**needs, max_retries=0, max_calls=1)
        return {alone(_fit_alone).remote(lang, job, resources): {lang: job} for lang, job in jobs.items()}
    # A process less per run where a lone machine could only be taken away with all that would go on without it.
    alone = len(ray.nodes()) == 1
    defaults = {**ENVIRONMENT, "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0" if alone else "1"}
    environment = {name: os.environ.get(name, value) for name, value in defaults.items()}
    # In a task, not here: it ends all its trainers when this process goes, and brings its own environment.
    together = ray.remote(num_cpus=0, max_retries=0, runtime_env={"env_vars": environment})
    return {together(_fit_together).remote(jobs, resources): jobs}


def _fit_alone(language: str, job: TrainingJob, resources: Resources) -> dict[str, Outcome]:
    """One worker, in this process: Ray Train's local mode, which takes its process group from torchrun's variables."""
    import torch

    torch.set_num_threads(resources.cpus_per_worker)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    os.environ.update(worker_environment(resources) | ranks | group)
    return {language: _outcome(job, msgspec.structs.replace(resources, workers=0))}


def _fit_together(jobs: dict[str, TrainingJob], resources: Resources) -> dict[str, Outcome]:
    # Threads, because each only waits, and a process would import all of Ray Train and torch again.
    with ThreadPoolExecutor(max_workers=len(jobs)) as pool:
        outcomes = pool.map(lambda job: _outcome(job, resources), jobs.values())
        return dict(zip(jobs, outcomes, strict=True))


def _outcome(job: TrainingJob, resources: Resources) -> Outcome:
    import ray.train

    try:
        return run(job, resources)
    except Stopped as stopped:
        return TrainingFailure(name=job.name, message=str(stopped))
    except ray.train.WorkerGroupError as error:
        message = str(next(iter(error.worker_failures.values())))
    except ray.train.ControllerError as error:
        message = str(error.controller_failure)
    except (ValueError, ray.train.TrainingFailedError, ray.exceptions.RayError) as error:
        message = str(error)
    logger.error("%s: training failed: %s", job.name, message)
    return TrainingFailure(name=job.name, message=message)


def _tell(
    jobs: dict[str, TrainingJob], seen: dict[str, Progress], on_progress: Callable[[str, Progress], None]
) -> None:
    for language, job in jobs.items():
        progress = read_progress(job.output)
        if progress is not None and progress != seen.get(language):
            seen[language] = progress
            on_progress(language, progress)


def _log_progress(language: str, progress: Progress) -> None:
    logger.info(
        "%s: step %d of %d, loss %.3f, %.0f tokens/s",
        language,
        progress.step,
        progress.steps,
        progress.loss,
        progress.tokens_per_second,
    )
