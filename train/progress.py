"""The progress log of a training run: one JSON object a line, beside the model that it makes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from train.lines import read_lines, write_lines

TAIL = 16384
"""Bytes read from the end of a log to find its last whole line; a line is far shorter."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    step: int
    """Steps done."""
    steps: int
    loss: float
    """Nats per token with a loss, mean over the steps since the line before."""
    terms: dict[str, float] = {}
    """The objective's terms, unweighted, likewise; `acceptance`, where its teacher runs along, is the expected share of
    drafted tokens that are accepted."""
    acceptance: float | None = None
    """Mean acceptance length at temperature 0 of the newest checkpoint that has been judged; once the run has ended,
    of the one that became the model. None: none has."""
    tokens_per_second: float
    """All tokens of the rows, padding included, over all workers; since the line before."""
    mfu: float | None = None
    """Share of the processors' peak that the model's operations take; None unless `peak_tflops` is stated."""
    data_wait_share: float = 0.0
    """Of the time since the line before: what worker 0 waited for rows."""
    padding_share: float = 0.0
    """Of all positions of the rows."""
    learning_rate: float
    gradient_norm: float
    """Before clipping, at the last step."""
    peak_memory_bytes: int = 0
    """The most that worker 0 has held."""
    elapsed_s: float
    """Since this process began its loop; starts again at a resume."""

    def figures(self) -> dict[str, float]:
        """Every number that changes from line to line, by name, for trackers."""
        plain = {name: getattr(self, name) for name in self.__struct_fields__ if name not in ("step", "steps", "terms")}
        terms = {f"terms/{name}": value for name, value in self.terms.items()}
        return {name: value for name, value in (plain | terms).items() if value is not None}


class StepFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What the loop knows of the steps since the line before."""

    loss: float
    terms: dict[str, float] = {}
    learning_rate: float
    gradient_norm: float
    waited_s: float = 0.0
    """For rows."""
    peak_memory_bytes: int = 0


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

    def __init__(
        self, output: str, steps: int, tokens_per_step: int, resumed_step: int, peak_tokens: float | None = None
    ) -> None:
        """`peak_tokens`: a second, if the processors did all that they can; None: not known."""
        self._path, self._steps = log_path(output), steps
        self._tokens_per_step, self._peak_tokens = tokens_per_step, peak_tokens
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._keep_until(resumed_step)
        self._step = resumed_step
        self._start = self._last = time.monotonic()

    def write(
        self, step: int, figures: StepFigures, *, padding_share: float = 0.0, acceptance: float | None = None
    ) -> Progress:
        now = time.monotonic()
        seconds = max(now - self._last, 1e-9)
        rate = (step - self._step) * self._tokens_per_step / seconds
        progress = Progress(
            step=step,
            steps=self._steps,
            loss=figures.loss,
            terms=figures.terms,
            acceptance=acceptance,
            tokens_per_second=rate,
            mfu=rate / self._peak_tokens if self._peak_tokens else None,
            data_wait_share=figures.waited_s / seconds,
            padding_share=padding_share,
            learning_rate=figures.learning_rate,
            gradient_norm=figures.gradient_norm,
            peak_memory_bytes=figures.peak_memory_bytes,
            elapsed_s=now - self._start,
        )
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(progress) + b"\n")
        self._step, self._last = step, now
        return progress

    def _keep_until(self, step: int) -> None:
        lines = read_lines(self._path) if step else []
        write_lines(self._path, [line for line in lines if msgspec.json.decode(line, type=Progress).step <= step])
