"""The training loop that one would write without polydraft, to compare ours with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from train.job import TrainingJob
from train.language_model import load_model
from train.loop import learning_rate
from train.packing import IGNORED
from train.rows import PackedRows
from train.sampler import RowSampler


class PlainLoop:
    """One process, no framework; on a GPU with automatic mixed precision."""

    def __init__(self, job: TrainingJob, rows: PackedRows, device: str = "cpu") -> None:
        settings = job.settings
        self._settings, self._rows = settings, rows
        self.model: nn.Module = load_model(job.init).train()
        self._device = device
        self.model.to(self._device)
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=settings.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=settings.weight_decay,
        )
        self._sampler = RowSampler(len(rows.input_ids), settings.rows_per_step, settings.seed)
        self.losses: list[float] = []
        """At the steps that end a line of the log."""

    def run(self, first: int, until: int) -> None:
        for step in range(first, until):
            loss = self._take(step)
            if (step + 1) % self._settings.log_every == 0 or step + 1 == until:
                self.losses.append(loss.item())

    def _take(self, step: int) -> Tensor:
        rows = self._sampler.step(step)
        tokens = int(self._rows.loss_tokens[rows].sum())
        total = torch.zeros((), device=self._device)
        for share in rows.reshape(-1, self._settings.micro_batches(1)[0]):
            loss = self._loss(share) / tokens
            loss.backward()
            total += loss.detach()
        nn.utils.clip_grad_norm_(self.model.parameters(), self._settings.clip)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(step, self._settings)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return total

    def _loss(self, rows: npt.NDArray[np.int64]) -> Tensor:
        input_ids, position_ids, labels = (
            torch.from_numpy(array[rows]).long().to(self._device)
            for array in (self._rows.input_ids, self._rows.position_ids, self._rows.labels)
        )
        with torch.autocast(self._device, torch.bfloat16, enabled=self._device == "cuda"):
            logits = self.model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits
            return cross_entropy(
                logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
            )
