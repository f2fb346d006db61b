"""The progress log of a training run: one JSON object a line, beside the model that it makes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

TAIL = 4096
"""Bytes read from the end of a log to find its last whole line; a line is far shorter."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    step: int
    """Steps done."""
    steps: int
    loss: float
    """Nats per token with a loss, mean over the steps since the line before."""
    tokens_per_second: float
    """All tokens of the rows, padding included, over all workers; since the line before."""
    learning_rate: float
    gradient_norm: float
    """Before clipping, at the last step."""
    elapsed_s: float
    """Since this process began its loop; starts again at a resume."""


def log_path(output: str | Path) -> Path:
    """Where the run that makes the model folder `output` logs."""
    return Path(f"{output}.jsonl")


def read_progress(output: str | Path) -> Progress | None:
    """The newest line of the run that makes `output`; None while there is none."""
    try:
        with log_path(output).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = file.read().split(b"\n")[:-1]  # what follows the last newline is still being written
    except FileNotFoundError:
        return None
    return msgspec.json.decode(lines[-1], type=Progress) if lines else None


class ProgressLog:
    """Writes the log. Lines past the step that a run resumes from are cut off first: they are done again."""

    def __init__(self, output: str, steps: int, tokens_per_step: int, resumed_step: int) -> None:
        self._path, self._steps, self._tokens_per_step = log_path(output), steps, tokens_per_step
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._keep_until(resumed_step)
        self._step = resumed_step
        self._start = self._last = time.monotonic()

    def write(self, step: int, loss: float, *, learning_rate: float, gradient_norm: float) -> Progress:
        now = time.monotonic()
        tokens = (step - self._step) * self._tokens_per_step
        progress = Progress(
            step=step,
            steps=self._steps,
            loss=loss,
            tokens_per_second=tokens / max(now - self._last, 1e-9),
            learning_rate=learning_rate,
            gradient_norm=gradient_norm,
            elapsed_s=now - self._start,
        )
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(progress) + b"\n")
        self._step, self._last = step, now
        return progress

    def _keep_until(self, step: int) -> None:
        lines = self._path.read_bytes().splitlines() if step and self._path.exists() else []
        kept = [line for line in lines if msgspec.json.decode(line, type=Progress).step <= step]
        self._path.write_bytes(b"".join(line + b"\n" for line in kept))
