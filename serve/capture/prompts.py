"""What is kept of a request: its prompts as the model reads them, redacted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from serve.capture.redaction import Redactor
from serve.http.generation_requests import Body
from serve.http.openai import ChatCompletionRequest
from serve.http.text import TextCodec

MAX_CHARACTERS = 32_768
"""Longer prompts are not kept, which bounds the time of redaction."""


class PromptReader:
    def __init__(self, codec: TextCodec, redactor: Redactor) -> None:
        self._codec = codec
        self._redactor = redactor

    def read(self, body: Body) -> list[str | None]:
        """Each prompt; None for one that is not to be kept: too long, or not to be redacted."""
        if isinstance(body, ChatCompletionRequest):
            return [_if_possible(partial(self._conversation, **body.conversation))]
        return [_if_possible(partial(self._prompt, prompt)) for prompt in body.prompts]

    def _prompt(self, prompt: str | list[int]) -> str:
        return self._redact(prompt if isinstance(prompt, str) else self._codec.decode(prompt))

    def _conversation(self, messages: list[dict[str, str]], variables: Mapping[str, Any], **rendering: bool) -> str:
        """Redacted before it is rendered: a URL that ends a message must not take the message's end with it."""
        told = [message | self._redacted(message, "content", "name") for message in messages]
        given = {**variables, **self._redacted(variables, *variables)}
        return _short(self._codec.conversation(told, variables=given, **rendering))

    def _redacted(self, texts: Mapping[str, Any], *names: str) -> dict[str, str]:
        return {name: self._redact(texts[name]) for name in names if isinstance(texts.get(name), str)}

    def _redact(self, text: str) -> str:
        return self._redactor.redact(_short(text))


def _if_possible(read: Callable[[], str]) -> str | None:
    """Not if it is too long or cannot be redacted, nor if the chat template refuses what is left."""
    try:
        return read()
    except ValueError:
        return None


def _short(text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{len(text)} characters")
    return text
