"""Making a shard: ask, sort what comes, look up the target's law, store."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from transformers import PreTrainedModel

from common.models import load_model, load_tokenizer, stop_token_ids
from train.distillation.answers import Answer, AnswerSource, DistillationError, Prompt, Question, Rejected, rejected
from train.distillation.endpoint import EndpointAnswers
from train.distillation.engine import EngineAnswers
from train.distillation.language import LanguageFilter
from train.distillation.settings import DistillSettings
from train.distillation.store import Counts, Shard, write_shard
from train.distillation.teacher import Teacher


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """One language's questions to the target: every prompt at every temperature."""

    folder: Path
    """Of the answers; every machine sees it."""
    target: Path
    target_key: str
    """Another target has another: of a whole language's answers this is known, and no folder is read for it."""
    language: str
    """ISO 639-1 code, of the prompts."""
    prompts: Sequence[Prompt]
    settings: DistillSettings

    @property
    def total(self) -> int:
        return len(self.prompts) * len(self.settings.temperatures)

    @property
    def shards(self) -> int:
        return -(-self.total // self.settings.shard_answers)

    @property
    def inputs(self) -> dict[str, Any]:
        """What the answers depend on, for the manifest."""
        prompts = hashlib.sha256(msgspec.json.encode(self.prompts)).hexdigest()
        return self.settings.inputs | {
            "target": self.target_key,
            "prompts": prompts,
            "language": self.language,
        }

    def questions(self, shard: int) -> list[Question]:
        """In the order of their numbers: a prompt at all temperatures, then the next prompt."""
        first = shard * self.settings.shard_answers
        return [self._question(n) for n in range(first, min(first + self.settings.shard_answers, self.total))]

    def _question(self, number: int) -> Question:
        prompt, temperature = divmod(number, len(self.settings.temperatures))
        return Question(number=number, prompt=self.prompts[prompt], temperature=self.settings.temperatures[temperature])


class ShardMaker:
    """Holds what every shard needs. Raises ValueError for settings that do not fit the target."""

    def __init__(self, work: Distillation) -> None:
        self._work = work
        settings = work.settings
        tokenizer = load_tokenizer(work.target)
        wanted, taught = settings.answer_language, settings.teacher != "none"
        model = _load_target(work) if taught or settings.endpoint is None else None
        self._source: AnswerSource
        if settings.endpoint is not None:
            self._source = EndpointAnswers(settings, tokenizer)
        else:
            assert model is not None
            self._source = EngineAnswers(model, settings, stop_token_ids(work.target, tokenizer))
        self._filter = LanguageFilter(tokenizer, wanted, work.language) if wanted is not None else None
        self._teacher = Teacher(model, settings) if model is not None and taught else None

    def make(self, number: int) -> Counts:
        """Make and store the shard. Raises DistillationError if too many questions have no answer."""
        questions = self._work.questions(number)
        outcomes = self._source.answer(questions)
        errors = [outcome for outcome in outcomes if isinstance(outcome, Rejected)]
        self._bear(errors)
        answers, skipped = self._sorted(questions, outcomes)
        law = self._teacher.law(answers) if self._teacher is not None else None
        shard = Shard(answers=answers, errors=errors, skipped=skipped, law=law)
        assert shard.counts.total == len(questions), "every question is accounted for"
        write_shard(self._work.folder, number, shard)
        return shard.counts

    def _sorted(
        self, questions: Sequence[Question], outcomes: Sequence[Answer | Rejected]
    ) -> tuple[list[Answer], list[Rejected]]:
        """Answers that are kept, and those that are left out."""
        answers: list[Answer] = []
        skipped: list[Rejected] = []
        for question, outcome in zip(questions, outcomes, strict=True):
            if isinstance(outcome, Answer):
                objection = self._filter.objection(outcome.output) if self._filter is not None else None
                if objection is None:
                    answers.append(outcome)
                else:
                    skipped.append(rejected(question, objection))
        return answers, skipped

    def _bear(self, errors: Sequence[Rejected]) -> None:
        """A shard with too many errors is not stored, so that the next run asks again."""
        settings = self._work.settings
        # Of a whole shard: the last one may be so short that a single error were too many.
        if len(errors) > settings.max_error_share * settings.shard_answers:
            raise DistillationError(
                f"{len(errors)} questions without an answer in one shard of {settings.shard_answers}, more than "
                f"max_error_share {settings.max_error_share:g} allows; the first: {errors[0].reason}"
            )


def _load_target(work: Distillation) -> PreTrainedModel:
    model = load_model(work.target, dtype=work.settings.dtype)
    return model.to("cuda") if work.settings.gpus_per_actor else model
