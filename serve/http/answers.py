"""Answers in OpenAI's form: whole ones and streamed chunks, with what speculation did beside them.

usage      completion_tokens_details.accepted_prediction_tokens and rejected_prediction_tokens
polydraft  language, drafter, rounds, mean_acceptance_length, seed; draft_ms, verify_ms, wire_ms: where the time went

Both are sums over the choices, each prompt counted once. A stream has `polydraft` on the last chunk of every choice,
about that choice, and on the chunk with the usage, about all.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from common.types import SpeculationStats, Timings
from serve.http.answer_formats import AnswerFormat
from serve.http.choices import Choice, Piece, TextToken, prompt_tokens
from serve.http.openai import StreamOptions
from serve.http.request_id import REQUEST_ID

Json = dict[str, Any]


class Answer:
    """One answer while its choices are being written."""

    def __init__(self, form: AnswerFormat, model: str, choices: Sequence[Choice], options: StreamOptions) -> None:
        self._form = form
        self._model = model
        self._choices = choices
        self._options = options
        self._opened: set[int] = set()
        self._id = f"{form.id_prefix}-{REQUEST_ID.get(None) or uuid.uuid4()}"
        self._created = int(time.time())

    def whole(self, pieces: Sequence[Piece]) -> Json:
        """The answer at once."""
        of_choice: dict[int, list[Piece]] = {choice.index: [] for choice in self._choices}
        for piece in pieces:
            of_choice[piece.choice.index].append(piece)
        choices = [self._whole_choice(choice, of_choice[choice.index]) for choice in self._choices]
        return self._object(self._form.kind, choices) | self._sums()

    def chunks(self, piece: Piece) -> list[Json]:
        """What `piece` adds to a stream."""
        choice = piece.choice
        chunks = self._opening(choice)
        if piece.text or piece.tokens:
            chunks.append(self._chunk(choice, self._form.delta(piece.text), self._logprobs(choice, piece.tokens)))
        if piece.last:
            chunks.append(self._chunk(choice, self._form.end(), ended=True) | {"polydraft": _speculation([choice])})
        return chunks

    def last_chunks(self) -> list[Json]:
        """After all choices: the usage, for clients that asked for it."""
        if not self._options.include_usage:
            return []
        return [self._object(self._form.chunk_kind, []) | self._sums()]

    def _sums(self) -> Json:
        return {"usage": _usage(self._choices), "polydraft": _speculation(self._choices)}

    def _opening(self, choice: Choice) -> list[Json]:
        opening = None if choice.index in self._opened else self._form.opening()
        self._opened.add(choice.index)
        return [] if opening is None else [self._chunk(choice, opening)]

    def _whole_choice(self, choice: Choice, pieces: Sequence[Piece]) -> Json:
        content = self._form.whole("".join(piece.text for piece in pieces))
        tokens = [token for piece in pieces for token in piece.tokens]
        return _choice(choice, content, self._logprobs(choice, tokens), ended=True)

    def _chunk(self, choice: Choice, content: Json, logprobs: Json | None = None, *, ended: bool = False) -> Json:
        chunk = self._object(self._form.chunk_kind, [_choice(choice, content, logprobs, ended=ended)])
        if self._options.include_usage:
            chunk["usage"] = _usage([choice]) if self._options.continuous_usage_stats else None
        return chunk

    def _logprobs(self, choice: Choice, tokens: Sequence[TextToken]) -> Json | None:
        return None if choice.request.sampling.logprobs is None else self._form.logprobs(tokens)

    def _object(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }


def _choice(choice: Choice, content: Json, logprobs: Json | None, *, ended: bool) -> Json:
    told = {"index": choice.index, **content, "logprobs": logprobs, "finish_reason": None}
    return told | {"finish_reason": choice.finish_reason, "stop_reason": choice.stop_reason} if ended else told


def _usage(choices: Sequence[Choice]) -> Json:
    read, written = prompt_tokens(choices), sum(choice.output_tokens for choice in choices)
    stats = sum((choice.stats for choice in choices), SpeculationStats())
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "completion_tokens_details": {
            "accepted_prediction_tokens": stats.accepted_tokens,
            "rejected_prediction_tokens": stats.drafted_tokens - stats.accepted_tokens,
        },
    }


def _speculation(choices: Sequence[Choice]) -> Json:
    """Language and drafter are null where choices differ; the seed is that of the first."""
    stats = sum((choice.stats for choice in choices), SpeculationStats())
    timings = sum((choice.timings for choice in choices), Timings())
    return {
        "language": _shared([choice.request.language for choice in choices]),
        "drafter": _shared([choice.drafter for choice in choices]),
        "rounds": stats.rounds,
        "mean_acceptance_length": round(stats.mean_acceptance_length, 4),
        "seed": choices[0].request.sampling.seed,
        "draft_ms": round(timings.draft_s * 1000, 3),
        "verify_ms": round(timings.verify_s * 1000, 3),
        "wire_ms": round(timings.wire_s * 1000, 3),
    }


def _shared(values: Sequence[str | None]) -> str | None:
    return values[0] if len(set(values)) == 1 else None
