"""Types of the fields in OpenAI's requests, each with its check."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    JsonValue,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from common.languages import language_name
from common.types import MAX_LOGIT_BIAS

MAX_STOP_STRINGS = 4
MAX_STOP_LENGTH = 256
MAX_STOP_TOKENS = 1024
MAX_DRAFT_LENGTH = 64


class Strict(BaseModel):
    """An object whose fields are all known and of their type; `null` means absent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {name: value for name, value in data.items() if value is not None}


class Only:
    """Accepts the values that ask for nothing, and says so in the OpenAPI description."""

    def __init__(self, *neutral: object) -> None:
        self._neutral = neutral

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(kind))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(schema) | {"enum": list(self._neutral)}

    def _check(self, value: object) -> object:
        if value not in self._neutral:
            raise ValueError(f"not supported yet: only {' or '.join(map(json.dumps, self._neutral))} is accepted")
        return value


def _known_language(code: str) -> str:
    language_name(code)
    return code


def _encodable(text: str) -> str:
    """JSON can write half a surrogate pair, which is no text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"not valid Unicode at character {error.start}") from None
    return text


def _stop_strings(stop: object) -> tuple[object, ...]:
    strings = (stop,) if isinstance(stop, str) else stop
    if not isinstance(strings, list | tuple):
        raise ValueError("expected a string or a list of strings")
    if len(strings) > MAX_STOP_STRINGS:
        raise ValueError(f"at most {MAX_STOP_STRINGS} stop strings are accepted, not {len(strings)}")
    return tuple(strings)


Text = Annotated[str, AfterValidator(_encodable)]
Language = Annotated[str, AfterValidator(_known_language)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH), AfterValidator(_encodable)]
StopStrings = Annotated[
    tuple[StopString, ...], BeforeValidator(_stop_strings, json_schema_input_type=StopString | list[StopString])
]
StopTokens = Annotated[list[TokenId], Field(max_length=MAX_STOP_TOKENS)]
# JSON writes every key of an object as a string.
LogitBias = Annotated[
    dict[Annotated[TokenId, Field(strict=False)], Annotated[float, Field(ge=-100, le=100)]],
    Field(max_length=MAX_LOGIT_BIAS),
]


class Speculation(Strict):
    """How a text may be drafted. The text does not depend on it."""

    drafter: str | None = None
    """Name of a drafter, by default the one that fits the language."""
    max_draft_length: Annotated[int, Field(ge=0, le=MAX_DRAFT_LENGTH)] | None = None
    """Most tokens drafted a round: 0 decodes plainly; by default the server chooses."""

    @property
    def off(self) -> bool:
        return self.max_draft_length == 0


def _speculation(value: object) -> object:
    """The object that a short form stands for."""
    match value:
        case "auto":
            return {}
        case "off":
            return {"max_draft_length": 0}
        case str():
            return {"drafter": value}
        case bool() | float() | list():
            raise ValueError("expected `auto`, `off`, a drafter's name, a number of tokens, or an object with both")
        case int():
            return {"max_draft_length": value}
    return value


SpeculationField = Annotated[
    Speculation, BeforeValidator(_speculation, json_schema_input_type=str | int | dict[str, JsonValue])
]


Prompt: TypeAlias = (
    Text
    | Annotated[list[TokenId], Field(min_length=1)]
    | Annotated[list[Text], Field(min_length=1)]
    | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1)]
)


def prompts_of(prompt: Prompt) -> list[str | list[int]]:
    """Each as it was sent."""
    if isinstance(prompt, str):
        return [prompt]
    tokens = [token for token in prompt if isinstance(token, int)]
    return [tokens] if tokens else [each for each in prompt if not isinstance(each, int)]
