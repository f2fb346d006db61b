"""The reference of the HTTP interface's requests, read off the types that they are checked against."""

from __future__ import annotations

from itertools import chain
from typing import Any

import msgspec
from pydantic import BaseModel

from cluster.reference.tables import anchor, either, table
from serve.http.chat_messages import Message, TextPart
from serve.http.openai import (
    ChatCompletionRequest,
    CompletionRequest,
    GenerationFields,
    StreamOptions,
)
from serve.http.openai_fields import Speculation

INTRODUCTION = """# Requests

Made by `polydraft reference http` from the types that requests are checked against, as is the server's own
`/openapi.json`. What is not described means what it means to OpenAI or vLLM; `null` is as good as nothing. Answers and
examples: [the HTTP interface](../http.md).
"""
SECTIONS: dict[str, type[BaseModel]] = {
    "Of both endpoints": GenerationFields,
    "`POST /v1/chat/completions`": ChatCompletionRequest,
    "`POST /v1/completions`": CompletionRequest,
    "`messages[]`": Message,
    "`messages[].content[]`": TextPart,
    "`stream_options`": StreamOptions,
    "`speculation`": Speculation,
}
PLAIN = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true` or `false`"}
LARGE = 2**31 - 1
"""Bounds as large are not told."""

Schema = dict[str, Any]


def http_page() -> str:
    """Markdown: a table for each kind of object that a request is made of."""
    common = _fields(GenerationFields)
    tables = (_section(title, kind, {} if kind is GenerationFields else common) for title, kind in SECTIONS.items())
    return INTRODUCTION + "".join(tables)


def _fields(kind: type[BaseModel]) -> dict[str, Schema]:
    return kind.model_json_schema()["properties"]


def _section(title: str, kind: type[BaseModel], common: dict[str, Schema]) -> str:
    own = {name: field for name, field in _fields(kind).items() if common.get(name) != field}
    required = kind.model_json_schema().get("required", ())
    rows = [_row(name, field, required=name in required) for name, field in own.items() if not _neutral(field)]
    return f"\n## {title}\n\n{table('field', rows)}{_unsupported(own)}"


def _unsupported(fields: dict[str, Schema]) -> str:
    values = {name: either(map(_code, _neutral(field))) for name, field in fields.items() if _neutral(field)}
    told = ", ".join(f"`{name}` ({neutral})" for name, neutral in values.items())
    return f"\nNot supported, and accepted only at the value that asks for nothing: {told}.\n" if told else ""


def _row(name: str, field: Schema, *, required: bool) -> tuple[str, ...]:
    return f"`{name}`", _words(field), "required" if required else _default(field), field.get("description", "")


def _default(field: Schema) -> str:
    """An object has none where each of its fields has its own."""
    value = field.get("default")
    return "" if value is None or isinstance(value, dict) else _code(value)


def _neutral(field: Schema) -> list[Any]:
    """The values that ask for nothing, of a field that is not supported."""
    found = chain(*(alternative.get("enum", ()) for alternative in field.get("anyOf", [field])))
    return list(found) if "default" in field else []


def _words(schema: Schema) -> str:
    """What a value may be, in words."""
    match schema:
        case {"$ref": str(reference)}:
            return _link(reference.rpartition("/")[2])
        case {"const": value}:
            return _code(value)
        case {"enum": list(values)}:
            return either([_code(value) for value in values])
        case {"anyOf": list(alternatives)}:
            return either([_words(each) for each in alternatives if each != {"type": "null"}])
        case {"type": "array", "items": items}:
            return f"list of: {_words(items)}"
        case {"type": "object", "additionalProperties": dict(values)}:
            return f"by name: {_words(values)}"
        case {"type": str(kind)} if kind in PLAIN:
            return PLAIN[kind] + _bounds(schema)
    return "object" if schema.get("type") == "object" else "any value"


def _link(name: str) -> str:
    """To the table of a type."""
    titles = {kind.__name__: title for title, kind in SECTIONS.items()}
    title = titles.get(name)
    return "any value" if title is None else f"[{title}](#{anchor(title)})"


def _bounds(schema: Schema) -> str:
    names = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    told = [f"{word} {schema[name]:g}" for name, word in names.items() if abs(schema.get(name, LARGE)) < LARGE]
    return f" ({' '.join(told)})" if told else ""


def _code(value: Any) -> str:
    return f"`{msgspec.json.encode(value).decode()}`"
