"""Tensor parallelism: a model in several processes, its ranks, each with a part of every layer, key and value.

    rank 0     engine ▶ ModelRunner ── spans ──▶ its part of the forward pass ──▶ logits
                                        │               ║ sums within each layer
    rank 1 …   a loop:                  └──────▶ its part of the forward pass

Rank 0 has the engine: it alone knows texts, lends blocks and draws tokens. The others are told, before each pass, the
spans that it runs, pack them as rank 0 does and run their parts beside their own keys and values. What is told are
integers, so nothing that a rank receives can be more than numbers to it.

Both go through `torch.distributed`: what is told over TCP (gloo), the sums too on CPUs, over NCCL on GPUs. Waiting for
the next pass has no deadline, since a server may be idle for as long as it likes: a rank whose process is gone breaks
its connections, which ends the others' waiting; what hangs must be ended by whoever started it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public, though not declared so
from transformers import PreTrainedModel

from common.engine.batch import Span
from common.engine.cache import BlockPool
from common.engine.compatibility import check_ranks
from common.engine.forward_pass import ForwardPass
from common.models import load_config, load_model

_MEETING = timedelta(minutes=10)
"""For the ranks to come together; they are started at the same time, and load their parts only then."""
_NO_DEADLINE = timedelta(days=365)


class RankLost(ConnectionError):
    """Another rank of the model is gone, and with it the model."""


def invite(host: str) -> TCPStore:
    """Where the ranks find each other: listens at `host`, on a port of its own choice. For rank 0."""
    return TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=_MEETING)


def reach(host: str, port: int) -> TCPStore:
    """The same, at rank 0's host and port. For the other ranks. Raises RankLost."""
    with _others("before it was reached"):
        return TCPStore(host, port, is_master=False, timeout=_MEETING)


def join(store: TCPStore, *, rank: int, ranks: int, gpu: bool) -> None:
    """Wait until all have come together; a process does this once. Raises RankLost."""
    backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
    with _others("before all had come together"):
        dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=_MEETING)
    # The same time limit holds for meeting and for what comes after, and nothing public changes it in between.
    dist.distributed_c10d._set_pg_timeout(_NO_DEADLINE)


def load_part(folder: str | Path, *, ranks: int, dtype: str) -> PreTrainedModel:
    """This rank's part of the model in `folder`, on the process's only GPU, or on the CPU.

    Raises ModelError if the model cannot be loaded, or not be divided among so many.
    """
    check_ranks(load_config(folder), ranks)
    return load_model(folder, dtype=dtype, ranks=ranks)


def tell(spans: Sequence[Span]) -> None:
    """What the coming pass runs: rank 0's word to those who `follow`; no spans, and they stop. Raises RankLost."""
    message = torch.tensor(_encode(spans))
    with _others("between two passes"):
        dist.broadcast(torch.tensor([len(message)]), src=0)
        dist.broadcast(message, src=0)


def follow(model: PreTrainedModel, *, kv_tokens: int) -> None:
    """Run this rank's part of all that rank 0 runs; returns when it is told of no spans.

    Raises RankLost; of a loss in the midst of a pass PyTorch's RuntimeError.
    """
    forward_pass = ForwardPass(model, num_blocks=BlockPool(kv_tokens).num_blocks)
    while spans := _heard():
        forward_pass.run(spans)


def _heard() -> list[Span]:
    length = torch.zeros(1, dtype=torch.int64)
    with _others("between two passes"):
        dist.broadcast(length, src=0)
        message = torch.zeros(int(length), dtype=torch.int64)
        dist.broadcast(message, src=0)
    return _decode(message.tolist())


def _encode(spans: Sequence[Span]) -> list[int]:
    """How many spans; of each start, wanted, and how many tokens and blocks; then of each its tokens, its blocks."""
    numbers = [len(spans)]
    for span in spans:
        numbers += (span.start, span.wanted, len(span.tokens), len(span.blocks))
    for span in spans:
        numbers += span.tokens
        numbers += span.blocks
    return numbers


def _decode(message: Sequence[int]) -> list[Span]:
    numbers = iter(message)
    count = next(numbers)
    heads = [list(islice(numbers, 4)) for _ in range(count)]
    return [
        Span(start, list(islice(numbers, width)), wanted, list(islice(numbers, num_blocks)))
        for start, wanted, width, num_blocks in heads
    ]


@contextmanager
def _others(when: str) -> Generator[None]:
    """`torch.distributed` tells the loss of a rank as a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        raise RankLost(f"a rank of the model was lost {when}: {error}") from error
