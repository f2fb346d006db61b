"""How a benchmark tells its result: a table on standard error, JSON as the last line of standard output."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from train.provenance import provenance


def report(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], figures: dict[str, Any]) -> None:
    """`figures` gain a `provenance` entry."""
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    # A log is wider than the 80 columns that rich assumes of it.
    Console(stderr=True, width=None if sys.stderr.isatty() else 160).print(table)
    sys.stdout.write(msgspec.json.encode(figures | {"provenance": provenance()}).decode() + "\n")
    sys.stdout.flush()
