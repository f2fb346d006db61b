"""Requests in OpenAI's form: what is asked for, checked once.

A field of OpenAI's that is not supported is accepted at the value that asks for nothing; at any other value, and for
a field that OpenAI does not have, the request is refused by name: nothing is silently ignored. `null` means absent.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from common.languages import language_name

MAX_STOP_STRINGS = 4
MAX_STOP_LENGTH = 256


def _only(neutral: object) -> AfterValidator:
    def check(value: object) -> object:
        if value != neutral:
            raise ValueError(f"not supported yet: only {json.dumps(neutral)} is accepted")
        return value

    return AfterValidator(check)


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
StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH), AfterValidator(_encodable)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {name: value for name, value in data.items() if value is not None}


class StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: Annotated[bool, _only(False)] = False


class _Generation(_Strict):
    """What both kinds of requests have in common."""

    model: str
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    """0 keeps all tokens."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[tuple[StopString, ...], BeforeValidator(_stop_strings, json_schema_input_type=str | list[str])] = ()
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None

    language: Annotated[str, AfterValidator(_known_language)] | None = None
    """ISO 639-1 code of the language whose drafter helps; by default it is identified from the text."""
    speculation: Literal["auto", "off"] = "auto"
    """`off` decodes plainly; the text is the same."""

    n: Annotated[int, _only(1)] = 1
    presence_penalty: Annotated[float, _only(0)] = 0
    frequency_penalty: Annotated[float, _only(0)] = 0
    logit_bias: Annotated[dict[str, float], _only({})] = {}

    @field_validator("stream_options")
    @classmethod
    def _needs_a_stream(cls, options: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if not info.data.get("stream"):
            raise ValueError("only accepted together with stream: true")
        return options

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionRequest(_Generation):
    """`POST /v1/completions`."""

    prompt: Text | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    """Text or token ids."""
    logprobs: Annotated[int, _only(None)] | None = None
    best_of: Annotated[int, _only(1)] = 1
    echo: Annotated[bool, _only(False)] = False
    suffix: Annotated[str, _only("")] = ""


class TextPart(_Strict):
    type: Literal["text"]
    text: Text


class Message(_Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]
    name: str | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content)

    @property
    def for_template(self) -> dict[str, str]:
        """Chat templates know the developer's role by its older name."""
        return {"role": "system" if self.role == "developer" else self.role, "content": self.text}


class ChatCompletionRequest(_Generation):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: Annotated[bool, _only(False)] = False
    top_logprobs: Annotated[int, _only(0)] = 0
    tools: Annotated[list[Any], _only([])] = []
    tool_choice: Literal["none", "auto"] = "auto"
    parallel_tool_calls: bool = True
    functions: Annotated[list[Any], _only([])] = []
    response_format: Annotated[dict[str, Any], _only({"type": "text"})] = {"type": "text"}
    store: Annotated[bool, _only(False)] = False

    @field_validator("max_completion_tokens")
    @classmethod
    def _one_limit(cls, limit: int | None, info: ValidationInfo) -> int | None:
        if info.data.get("max_tokens") not in (None, limit):
            raise ValueError("contradicts max_tokens, its older name")
        return limit

    @property
    def limit(self) -> int | None:
        """Most output tokens, None for as many as the context holds."""
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens

    @property
    def question(self) -> str:
        """The last message of the user, which tells the language of the conversation."""
        texts = [message.text for message in self.messages if message.role == "user"]
        return texts[-1] if texts else ""
