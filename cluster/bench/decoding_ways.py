"""Ways to answer a question in this process: our engine's and transformers'."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from transformers import PreTrainedModel

from cluster.bench.http_load import Question
from common.engine.decoding import build_decoder
from common.models import load_model, load_tokenizer, stop_token_ids
from common.types import GenerationRequest, SamplingParams, TokenIds
from train.evaluation.equality import Equality, compare
from train.evaluation.paired import Timed
from train.evaluation.transformers_generation import assistant, transformers_generate

ENGINE = "engine plain"
PLAIN, STATIC, ASSISTED = "transformers plain", "transformers static cache", "transformers assisted"
FIXED_LENGTHS = (2, 4, 6, 8)
"""Of drafts in assisted generation, beside those it chooses."""


class Answer(msgspec.Struct, frozen=True):
    """A question's, in one way."""

    text: str
    timed: Timed


Way = Callable[[Question], Answer]
Row = dict[str, Answer]
"""One question's answers by way."""


class Decoding:
    """The ways to decode in this process.

    Args:
        target: the folder of the weights that the server has too.
        drafters: folder by language.
    """

    def __init__(self, target: Path, drafters: dict[str, Path], questions: Sequence[Question]) -> None:
        self._tokenizer = load_tokenizer(target)
        self._stop = stop_token_ids(target, self._tokenizer)
        self._limit = max(question.max_tokens for question in questions)
        self.reference: PreTrainedModel = load_model(target)
        self._drafters = drafters
        self._ways: dict[str, dict[str, Way]] = {}
        longest = max(len(self.tokens(question.prompt)) for question in questions) + self._limit
        self._engine = build_decoder(load_model(target), max_length=longest, concurrency=1, prefix_caching=False)

    def tokens(self, prompt: str) -> TokenIds:
        return tuple(self._tokenizer(prompt)["input_ids"])

    def ways(self, language: str) -> dict[str, Way]:
        """By name; its models are loaded once."""
        if language not in self._ways:
            self._ways[language] = self._load_ways(self._drafters[language])
        return self._ways[language]

    def _load_ways(self, drafter: Path) -> dict[str, Way]:
        options: dict[str, dict[str, Any]] = {
            PLAIN: {},
            STATIC: {"cache_implementation": "static"},
            ASSISTED: assistant(drafter, None),
            **{f"{ASSISTED}, {length}": assistant(drafter, length) for length in FIXED_LENGTHS},
        }
        peers = {
            name: transformers_generate(self.reference, self._stop, self._limit, **each)
            for name, each in options.items()
        }
        return {name: self._way(generate) for name, generate in (peers | {ENGINE: self._plain}).items()}

    def equality(self, questions: Sequence[Question], rows: Sequence[Row]) -> Equality:
        """Of every text with transformers' plain one."""
        both = list(zip(questions, rows, strict=True))
        texts = [(q.prompt, row[PLAIN].text, answer.text) for q, row in both for answer in row.values()]
        return compare(self.reference, ((self.tokens(q), self._written(a), self._written(b)) for q, a, b in texts))

    def _written(self, text: str) -> TokenIds:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _plain(self, prompt: TokenIds) -> Sequence[int]:
        request = GenerationRequest(
            prompt=prompt,
            max_tokens=self._limit,
            sampling=SamplingParams(temperature=0.0),
            stop_token_ids=self._stop,
        )
        return self._engine.generate([request])[0].output

    def _way(self, generate: Callable[[TokenIds], Sequence[int]]) -> Way:
        def answer(question: Question) -> Answer:
            prompt = self.tokens(question.prompt)
            began = time.perf_counter()
            written = list(generate(prompt))
            seconds = time.perf_counter() - began
            return Answer(
                self._tokenizer.decode(written, skip_special_tokens=True), Timed(tokens=len(written), seconds=seconds)
            )

        return answer
