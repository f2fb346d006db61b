"""One training run, as Ray Train does it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from train.job import TrainingJob
from train.progress import Progress, read_progress

if TYPE_CHECKING:
    from ray.train import Result, ValidationConfig

logger = logging.getLogger(__name__)


class Stopped(RuntimeError):
    """The run was asked to end (train.stop_file); the message names the step of the checkpoint it left."""


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What each training run gets."""

    workers: int = 1
    cpus_per_worker: int = 1
    use_gpu: bool = False
    storage: str
    """Path or URI that every machine sees; checkpoints go to ``<storage>/<job name>``."""
    validation_gpus: float = 0.0
    """GPUs, or the share of one, that judge checkpoints; 0: the CPU does."""
    max_failures: int = 1
    """Worker failures survived by going back to the last checkpoint."""


def run(job: TrainingJob, resources: Resources) -> Progress:
    """Train `job` to its end and return the last line of its log; `resources.workers` 0 is in this process.

    Raises ValueError if it cannot be started as it is, Stopped, and Ray Train's errors.
    """
    import ray.train  # here: seconds of imports, in the one process that needs them
    from ray.train.torch import TorchTrainer

    from train.checkpoint import SCORE
    from train.failures import EndAtOnce
    from train.preemption import PreemptibleTorch

    job.check(max(1, resources.workers))
    judged = job.settings.validate_every > 0
    per_worker = {"CPU": resources.cpus_per_worker, "GPU": int(resources.use_gpu)}
    trainer = TorchTrainer(
        _train,
        train_loop_config={"job": msgspec.to_builtins(job)},
        torch_config=PreemptibleTorch(backend="nccl" if resources.use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.workers, use_gpu=resources.use_gpu, resources_per_worker=per_worker
        ),
        run_config=ray.train.RunConfig(
            name=job.name,
            storage_path=resources.storage,
            failure_config=ray.train.FailureConfig(max_failures=resources.max_failures),
            # The newest one is kept beside the best, and so is one that is still to be judged.
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=1 if judged else 2, checkpoint_score_attribute=SCORE if judged else None
            ),
            callbacks=[EndAtOnce()],
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
            worker_runtime_env={"env_vars": worker_environment(resources)},
        ),
        validation_config=_validation(job, resources) if judged else None,
    )
    result = trainer.fit()
    progress = read_progress(job.output)
    assert progress is not None, f"{job.name}: trained without a log"
    if progress.step < job.settings.steps:
        raise Stopped(f"stopped after step {progress.step}, which is saved; the same command goes on from there")
    return _choose(result, job, progress) if judged else progress


def _validation(job: TrainingJob, resources: Resources) -> ValidationConfig:
    from ray.train import ValidationConfig, ValidationTaskConfig

    from train.validation import validate

    # No CPU of Ray's: those are the trainers', of this language and of others, and a judgement that waits for one
    # comes when the training is over. It takes turns with a trainer instead, and is short beside it.
    needs = {"num_cpus": 0, "num_gpus": resources.validation_gpus}
    asked = {"job": msgspec.to_builtins(job), "gpus": resources.validation_gpus}
    return ValidationConfig(
        fn=validate,
        task_config=ValidationTaskConfig(fn_kwargs=asked),
        ray_remote_kwargs={**needs, "runtime_env": {"env_vars": worker_environment(resources)}},
    )


def _choose(result: Result, job: TrainingJob, progress: Progress) -> Progress:
    """Make the checkpoint with the highest acceptance the run's model."""
    from train.checkpoint import SCORE, publish

    best, metrics = max(result.best_checkpoints, key=lambda found: (found[1][SCORE], found[1]["step"]))
    if not metrics[SCORE]:
        logger.warning("%s: no checkpoint could be judged (see Ray's log); the newest becomes the model", job.name)
    publish(best, job.output)
    return msgspec.structs.replace(progress, acceptance=metrics[SCORE] or None)


def worker_environment(resources: Resources) -> dict[str, str]:
    """Variables of every process that computes for a run."""
    environment = {
        "OMP_NUM_THREADS": str(resources.cpus_per_worker),
        # DeepSpeed still calls torch's collectives by their old names, and each call warns.
        "PYTHONWARNINGS": "ignore::FutureWarning:torch.distributed.c10d_logger",
    }
    return environment if resources.use_gpu else {**environment, "DS_ACCELERATOR": "cpu"}


def _train(config: dict[str, Any]) -> None:
    from train.loop import train_loop  # here: only the workers need transformers and DeepSpeed

    train_loop(config)
