"""Decoding every question with every method, in turns, so that a slow minute of the machine meets all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from transformers import PreTrainedTokenizerFast

from common.engine.decoding import Generation
from common.types import GenerationRequest, SamplingParams
from train.evaluation.methods import PLAIN, Decoders, Method
from train.evaluation.questions import Question, TestSet
from train.evaluation.records import Record, Records, measured


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """A method with what can be varied of it."""

    method: Method
    draft_length: int
    temperature: float


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """How often, and how many texts at the same time."""

    max_tokens: int
    repetitions: int = 1
    concurrency: int = 1


class Measurement:
    """Takes the records of one test set.

    Args:
        ways: all with which each question is decoded.
    """

    def __init__(
        self,
        decoders: Decoders,
        tokenizer: PreTrainedTokenizerFast,
        stop_token_ids: frozenset[int],
        test_set: TestSet,
        ways: Sequence[Way],
        timing: Timing,
        records: Records,
    ) -> None:
        self._decoders, self._tokenizer, self._set = decoders, tokenizer, test_set
        self._ways, self._timing, self._records = ways, timing, records
        self._stop_token_ids = stop_token_ids
        self._seeds = {question.id: number for number, question in enumerate(test_set.questions)}

    def run(self) -> Iterator[int]:
        """Measure what is not recorded yet; yields how many questions were done, as they are."""
        todo = [block for block in self._blocks() if not self._done(block[0], block[1])]
        if todo:
            self._warm_up(todo[0][1])
        for number, (repetition, questions) in enumerate(todo):
            # Rotated, so that no method always follows the same other one.
            turn = number % len(self._ways)
            for way in (*self._ways[turn:], *self._ways[:turn]):
                self._measure(way, repetition, questions)
            yield len(questions)

    def _blocks(self) -> list[tuple[int, list[Question]]]:
        size, questions = self._timing.concurrency, self._set.questions
        return [
            (repetition, questions[first : first + size])
            for repetition in range(self._timing.repetitions)
            for first in range(0, len(questions), size)
        ]

    def _done(self, repetition: int, questions: Sequence[Question]) -> bool:
        return all(self._key(way, q, repetition) in self._records for way in self._ways for q in questions)

    def _warm_up(self, questions: Sequence[Question]) -> None:
        """The first pass allocates and is not recorded."""
        for way in self._ways:
            self._decode(way, questions[:1])

    def _measure(self, way: Way, repetition: int, questions: Sequence[Question]) -> None:
        texts = self._decode(way, questions)
        self._records.add(
            msgspec.convert(
                dict(zip(Record.__struct_fields__, self._key(way, question, repetition), strict=False))
                | measured(text, self._tokenizer.decode(text.output, skip_special_tokens=True)),
                Record,
            )
            for question, text in zip(questions, texts, strict=True)
        )

    def _decode(self, way: Way, questions: Sequence[Question]) -> list[Generation]:
        decoder = self._decoders.decoder(way.method, way.draft_length)
        return decoder.generate([self._request(way, question) for question in questions])

    def _request(self, way: Way, question: Question) -> GenerationRequest:
        return GenerationRequest(
            prompt=tuple(self._tokenizer(question.prompt)["input_ids"]),
            max_tokens=self._timing.max_tokens,
            sampling=SamplingParams(temperature=way.temperature, seed=self._seeds[question.id]),
            stop_token_ids=self._stop_token_ids,
        )

    def _key(self, way: Way, question: Question, repetition: int) -> tuple[str, str, str, str, float, int, int]:
        name, length = way.method.name, way.draft_length
        return (self._set.name, self._set.language, question.id, name, way.temperature, length, repetition)


def ways(methods: Sequence[Method], temperatures: Sequence[float], draft_length: int) -> list[Way]:
    """Every method at every temperature; plain decoding drafts nothing."""
    return [
        Way(method=method, draft_length=0 if method.name == PLAIN else draft_length, temperature=temperature)
        for temperature in temperatures
        for method in methods
    ]
