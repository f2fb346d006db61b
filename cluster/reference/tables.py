"""What the reference pages have in common: a table, and alternatives in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

COLUMNS = ("value", "default", "")


def table(what: str, rows: Iterable[Sequence[str]]) -> str:
    """Markdown; `what` is in the first column."""
    return "".join(_line(cells) for cells in ((what, *COLUMNS), ("---",) * (1 + len(COLUMNS)), *rows))


def one_line(text: str) -> str:
    return " ".join(text.split())


def either(alternatives: Iterable[str]) -> str:
    """One of them, in words. Those that go on after a colon come last, and none is taken for a part of another."""
    told = sorted(dict.fromkeys(alternatives), key=lambda words: ": " in words)
    *first, last = told
    if sum(": " in words for words in told) > 1:
        return "; or ".join(told)
    return f"{', '.join(first)} or {last}" if first else last


def anchor(heading: str) -> str:
    """Of the heading, as GitHub and MkDocs make it."""
    dashed = heading.lower().replace(" ", "-")
    return "".join(character for character in dashed if character.isalnum() or character in "_-")


def _line(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return one_line(f"| {' | '.join(escaped)} |") + "\n"
