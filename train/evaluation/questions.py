"""Test sets: what the target is asked when drafters are measured.

Three formats: parallel text (TSV, JSON lines, parquet, hub; see `train.sources`), the paper's ``question.jsonl``, and
Spec-Bench's, which is the same with references.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from common.languages import language_name
from train.corpus import read_part
from train.evaluation.settings import TestSetSettings
from train.hashing import Hashes, text_hash, text_key
from train.pair import CorpusError, Pair
from train.sources import Row, read_rows, to_pair, to_question


class Question(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    prompt: str
    source: str
    """What it is about, without the words around it."""
    reference: str | None = None


class TestSet(msgspec.Struct, frozen=True, kw_only=True):
    """Questions of one set in one language."""

    __test__ = False

    name: str
    language: str
    task: str
    questions: list[Question]
    seen: int = 0
    """Questions whose source or reference is in the training text; case and spacing do not count."""

    @property
    def held_out(self) -> bool:
        return self.seen == 0


def read_test_set(
    settings: TestSetSettings, language: str, data: str, *, template: str, count: int, seed: int = 0
) -> TestSet:
    """`count` of the set's questions, or all if there are fewer.

    A hash decides which: consecutive sentences are of few documents. Raises CorpusError naming file and line.

    Args:
        template: the prompt of parallel text, with {language} and {source}.
    """
    rows = [row for _, found in read_rows([settings.source], language, data) for row in found]
    return sample(settings, language, _questions(rows, settings, language, template), count, seed)


def corpus_test_set(language: str, pairs: Iterable[Pair], *, template: str, count: int, seed: int = 0) -> TestSet:
    """The test part of the language's own corpus."""
    settings = TestSetSettings(name="corpus", source="")
    questions = (_of_pair(f"{number}", pair, language, template) for number, pair in enumerate(pairs, 1))
    return sample(settings, language, questions, count, seed)


def sample(settings: TestSetSettings, language: str, questions: Iterable[Question], count: int, seed: int) -> TestSet:
    by_id: dict[str, Question] = {}
    for question in questions:
        if by_id.setdefault(question.id, question) is not question:
            raise CorpusError(f"{settings.name}, {language}: two questions are called {question.id}")
    ranked = sorted(by_id.values(), key=lambda question: text_hash(question.source, f"ask {seed}"))
    return TestSet(name=settings.name, language=language, task=settings.task, questions=ranked[:count])


def training_hashes(corpora: Iterable[Path]) -> Hashes:
    """Of all sentences, on both sides, in the training parts of these corpora; 8 bytes each."""
    pairs = chain.from_iterable(read_part(corpus, "train") for corpus in corpora)
    return np.unique(np.fromiter((_hash(side) for p in pairs for side in (p.source, p.english)), np.uint64))


def checked(test_set: TestSet, training: Hashes) -> TestSet:
    """The set with a count of its questions that were trained on."""

    def known(text: str | None) -> bool:
        return text is not None and bool(np.isin(np.uint64(_hash(text)), training, assume_unique=True))

    seen = sum(known(question.source) or known(question.reference) for question in test_set.questions)
    return msgspec.structs.replace(test_set, seen=seen)


def _hash(text: str) -> int:
    return text_hash(text_key(text))


def _questions(rows: Sequence[Row], settings: TestSetSettings, language: str, template: str) -> Iterator[Question]:
    for number, (where, row) in enumerate(rows, 1):
        if isinstance(row, dict) and "turns" in row:
            yield _of_question(where, row, settings, number)
        else:
            yield _of_pair(f"{number}", to_pair(row, where), language, template)


def _of_pair(number: str, pair: Pair, language: str, template: str) -> Question:
    prompt = template.format(language=language_name(language), source=pair.source)
    return Question(id=number, prompt=prompt, source=pair.source, reference=pair.english)


def _of_question(where: str, row: Any, settings: TestSetSettings, number: int) -> Question:
    """Of several turns the first: the others ask about an answer."""
    question = to_question(row, where)
    turn = question.turns[0]
    if not turn.strip():
        raise CorpusError(f"{where}: an empty turn")
    return Question(
        id=str(question.question_id or number),
        prompt=settings.turn.format(turn=turn),
        source=turn.partition(":")[2] if turn.lower().startswith("translate ") else turn,
        reference=question.references[0] if question.references else None,
    )
