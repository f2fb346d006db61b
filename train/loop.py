"""The training loop of one worker: DeepSpeed steps over packed rows, inside Ray Train.

Everything random or scheduled is a function of seed and step (rows, learning rate, dropout), so a checkpoint is
DeepSpeed's own (weights, optimizer) and a resumed run ends with the same weights, bit for bit.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import ray.train
import torch
from torch import Tensor, distributed, nn
from transformers.utils.logging import disable_progress_bar

from train import checkpoint
from train.export import export
from train.failures import TrainingDiverged
from train.job import LoopSettings, TrainingJob
from train.language_model import PackedLanguageModel, exact_buffers, load_language_model
from train.packing import PackedRows
from train.preemption import Order, Preempted, StopRequest
from train.progress import StepFigures
from train.sampler import RowSampler
from train.stop_file import StopFile
from train.watching.reporter import Reporter
from train.watching.utilisation import flops_per_token, peak_memory_bytes


def train_loop(config: dict[str, Any]) -> None:
    """Train ``config["job"]`` (a TrainingJob as built-in types) on this worker.

    Returns early, once the state is saved, if the run was asked to end. Raises, on every worker at the same step,
    TrainingDiverged; Preempted, once the state is saved, if a worker was told to stop; CheckpointError on the worker
    that cannot write; ValueError if a model cannot be trained.
    """
    job = msgspec.convert(config["job"], TrainingJob)
    settings = job.settings
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    disable_progress_bar()
    module = make_module(job)
    flops = flops_per_token(module.model, settings.row_length)
    engine, first = checkpoint.resume(
        lambda universal: make_engine(module, settings, workers, universal=universal), settings.zero_stage
    )
    rows = PackedRows.load(Path(job.data))
    reporter = Reporter(job, rows, flops, workers, first) if rank == 0 else None
    finished = run_steps(engine, job, Steps(engine, settings, rows, rank, workers), reporter, first)
    if reporter is not None:
        reporter.close()
    if finished and not settings.validate_every:
        export(module.model, job, rank)


def make_module(job: TrainingJob) -> PackedLanguageModel:
    """What is trained, on the CPU. Raises ValueError if a model cannot be trained, or cannot teach."""
    settings = job.settings
    return load_language_model(
        job.init,
        settings.objective,
        steps=settings.steps,
        row_length=settings.row_length,
        teacher=job.teacher,
        teacher_dtype=torch.bfloat16 if _in_bfloat16() else torch.float32,
    )


def run_steps(engine: Any, job: TrainingJob, steps: Steps, reporter: Reporter | None, first: int) -> bool:
    """Take the steps after the `first`, with all that has to be told and saved between them.

    Returns whether all are taken: if not, the run was asked to end, and its state is saved. Raises what `train_loop`
    raises.
    """
    settings, workers = job.settings, distributed.get_world_size()
    listens = reporter is not None and settings.resumable(workers)
    stop = StopRequest(workers, StopFile(job.output) if listens else None)
    for done in range(first + 1, settings.steps + 1):
        steps.take(done - 1)
        last = done == settings.steps
        candidate = _is_due(done, settings.validate_every) or (last and settings.validate_every > 0)
        told = last or done % settings.log_every == 0
        order = Order.GO_ON if last else stop.order(ask_ray=told)
        saved = candidate or order is not Order.GO_ON or (not last and _is_due(done, settings.checkpoint_every))
        if told or saved:
            figures = steps.figures(done)
            if reporter is not None:
                reporter.tell(done, figures)
        if saved:
            # Checkpoints that wait to be judged are all kept, so there is never more than one, and the last.
            judged = candidate and (last or not checkpoint.awaits_judgement())
            checkpoint.report(engine, job, done, judge=judged)
        if order is Order.END:
            return False
        if order is Order.LEAVE:
            raise Preempted(f"told to stop after step {done}, which is saved; the same command goes on from there")
    return True


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def learning_rate(step: int, settings: LoopSettings) -> float:
    """Linear warm-up, then a cosine down to 0; `step` counts from 0."""
    warmup = math.ceil(settings.warmup_share * settings.steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, settings.steps - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


class Steps:
    """One worker's share of the optimizer steps, and what has to be told about them."""

    def __init__(self, engine: Any, settings: LoopSettings, rows: PackedRows, rank: int, workers: int) -> None:
        self._engine, self._settings, self._rows = engine, settings, rows
        self._rank, self._workers = rank, workers
        self._sampler = RowSampler(len(rows.input_ids), settings.rows_per_step, settings.seed)
        self._micro_rows, self._accumulation = settings.micro_batches(workers)
        self._untold: list[Tensor] = []
        self._waited_s = 0.0

    def take(self, step: int) -> None:
        """Do optimizer step `step` (from 0)."""
        rows = self._sampler.step(step)
        tokens = int(self._rows.loss_tokens[rows].sum())
        # Dropout is drawn anew from the step's own seed, so that a resumed run draws the same.
        seed = np.random.SeedSequence((self._settings.seed, step, self._rank)).generate_state(1, np.uint64)
        torch.manual_seed(int(seed[0]))
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate(step, self._settings)
        means = torch.zeros(1 + len(self._engine.module.names), device=self._engine.device)
        for share in rows.reshape(self._accumulation, self._workers, self._micro_rows)[:, self._rank]:
            loss, sums = self._engine(**self._batch(share), step=step)
            # DeepSpeed averages over workers and micro-batches; the mean over the step's tokens needs their sum.
            self._engine.backward(loss * (self._workers * self._accumulation / tokens))
            means += torch.stack([loss.detach(), *sums.values()]).to(means) / tokens
            if self._engine.is_gradient_accumulation_boundary():
                norm = _plain_gradient_norm(self._engine)
            self._engine.step()
        if norm is None:
            norm = torch.as_tensor(self._engine.get_global_grad_norm(), device=means.device)
        self._untold.append(torch.cat([norm.to(means).reshape(1) / self._workers, means]))

    def figures(self, step: int) -> StepFigures:
        """Of the steps since the last call; `step` are done. Raises TrainingDiverged, on every worker alike."""
        sums = torch.stack(self._untold)
        distributed.all_reduce(sums)
        for number, (norm, loss, *_) in enumerate(sums.tolist(), step - len(sums) + 1):
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise TrainingDiverged(f"step {number}: loss {loss}, gradient norm {norm}; try a lower learning_rate")
        loss, *terms = sums[:, 1:].mean(dim=0).tolist()
        waited_s, self._waited_s = self._waited_s, 0.0
        self._untold.clear()
        return StepFigures(
            loss=loss,
            terms=dict(zip(self._engine.module.names, terms, strict=True)),
            learning_rate=learning_rate(step - 1, self._settings),
            gradient_norm=float(sums[-1, 0]),
            waited_s=waited_s,
            peak_memory_bytes=peak_memory_bytes(self._engine.device),
        )

    def _batch(self, rows: npt.NDArray[np.int64]) -> dict[str, Any]:
        began = time.perf_counter()
        batch: dict[str, Any] = {
            name: self._tensor(getattr(self._rows, name)[rows].astype(np.int64))
            for name in ("input_ids", "position_ids", "labels")
        }
        ids, weights = self._rows.teacher_ids, self._rows.teacher_weights
        if self._settings.objective.teacher == "stored":
            assert ids is not None and weights is not None, "TrainingJob.check lets no such rows through"
            batch["stored"] = (self._tensor(ids[rows]), self._tensor(weights[rows]))
        self._waited_s += time.perf_counter() - began
        return batch

    def _tensor(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._engine.device)


