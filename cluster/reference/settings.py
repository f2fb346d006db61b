"""The configuration reference, read off the settings types: each key, what it may be, its default, its docstring."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from itertools import pairwise
from textwrap import dedent
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
import yaml

from cluster.reference.tables import anchor, either, one_line, table
from common.settings import Settings

INTRODUCTION = """# Settings

Made by `polydraft reference settings` from the types that configurations are read into. A section that stands in
several places is described at the first. How a file is found, and what overrides what:
[configuration](../configuration.md).
"""

PLAIN = {int: "whole number", float: "number", str: "text", bool: "`true` or `false`", NoneType: "`null`", Any: "value"}

Places = dict[type[Settings], list[str]]
"""Every kind of section, and all places where a configuration has one, such as ``train.pretrain``."""


def settings_page(root: type[Settings]) -> str:
    """Markdown: a table for `root` and for each kind of section in it."""
    places = places_of(root)
    return INTRODUCTION + "".join(_section(kind, found, places) for kind, found in places.items())


def descriptions(kind: type[Settings]) -> dict[str, str]:
    """The docstrings below the fields of a section, each on one line."""
    [definition] = ast.parse(dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, below in pairwise(definition.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = _for_files(one_line(text))
    return found


def places_of(root: type[Settings]) -> Places:
    """In the order of a file that has them all; `root` stands at no name."""
    places: Places = {}
    _find(root, "", places)
    return places


def _find(kind: type[Settings], place: str, places: Places) -> None:
    """`kind` stands at `place`, and what it has below that."""
    places.setdefault(kind, []).append(place)
    for field in msgspec.structs.fields(kind):
        for section, suffix in sections(field.type):
            _find(section, f"{place}.{field.name}{suffix}".lstrip("."), places)


def sections(annotation: Any) -> Iterator[tuple[type[Settings], str]]:
    """Kinds of sections that a value may have, and how their keys follow the value's own."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation, ""
    suffix = {tuple: "[]", list: "[]", dict: ".NAME"}.get(get_origin(annotation), "")
    for argument in get_args(annotation):
        yield from ((section, suffix + below) for section, below in sections(argument))


def _section(kind: type[Settings], found: list[str], places: Places) -> str:
    described = descriptions(kind)
    title, *others = found
    same = f"The same: {', '.join(f'`{place}`' for place in others)}.\n\n" if others else ""
    rows = [_row(field, described.get(field.name, ""), places) for field in msgspec.structs.fields(kind)]
    heading = f"`{title}`" if title else "The file"
    about = _for_files(inspect.cleandoc(kind.__doc__ or ""))
    return f"\n## {heading}\n\n{about}\n\n{same}{table('setting', rows)}"


def _row(field: msgspec.structs.FieldInfo, description: str, places: Places) -> tuple[str, ...]:
    return f"`{field.name}`", _words(field.type, places), _default(field), description


def _words(annotation: Any, places: Places) -> str:
    """What a value may be, in words."""
    arguments = get_args(annotation)
    match get_origin(annotation):
        case origin if origin is Union or origin is UnionType:
            return either([_words(argument, places) for argument in arguments])
        case origin if origin is Literal:
            return either([_code(argument) for argument in arguments])
        case origin if origin in (tuple, list):
            return f"list of: {_words(arguments[0], places)}"
        case origin if origin is dict:
            names = "name" if arguments[0] is str else _words(arguments[0], places)
            return f"by {names}: {_words(arguments[1], places)}"
    if annotation in PLAIN:
        return PLAIN[annotation]
    place = places[annotation][0]
    return f"[`{place}`](#{anchor(place)})"


def _for_files(text: str) -> str:
    """What a docstring says, to those who write YAML: they have `null`, and no exceptions."""
    return re.sub(r"\bNone\b", "`null`", re.sub(r"\s*Raises ValueError[^.]*\.", "", text))


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    factory = field.default_factory
    value = field.default if factory is msgspec.NODEFAULT else factory()
    if not isinstance(value, Settings):
        return _code(msgspec.to_builtins(value))
    return _code(value.changed()) if value.changed() else ""


def _code(value: Any) -> str:
    """As it is written in a file."""
    style = '"' if isinstance(value, str) and not value.isprintable() else None
    text = yaml.safe_dump(value, default_flow_style=True, default_style=style, sort_keys=False, width=1000)
    return "`" + text.removesuffix("...\n").strip() + "`"
