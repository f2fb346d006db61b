"""Answers in OpenAI's form: whole ones and streamed chunks, with what speculation did beside them.

usage      completion_tokens_details.accepted_prediction_tokens and rejected_prediction_tokens
polydraft  language, drafter, rounds, mean_acceptance_length, seed (on the last chunks of a stream)
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from common.types import Progress, SpeculationStats

Json = dict[str, Any]


class Answer:
    """One answer while it is being written: what its chunks and its last word need to know."""

    def __init__(self, *, chat: bool, model: str, prompt_tokens: int, language: str | None, seed: int) -> None:
        self.id = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.chat = chat
        self.model = model
        self.prompt_tokens = prompt_tokens
        self.language = language
        self.seed = seed
        self.output_tokens = 0
        self.finish_reason: str | None = None
        self._stats = SpeculationStats()
        self._drafter: str | None = None

    def note(self, progress: Progress) -> None:
        """Take the statistics of one more round."""
        self._stats = progress.stats
        self._drafter = progress.drafter or self._drafter
        self.finish_reason = progress.finish_reason

    def whole(self, text: str) -> Json:
        """The answer at once."""
        content: Json = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        return self._object([self._choice(content, self.finish_reason)]) | {
            "usage": self.usage(),
            "polydraft": self.speculation(),
        }

    def opening(self) -> Json:
        """First chunk of a streamed chat: who speaks."""
        return self._chunk({"delta": {"role": "assistant", "content": ""}}, None)

    def chunk(self, text: str) -> Json:
        """A piece of the text."""
        return self._chunk({"delta": {"content": text}} if self.chat else {"text": text}, None)

    def closing(self) -> Json:
        """Last chunk with a choice: why the text ended."""
        content: Json = {"delta": {}} if self.chat else {"text": ""}
        return self._chunk(content, self.finish_reason) | {"polydraft": self.speculation()}

    def usage_chunk(self) -> Json:
        """The very last chunk, for clients that asked for it."""
        return self._object([], streamed=True) | {"usage": self.usage(), "polydraft": self.speculation()}

    def usage(self) -> Json:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.prompt_tokens + self.output_tokens,
            "completion_tokens_details": {
                "accepted_prediction_tokens": self._stats.accepted_tokens,
                "rejected_prediction_tokens": self._stats.drafted_tokens - self._stats.accepted_tokens,
            },
        }

    def speculation(self) -> Json:
        return {
            "language": self.language,
            "drafter": self._drafter,
            "rounds": self._stats.rounds,
            "mean_acceptance_length": round(self._stats.mean_acceptance_length, 4),
            "seed": self.seed,
        }

    def _chunk(self, content: Json, finish_reason: str | None) -> Json:
        return self._object([self._choice(content, finish_reason)], streamed=True)

    def _object(self, choices: list[Json], *, streamed: bool = False) -> Json:
        kind = "chat.completion" if self.chat else "text_completion"
        return {
            "id": self.id,
            "object": f"{kind}.chunk" if self.chat and streamed else kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    @staticmethod
    def _choice(content: Json, finish_reason: str | None) -> Json:
        return {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}
