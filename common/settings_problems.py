"""All that is wrong with a configuration, not only the first: that is taken out, and the rest looked at again."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import msgspec

Path = tuple[str | int, ...]
"""Names of sections and places in lists, from the outside in."""

_PART = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_NAMED_FIELD = re.compile(r"Object (contains unknown|missing required) field `(.+)`")


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong."""

    message: str
    """Names the setting, as in ``train.languages[0]``."""
    where: Path
    """The place to look: of a setting that is missing, the section that should have it."""


def problems(raw: Any, kind: type[msgspec.Struct]) -> Iterator[Problem]:
    """What keeps `raw` from being a `kind`. A mistake that only follows from others is not told."""
    raw, taken = copy.deepcopy(raw), set[Path]()
    while True:
        try:
            msgspec.convert(raw, kind)
            return
        except msgspec.ValidationError as error:
            message, _, place = str(error).rpartition(" - at ") if " - at " in str(error) else (str(error), "", "")
        head, is_in_mapping, tail = place.strip("`").removeprefix("$").partition("[...]")
        section = _parts(head)
        if is_in_mapping:
            entry = _entry(raw, kind, section, message)
            section = (*section, *entry, *(_parts(tail.partition("[...]")[0]) if entry else ()))
        problem, follows = _explain(raw, message, section, taken)
        if not follows:
            yield problem
        removed = _take_out(raw, problem.where)
        if not removed:
            return
        taken.add(removed)


def key_of(path: Path) -> str:
    """``("train", "languages", 0)`` as ``train.languages[0]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _explain(raw: Any, message: str, section: Path, taken: set[Path]) -> tuple[Problem, bool]:
    """msgspec's words as a problem in the user's, and whether it only follows from what was taken out."""
    named = _NAMED_FIELD.fullmatch(message)
    if named is not None:
        path = (*section, named[2])
        if named[1] == "missing required":
            return Problem(f"missing setting `{key_of(path)}`", section), path in taken
        return Problem(f"unknown setting `{key_of(path)}`", path), False
    told = f"setting `{key_of(section)}`: {message}" if section else message
    if message.startswith("Expected "):
        return Problem(told, section), False
    # One of our own checks, of the section as a whole: it names the settings that it is about.
    names = [tuple(word.split(".")) for word in re.findall(r"\w+(?:\.\w+)*", message)]
    named_here = next((name for name in names if _has(_value(raw, section), name)), ())
    about = [(*section, *name) for name in names]
    return Problem(told, (*section, *named_here)), any(one[: len(path)] == path for path in about for one in taken)


def _entry(raw: Any, kind: type[msgspec.Struct], mapping: Path, message: str) -> Path:
    """In which entry of a mapping it is, msgspec does not tell: the one that has it without the others too."""
    for name, value in _value(raw, mapping).items():
        alone = copy.deepcopy(raw)
        _value(alone, mapping[:-1])[mapping[-1]] = {name: value}
        try:
            msgspec.convert(alone, kind)
        except msgspec.ValidationError as error:
            if str(error).startswith(message):
                return (name,)
    return ()


def _has(section: Any, name: Path) -> bool:
    for part in name:
        if not isinstance(section, dict) or part not in section:
            return False
        section = section[part]
    return True


def _parts(place: str) -> Path:
    return tuple(int(index) if index else name for name, index in _PART.findall(place))


def _value(raw: Any, path: Path) -> Any:
    for part in path:
        raw = raw[part]
    return raw


def _take_out(raw: Any, path: Path) -> Path:
    """Remove a setting, a list as a whole; returns which one was removed: the empty path for none."""
    while path and isinstance(path[-1], int):
        path = path[:-1]
    if path:
        del _value(raw, path[:-1])[path[-1]]
    return path
