"""Answers by our own engine, in large batches."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from common.engine.decoding import build_decoder
from common.types import GenerationRequest, SamplingParams
from train.distillation.answers import Answer, Question, Rejected, answered, rejected
from train.distillation.settings import DistillSettings


class EngineAnswers:
    """Implements `AnswerSource`."""

    def __init__(self, model: PreTrainedModel, settings: DistillSettings, stop_token_ids: frozenset[int]) -> None:
        self._model = model
        self._settings = settings
        self._stop_token_ids = stop_token_ids
        self._longest = model.config.get_text_config().max_position_embeddings - settings.max_tokens
        """Most tokens of a prompt that leave room for an answer."""

    def answer(self, questions: Sequence[Question]) -> list[Answer | Rejected]:
        fitting = {q.number: self._request(q) for q in questions if len(q.prompt.tokens) <= self._longest}
        outputs = dict(zip(fitting, self._generate(list(fitting.values())), strict=True))
        return [
            answered(q, outputs[q.number]) if q.number in outputs else rejected(q, self._too_long(q)) for q in questions
        ]

    def _too_long(self, question: Question) -> str:
        length = len(question.prompt.tokens)
        return f"prompt of {length} tokens, the target's context has room for {self._longest}"

    def _generate(self, requests: list[GenerationRequest]) -> list[tuple[int, ...]]:
        if not requests:
            return []
        # A cache of its own for every shard: what others left there would change which tokens run together, and so
        # the last bits of the logits. Like this a shard's answers are the same whatever was made before it, and where.
        decoder = build_decoder(
            self._model,
            max_length=max(request.max_length for request in requests),
            concurrency=self._settings.concurrency,
        )
        return [generation.output for generation in decoder.generate(requests)]

    def _request(self, question: Question) -> GenerationRequest:
        return GenerationRequest(
            prompt=question.prompt.tokens,
            max_tokens=self._settings.max_tokens,
            sampling=SamplingParams(temperature=question.temperature, seed=self._settings.seed + question.number),
            stop_token_ids=self._stop_token_ids,
        )