def _plain_gradient_norm(engine: Any) -> Tensor | None:
    """Of the gradients as they lie in the model; None where DeepSpeed holds them elsewhere and tells their norm.

    Valid at the end of a step's last micro-batch, after the reduction over workers.
    """
    if engine.zero_optimization() or engine.bfloat16_enabled():
        return None
    return nn.utils.get_total_norm(p.grad for p in engine.module.parameters() if p.grad is not None)


def _in_bfloat16() -> bool:
    """Whether this worker computes on a GPU: DeepSpeed does what the environment of the run's processes says."""
    from deepspeed.accelerator import get_accelerator  # here, because at import it probes for a GPU

    return get_accelerator().device_name() != "cpu"


def make_engine(module: nn.Module, settings: LoopSettings, workers: int, *, universal: bool = False) -> Any:
    """A DeepSpeed engine around `module`; `universal`: it reads checkpoints of another number of workers."""
    import deepspeed  # here, because at import it probes for a GPU, which the driver may lack

    # Without this DeepSpeed compiles a C++ kernel for shared-memory reductions (minutes, and needs a compiler);
    # an entry set by hand also spares the probing of every other kernel, all unused here.
    vars(deepspeed.ops).setdefault("__compatible_ops__", {})["deepspeed_shm_comm"] = False
    micro_rows, accumulation = settings.micro_batches(workers)
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=settings.weight_decay
    )
    config = {
        "train_micro_batch_size_per_gpu": micro_rows,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": settings.clip,
        "zero_optimization": {"stage": settings.zero_stage},
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": _in_bfloat16()},
        "steps_per_print": settings.steps + 1,
        "checkpoint": {"load_universal": universal},
    }
    with exact_buffers(module):
        return deepspeed.initialize(model=module, optimizer=optimizer, config=config)[0]
