"""The training loop of one worker: DeepSpeed steps over packed rows, inside Ray Train.

Everything random or scheduled is a function of seed and step (rows, learning rate, dropout), so a checkpoint is
DeepSpeed's own (weights, optimizer) and a resumed run ends with the same weights, bit for bit.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import ray.train
import torch
from torch import Tensor, distributed, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from train import checkpoint
from train.export import export
from train.job import LoopSettings, TrainingJob
from train.objective import cross_entropy
from train.packing import PackedRows
from train.progress import Progress, ProgressLog
from train.sampler import RowSampler


class TrainingDiverged(ValueError):
    """The loss or the gradient is no longer a finite number; the message names the step."""


def train_loop(config: dict[str, Any]) -> None:
    """Train ``config["job"]`` (a TrainingJob as built-in types) on this worker.

    Raises TrainingDiverged on every worker at the same step; ValueError if the model has another kind of output
    layer than a plain projection.
    """
    job = msgspec.convert(config["job"], TrainingJob)
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    disable_progress_bar()
    module = PackedLanguageModel(load_model(job.init))
    engine = _engine(module, job.settings, workers)
    first = checkpoint.resume(engine)
    steps = _Steps(engine, job, rank, workers, first)
    for done in range(first + 1, job.settings.steps + 1):
        steps.take(done - 1)
        last = done == job.settings.steps
        save = not last and job.settings.checkpoint_every > 0 and done % job.settings.checkpoint_every == 0
        if last or save or done % job.settings.log_every == 0:
            steps.log(done)
        if save:
            checkpoint.report(engine, done)
    export(module.model, job, rank)


class PackedLanguageModel(nn.Module):
    """A causal language model that answers with its loss on packed rows."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, position_ids: Tensor, labels: Tensor) -> Tensor:
        """Sum of the losses over the labelled positions of [rows, row length] tokens; see PackedRows."""
        decoder = self.model.get_decoder()
        # Without a mask and a cache, the restarts in `position_ids` keep documents apart.
        output = decoder(input_ids=input_ids, position_ids=position_ids, attention_mask=None, use_cache=False)
        weight = self.model.get_output_embeddings().weight
        return cross_entropy(output.last_hidden_state, weight, labels)[0]


def learning_rate(step: int, settings: LoopSettings) -> float:
    """Linear warm-up, then a cosine down to 0; `step` counts from 0."""
    warmup = math.ceil(settings.warmup_share * settings.steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, settings.steps - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


class _Steps:
    """This worker's share of the optimizer steps, and what has to be logged about them."""

    def __init__(self, engine: Any, job: TrainingJob, rank: int, workers: int, resumed_step: int) -> None:
        settings = job.settings
        self._engine, self._settings, self._rank, self._workers = engine, settings, rank, workers
        self._rows = PackedRows.load(Path(job.data))
        self._sampler = RowSampler(len(self._rows.input_ids), settings.rows_per_step, settings.seed)
        self._micro_rows, self._accumulation = settings.micro_batches(workers)
        self._unlogged: list[Tensor] = []
        tokens = settings.rows_per_step * settings.row_length
        self._log = ProgressLog(job.output, settings.steps, tokens, resumed_step) if rank == 0 else None

    def take(self, step: int) -> None:
        """Do optimizer step `step` (from 0)."""
        rows = self._sampler.step(step)
        tokens = int(self._rows.loss_tokens[rows].sum())
        # Dropout is drawn anew from the step's own seed, so that a resumed run draws the same.
        seed = np.random.SeedSequence((self._settings.seed, step, self._rank)).generate_state(1, np.uint64)
        torch.manual_seed(int(seed[0]))
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate(step, self._settings)
        loss = torch.zeros((), device=self._engine.device)
        for share in rows.reshape(self._accumulation, self._workers, self._micro_rows)[:, self._rank]:
            part = self._engine(*self._batch(share)) / tokens
            # DeepSpeed averages over workers and micro-batches; the mean over the step's tokens needs their sum.
            self._engine.backward(part * (self._workers * self._accumulation))
            loss += part.detach()
            norm = _plain_gradient_norm(self._engine)
            self._engine.step()
        if norm is None:
            norm = torch.as_tensor(self._engine.get_global_grad_norm(), device=loss.device)
        self._unlogged.append(torch.stack([loss, norm.to(loss) / self._workers]))

    def log(self, step: int) -> Progress | None:
        """Log the steps since the last call; `step` are done. Raises TrainingDiverged, on every worker alike."""
        sums = torch.stack(self._unlogged)
        distributed.all_reduce(sums)
        for number, (loss, norm) in enumerate(sums.tolist(), step - len(sums) + 1):
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise TrainingDiverged(f"step {number}: loss {loss}, gradient norm {norm}; try a lower learning_rate")
        self._unlogged.clear()
        if self._log is None:
            return None
        rate = learning_rate(step - 1, self._settings)
        return self._log.write(step, float(sums[:, 0].mean()), learning_rate=rate, gradient_norm=float(sums[-1, 1]))

    def _batch(self, rows: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        data = (self._rows.input_ids, self._rows.position_ids, self._rows.labels)
        input_ids, position_ids, labels = (
            torch.from_numpy(array[rows].astype(np.int64)).to(self._engine.device) for array in data
        )
        return input_ids, position_ids, labels


def _plain_gradient_norm(engine: Any) -> Tensor | None:
    """Of the gradients as they lie in the model; None where DeepSpeed holds them elsewhere and tells their norm.

    Valid at the end of a step's last micro-batch, after the reduction over workers.
    """
    if engine.zero_optimization() or engine.bfloat16_enabled():
        return None
    return nn.utils.get_total_norm(p.grad for p in engine.module.parameters() if p.grad is not None)


def load_model(folder: str) -> PreTrainedModel:
    """The causal language model in `folder`, in float32, ready to train.

    Raises ValueError naming the folder if its output layer is more than a projection.
    """
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa", use_safetensors=True, local_files_only=True
    )
    _check_output_layer(model.eval(), folder)
    model.train()
    return model


@torch.no_grad()
def _check_output_layer(model: PreTrainedModel, folder: str) -> None:
    """The loss takes logits = states x weight; some families scale or cap them, and would train on a wrong loss."""
    ids = torch.arange(2)[None]
    states = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    plain = states @ model.get_output_embeddings().weight.T
    if not torch.allclose(plain, model(input_ids=ids, use_cache=False).logits, rtol=1e-3, atol=1e-4):
        raise ValueError(f"{folder}: its output layer is more than a projection (bias, scaling or capping of logits)")


def _engine(module: nn.Module, settings: LoopSettings, workers: int) -> Any:
    import deepspeed  # here, because at import it probes for a GPU, which the driver may lack
    from deepspeed.accelerator import get_accelerator

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
        "bf16": {"enabled": get_accelerator().device_name() != "cpu"},
        "steps_per_print": settings.steps + 1,
    }
    return deepspeed.initialize(model=module, optimizer=optimizer, config=config)[0]
