"""Workers that are told to stop: by SIGTERM, by Ray when a machine is about to be taken away, or with the whole run."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import ray.train
import torch
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend
from torch import distributed

from train.stop_file import StopFile

TOLD = threading.Event()
"""Set in the process of a worker that got SIGTERM."""


class Preempted(RuntimeError):
    """The run stopped because a worker was told to; the message names the step of the checkpoint it left."""


class Order(IntEnum):
    """What workers are told; of several words the gravest counts, for all of them."""

    GO_ON = 0
    LEAVE = 1
    """A worker's process or machine will go; Ray Train goes on with others."""
    END = 2
    """The run is to end."""


class StopRequest:
    """What the workers of a run have been told. All must ask alike, and get the same answer.

    Args:
        asked: where the run may be asked to end; only worker 0 has it.
    """

    def __init__(self, workers: int, asked: StopFile | None) -> None:
        # Of its own and on the CPU, so that asking after every step does not make the processor wait for the GPU.
        self._group = distributed.new_group(backend="gloo") if workers > 1 else None
        self._asked = asked
        if asked is not None:
            asked.listen()

    def order(self, *, ask_ray: bool) -> Order:
        """`ask_ray`: Ray, too, which takes some milliseconds."""
        word = torch.tensor(self._own())
        if self._group is not None:
            distributed.all_reduce(word, op=distributed.ReduceOp.MAX, group=self._group)
        if ask_ray and word == Order.GO_ON and ray.train.get_preemption_info() is not None:
            return Order.LEAVE
        return Order(int(word))

    def _own(self) -> Order:
        if self._asked is not None and self._asked.asked():
            return Order.END
        return Order.LEAVE if TOLD.is_set() else Order.GO_ON


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
