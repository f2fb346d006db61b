"""What a run shows while it works: a bar per language, stage after stage, on standard error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Bars:
    """The bars of one stage."""

    def __init__(self, progress: Progress, languages: list[str], stage: str) -> None:
        self._progress = progress
        self._tasks = {lang: progress.add_task(f"{stage:9} {lang:7}", total=None, note="") for lang in languages}

    def update(self, language: str, done: int, total: int, note: str = "") -> None:
        self._progress.update(self._tasks[language], completed=done, total=total, note=note)


class Display:
    """Live bars on a terminal; elsewhere one line per language when its stage ends."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)

    @contextmanager
    def stage(self, name: str, languages: list[str]) -> Iterator[Bars]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console, refresh_per_second=4) as progress:
            yield Bars(progress, languages, name)

    def say(self, text: str) -> None:
        self.console.print(text)
