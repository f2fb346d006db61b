"""What is asked and what comes of it: every question ends as an answer, or rejected for a stated reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from common.types import TokenIds
from train.packing import Document


class DistillationError(RuntimeError):
    """Answers that cannot be had or kept; the message says which and why."""


class Prompt(msgspec.Struct, frozen=True):
    text: str
    tokens: TokenIds


class Question(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    """Among all of the language's questions; keys its random draws, so that it is answered alike wherever it is."""
    prompt: Prompt
    temperature: float


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the target wrote: the drafter is taught these tokens, not their text, so nothing is tokenized twice."""

    number: int
    """Of its question."""
    prompt: TokenIds
    output: TokenIds
    temperature: float


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """A question without a usable answer."""

    number: int
    prompt: str
    temperature: float
    reason: str


class Law(NamedTuple):
    """The target's law at N positions, K tokens of each."""

    ids: npt.NDArray[np.int32]
    """[N, K]"""
    weights: npt.NDArray[np.float16]
    """[N, K]"""


class AnswerSource(Protocol):
    """Who answers."""

    def answer(self, questions: Sequence[Question]) -> list[Answer | Rejected]:
        """What came of each question, in their order."""


def answered(question: Question, output: Sequence[int]) -> Answer:
    return Answer(
        number=question.number,
        prompt=question.prompt.tokens,
        output=tuple(output),
        temperature=question.temperature,
    )


def rejected(question: Question, reason: str) -> Rejected:
    return Rejected(
        number=question.number, prompt=question.prompt.text, temperature=question.temperature, reason=reason
    )


def document(answer: Answer, law: Law | None = None) -> Document:
    """Loss on the answer alone; `law` is the target's at its tokens."""
    return Document(tokens=[*answer.prompt, *answer.output], loss_from=len(answer.prompt), teacher=law)
