"""How the two endpoints write the same things: the text of a choice, and its tokens' log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from common.types import TokenLogprob
from serve.http.choices import TextToken
from serve.http.text import TextCodec

Json = dict[str, Any]

MIN_LOGPROB = -9999.0
"""Told for anything below, as OpenAI and vLLM do: JSON has no infinity."""


class AnswerFormat(Protocol):
    """One endpoint's way of writing a choice."""

    id_prefix: str
    kind: str
    """The `object` field of a whole answer."""
    chunk_kind: str
    """The `object` field of a streamed chunk."""

    def whole(self, text: str) -> Json:
        """A whole text."""

    def opening(self) -> Json | None:
        """What a stream of a text begins with, if anything."""

    def delta(self, text: str) -> Json:
        """A piece of a text."""

    def end(self) -> Json:
        """No more text."""

    def logprobs(self, tokens: Sequence[TextToken]) -> Json: ...


class ChatFormat:
    """`/v1/chat/completions`."""

    id_prefix = "chatcmpl"
    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def __init__(self, codec: TextCodec) -> None:
        self._codec = codec

    def whole(self, text: str) -> Json:
        return {"message": {"role": "assistant", "content": text}}

    def opening(self) -> Json | None:
        return {"delta": {"role": "assistant", "content": ""}}

    def delta(self, text: str) -> Json:
        return {"delta": {"content": text}}

    def end(self) -> Json:
        return {"delta": {}}

    def logprobs(self, tokens: Sequence[TextToken]) -> Json:
        # A chat is never echoed, so all of them follow something.
        return {"content": [self._entry(token.logprob) for token in tokens if token.logprob], "refusal": None}

    def _entry(self, token: TokenLogprob) -> Json:
        top = [self._token(alternative, logprob) for alternative, logprob in token.top]
        return self._token(token.token, token.logprob) | {"top_logprobs": top}

    def _token(self, token: int, logprob: float) -> Json:
        spelling = self._codec.bytes_of(token)
        return {
            "token": self._codec.name(token),
            "logprob": max(logprob, MIN_LOGPROB),
            "bytes": None if spelling is None else list(spelling),
        }


class CompletionFormat:
    """`/v1/completions`."""

    id_prefix = "cmpl"
    kind = chunk_kind = "text_completion"

    def __init__(self, codec: TextCodec) -> None:
        self._codec = codec

    def whole(self, text: str) -> Json:
        return {"text": text}

    def opening(self) -> Json | None:
        return None

    def delta(self, text: str) -> Json:
        return {"text": text}

    def end(self) -> Json:
        return {"text": ""}

    def logprobs(self, tokens: Sequence[TextToken]) -> Json:
        return {
            "tokens": [self._codec.name(token.token) for token in tokens],
            "token_logprobs": [token.logprob and max(token.logprob.logprob, MIN_LOGPROB) for token in tokens],
            "top_logprobs": [token.logprob and self._top(token.logprob) for token in tokens],
            "text_offset": [token.offset for token in tokens],
        }

    def _top(self, token: TokenLogprob) -> dict[str, float]:
        """The likeliest tokens, and the text's own in any case."""
        told = (*token.top, (token.token, token.logprob))
        return {self._codec.name(alternative): max(logprob, MIN_LOGPROB) for alternative, logprob in told}
