"""Checkpoints of a DeepSpeed engine in Ray Train's storage: every worker saves its part, Ray merges them."""

from __future__ import annotations

import tempfile
from typing import Any

import ray.train
import torch.distributed


def report(engine: Any, step: int) -> None:
    """Checkpoint the state after `step` optimizer steps. Every worker must call this at the same step."""
    with tempfile.TemporaryDirectory() as folder:
        engine.save_checkpoint(folder, client_state={"step": step})
        ray.train.report({"step": step}, checkpoint=ray.train.Checkpoint.from_directory(folder))


def resume(engine: Any) -> int:
    """Load this run's newest checkpoint, if it has one. Returns the optimizer steps that are done."""
    found = ray.train.get_checkpoint()
    if found is None:
        return 0
    with found.as_directory() as folder:
        path, state = engine.load_checkpoint(folder)
        # The folder may be one local copy for several workers; it goes when the first of them leaves this block.
        torch.distributed.barrier()
    assert path is not None, f"Ray Train gave a checkpoint that DeepSpeed did not write: {found}"
    return int(state["step"])
