"""Small helpers that every grammar shares: reading a lexicon, finishing a sentence."""

from __future__ import annotations

NAMED = (*range(1, 13), 20, 21, 30, 32, 40, 45, 50, 100)
"""The numbers that sentences use."""


def table(text: str) -> dict[str, tuple[str, ...]]:
    """Read ``key: form form; key: form form`` (or an entry a line); ``_`` stands for a space in a form."""
    entries = [entry.partition(":") for entry in text.replace("\n", ";").split(";") if entry.strip()]
    return {key.strip(): tuple(form.replace("_", " ") for form in forms.split()) for key, _, forms in entries}


def words(text: str) -> dict[str, str]:
    """A `table` with one form a key."""
    return {key: forms[0] for key, forms in table(text).items()}


def numbers(text: str) -> dict[int, str]:
    """The names of the numbers `NAMED`, in this order."""
    return dict(zip(NAMED, (name.replace("_", " ") for name in text.split()), strict=True))


def join(*parts: str) -> str:
    """The parts that are not empty, with a space between."""
    return " ".join(part for part in parts if part)


def sentence(text: str, end: str) -> str:
    """`text` as a sentence: a capital first, `end` last."""
    return text[0].upper() + text[1:] + end
