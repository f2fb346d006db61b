"""A worker that is told to stop: by SIGTERM, or by Ray when its machine is about to be taken away."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass
from typing import Any

import ray.train
import torch
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend
from torch import distributed

TOLD = threading.Event()
"""Set in the process of a worker that got SIGTERM."""


class Preempted(RuntimeError):
    """The run stopped because a worker was told to; the message names the step of the checkpoint it left."""


class StopRequest:
    """Whether a worker has been told to stop. All workers must ask alike, and get the same answer."""

    def __init__(self, workers: int) -> None:
        # Of its own and on the CPU, so that asking after every step does not make the processor wait for the GPU.
        self._group = distributed.new_group(backend="gloo") if workers > 1 else None

    def signalled(self) -> bool:
        """By SIGTERM, to any worker."""
        told = torch.tensor(TOLD.is_set(), dtype=torch.int32)
        if self._group is not None:
            distributed.all_reduce(told, op=distributed.ReduceOp.MAX, group=self._group)
        return bool(told)

    def preempted(self) -> bool:
        """By Ray, which takes some milliseconds to ask."""
        return ray.train.get_preemption_info() is not None


@dataclass
class PreemptibleTorch(TorchConfig):
    """Ray Train's process group of torch, whose workers take SIGTERM as a request."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _PreemptibleBackend


class _PreemptibleBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        super().on_start(worker_group, backend_config)
        worker_group.execute(_listen)


def _listen() -> None:
    """Runs in a worker's main thread, where alone signals can be received; training runs in another."""
    signal.signal(signal.SIGTERM, lambda *_: TOLD.set())
