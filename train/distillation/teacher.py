"""The target's law at the tokens of its answers, by one teacher-forced pass, thinned to a few tokens a position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from common.engine.batch import Feed
from common.engine.cache import BLOCK_SIZE
from common.engine.runner import ModelRunner
from train.distillation.answers import Answer, Law
from train.distillation.settings import DistillSettings

MAX_LOGITS = 2**26
"""Most logits held at once; 256 MiB in float32."""


class Teacher:
    """Raises ValueError if `teacher_k` is more than the vocabulary."""

    def __init__(self, model: PreTrainedModel, settings: DistillSettings) -> None:
        self._model = model
        self._settings = settings
        self._vocabulary = model.config.get_text_config().vocab_size
        if settings.teacher_k > self._vocabulary:
            raise ValueError(f"teacher_k is {settings.teacher_k}, but the target has {self._vocabulary} tokens")

    def law(self, answers: Sequence[Answer]) -> Law:
        """At every output token of `answers`, one answer after the other, the law it was drawn from but for the
        temperature, which is 1 here."""
        batches = list(self._batches(answers))
        rooms = (sum(len(a.prompt) + len(a.output) + BLOCK_SIZE for a in batch) for batch in batches)
        runner = ModelRunner(self._model, kv_tokens=max(rooms, default=BLOCK_SIZE))
        laws = [
            thin(logits, self._settings, answer.number)
            for batch in batches
            for answer, logits in zip(batch, _logits(runner, batch), strict=True)
        ]
        empty = np.zeros((0, self._settings.teacher_k))
        return Law(
            ids=np.concatenate([empty, *(law.ids for law in laws)], dtype=np.int32, casting="unsafe"),
            weights=np.concatenate([empty, *(law.weights for law in laws)], dtype=np.float16, casting="unsafe"),
        )

    def _batches(self, answers: Sequence[Answer]) -> Iterator[list[Answer]]:
        """Consecutive answers with no more logits together than MAX_LOGITS, or single ones that have more."""
        batch: list[Answer] = []
        for answer in answers:
            if batch and sum(len(a.output) for a in [*batch, answer]) * self._vocabulary > MAX_LOGITS:
                yield batch
                batch = []
            batch.append(answer)
        if batch:
            yield batch


def thin(logits_NV: Tensor, settings: DistillSettings, number: int) -> Law:
    """What is stored of the laws softmax(logits).

    "top_k": the likeliest tokens' probabilities. "sampled": K independent draws with replacement, each of weight
    1/K, so that the expectation of sum_k w_k f(v_k) is sum_v p(v) f(v) for every f (arXiv 2503.16870, with the law
    itself as the proposal). `number`, the question's, keys the draws.
    """
    probabilities_NV = logits_NV.float().softmax(dim=-1)
    k = settings.teacher_k
    if settings.teacher == "top_k":
        weights_NK, ids_NK = probabilities_NV.topk(k)
    else:
        generator = torch.Generator(logits_NV.device).manual_seed(settings.seed + number)
        ids_NK = torch.multinomial(probabilities_NV, k, replacement=True, generator=generator)
        weights_NK = torch.full(ids_NK.shape, 1 / k)
    return Law(ids=ids_NK.int().cpu().numpy(), weights=weights_NK.half().cpu().numpy())


def _logits(runner: ModelRunner, answers: Sequence[Answer]) -> list[Tensor]:
    """For each answer [output tokens, V]: what the model predicts each of its tokens from."""
    feeds = []
    for answer in answers:
        tokens = [*answer.prompt, *answer.output[:-1]]
        sequence = runner.begin()
        has_room = sequence.grow(len(tokens))
        assert has_room, "the cache was made for this batch"
        feeds.append(Feed(sequence, tokens, wanted=len(answer.output)))
    logits = runner.forward(feeds)
    for feed in feeds:
        feed.sequence.release()
    return logits
