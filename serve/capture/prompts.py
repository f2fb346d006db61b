"""What is kept of a request: its prompts as the model reads them, redacted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from serve.capture.redaction import Redactor
from serve.http.generation_requests import Body
from serve.http.openai import ChatCompletionRequest
from serve.http.text import TextCodec

MAX_CHARACTERS = 32_768
"""Longer prompts are not kept, which bounds the time of redaction."""


class KeptPrompt(NamedTuple):
    """See `ServedPrompt`."""

    prompt: str
    rendered: bool = False
    messages: tuple[str, ...] = ()


class PromptReader:
    def __init__(self, codec: TextCodec, redactor: Redactor) -> None:
        self._codec = codec
        self._redactor = redactor

    def read(self, body: Body) -> list[KeptPrompt | None]:
        """Each prompt; None for one that is not to be kept: too long, or not to be redacted."""
        if isinstance(body, ChatCompletionRequest):
            return [_if_possible(partial(self._conversation, **body.conversation))]
        return [_if_possible(partial(self._prompt, prompt)) for prompt in body.prompts]

    def _prompt(self, prompt: str | list[int]) -> KeptPrompt:
        if isinstance(prompt, str):
            return KeptPrompt(self._redact(prompt))
        return KeptPrompt(self._redact(self._codec.decode(prompt, special_tokens=True)), rendered=True)

    def _conversation(
        self, messages: list[dict[str, str]], variables: Mapping[str, Any], **rendering: bool
    ) -> KeptPrompt:
        """Redacted before it is rendered: a URL that ends a message must not take the message's end with it."""
        told = [message | self._redacted(message, "content", "name") for message in messages]
        given = {**variables, **self._redacted(variables, *variables)}
        text = _short(self._codec.conversation(told, variables=given, **rendering))
        return KeptPrompt(text, rendered=True, messages=tuple(message["content"] for message in told))

    def _redacted(self, texts: Mapping[str, Any], *names: str) -> dict[str, str]:
        """Of these names, what is to be written otherwise: a number may be one of a card, too."""
        found = {name: self._redact(str(texts[name])) for name in names if name in texts}
        return {name: text for name, text in found.items() if text != str(texts[name])}

    def _redact(self, text: str) -> str:
        return self._redactor.redact(_short(text))


def _if_possible(read: Callable[[], KeptPrompt]) -> KeptPrompt | None:
    """Not if it is too long or cannot be redacted, nor if the chat template refuses what is left."""
    try:
        return read()
    except ValueError:
        return None


def _short(text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{len(text)} characters")
    return text
