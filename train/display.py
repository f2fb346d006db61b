"""What a run shows while it works, on standard error: a live table on a terminal, single lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType

import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table

from train.progress import Progress

COLUMNS = ("language", "stage", "step", "tokens/s", "loss", "acceptance", "time left")
LINE_EVERY_S = 5.0
"""Least time between two lines of one language in a log; the end of a stage is always told."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Where a stage is."""

    done: int = 0
    total: int | None = None
    tokens_per_second: float | None = None
    loss: float | None = None
    acceptance: float | None = None
    """Mean acceptance length at temperature 0."""
    remaining_s: float | None = None

    def cells(self) -> tuple[str, ...]:
        """In the order of COLUMNS, after the first two."""
        numbers = ((self.tokens_per_second, ",.0f"), (self.loss, ".3f"), (self.acceptance, ".2f"))
        shown = ["" if value is None else format(value, form) for value, form in numbers]
        left = "" if self.remaining_s is None else str(timedelta(seconds=round(self.remaining_s)))
        return (f"{self.done}/{self.total}" if self.total else "", *shown, left)


class Display:
    """A context manager; only inside of it does the table live. Rows are of a language and a stage."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or Console(stderr=True)
        self._clock = clock
        self._rows: dict[tuple[str, str], Row] = {}
        self._first: dict[tuple[str, str], tuple[float, int]] = {}
        """When a row was first told how far it is, and how far."""
        self._told: dict[str, float] = {}
        self._live = (
            Live(console=self._console, get_renderable=self._table, refresh_per_second=2)
            if self._console.is_terminal
            else None
        )

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def begin(self, language: str, stage: str) -> None:
        self._rows[language, stage] = Row()

    def update(self, language: str, stage: str, done: int, total: int) -> None:
        self._set(
            language, stage, Row(done=done, total=total, remaining_s=self._remaining(language, stage, done, total))
        )

    def train(self, language: str, stage: str, progress: Progress) -> None:
        row = Row(
            done=progress.step,
            total=progress.steps,
            tokens_per_second=progress.tokens_per_second,
            loss=progress.loss,
            acceptance=progress.acceptance,
            remaining_s=self._remaining(language, stage, progress.step, progress.steps),
        )
        self._set(language, stage, row)

    def end(self, language: str, stage: str, note: str = "done") -> None:
        self._rows.pop((language, stage), None)
        self._first.pop((language, stage), None)
        self.say(f"{language} {stage}: {note}")

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _set(self, language: str, stage: str, row: Row) -> None:
        self._rows[language, stage] = row
        now = self._clock()
        if self._live is None and now - self._told.get(language, -LINE_EVERY_S) >= LINE_EVERY_S:
            self._told[language] = now
            figures = zip(("", *COLUMNS[3:]), row.cells(), strict=True)
            self.say(f"{language} {stage}: " + ", ".join(f"{name} {cell}".strip() for name, cell in figures if cell))

    def _remaining(self, language: str, stage: str, done: int, total: int) -> float | None:
        """By the pace since the first update, which a resumed stage begins in its midst."""
        now = self._clock()
        since, first = self._first.setdefault((language, stage), (now, done))
        return (total - done) * (now - since) / (done - first) if done > first else None

    def _table(self) -> Table:
        table = Table(*COLUMNS)
        for (language, stage), row in sorted(self._rows.items()):
            table.add_row(language, stage, *row.cells())
        return table
