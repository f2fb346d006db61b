"""What the studies of `polydraft evaluate` share: the target, the drafters that a run has made, and the test sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from common.engine.decoding import Generation
from common.models import load_model, load_tokenizer, stop_token_ids
from common.types import GenerationRequest, SamplingParams, TokenIds
from train.corpus import PARTS, read_part
from train.evaluation.methods import PLAIN, SPECIALIST, Decoders, Method, find_methods
from train.evaluation.questions import (
    Question,
    TestSet,
    checked,
    corpus_test_set,
    read_test_set,
    training_hashes,
)
from train.evaluation.settings import LabSettings, TestSetSettings
from train.hashing import Hashes
from train.plan import Plan
from train.recipe import Recipe
from train.stages import Stage, hash_folder, stage

CORPUS = "corpus"
"""The set that is each corpus's own test part."""


class Lab:
    """Raises CorpusError where the run has no text of a language.

    Args:
        run: folder of a training run; results go to ``<run>/evaluation``.
        data: fills {data} in the test sets' sources.
        plan: makes a plan of training for a recipe, in the same run.
    """

    def __init__(
        self,
        recipe: Recipe,
        settings: LabSettings,
        languages: tuple[str, ...],
        *,
        run: Path,
        target: Path,
        data: str,
        plan: Callable[[Recipe], Plan],
    ) -> None:
        self.recipe, self.settings, self.languages = recipe, settings, languages
        self.folder = run / "evaluation"
        self.plan = plan
        self._run, self.target_folder, self._data = run, target, data

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return load_tokenizer(self.target_folder)

    @cached_property
    def stop_token_ids(self) -> frozenset[int]:
        return stop_token_ids(self.target_folder, self.tokenizer)

    @cached_property
    def target(self) -> PreTrainedModel:
        return load_model(self.target_folder)

    @cached_property
    def reference(self) -> PreTrainedModel:
        """The target as transformers runs it."""
        return load_model(self.target_folder)

    @cached_property
    def target_hash(self) -> str:
        return hash_folder(self.target_folder)

    @cached_property
    def _training(self) -> Hashes:
        """Of the training text of all languages, which the generalist has seen."""
        return training_hashes(self._corpus(language) for language in self.languages)

    def methods(self, language: str) -> list[Method]:
        return find_methods(self._run, language)

    def variant(self, language: str, name: str) -> Path:
        """The drafter that a variant of the recipe has made."""
        return self._run / language / f"finetune-{name}" / "model"

    def answers(self, language: str) -> Path:
        """What the target has written for finetuning."""
        return self._run / language / "distill" / "answers"

    def own_set(self, language: str, count: int) -> TestSet:
        """Of the corpus's test part."""
        pairs = read_part(self._corpus(language), "test")
        return checked(corpus_test_set(language, pairs, template=self.recipe.prompt, count=count), self._training)

    def sets(self, language: str, count: int) -> list[TestSet]:
        """All that exist in that language, the corpus's own first."""
        return [self.own_set(language, count)] + [
            checked(self._read(wanted, language, count), self._training)
            for wanted in self.settings.sets
            if wanted.languages is None or language in wanted.languages
        ]

    def pair(self, language: str) -> dict[str, Method]:
        """Plain decoding and the language's specialist, by name."""
        return {method.name: method for method in self.methods(language) if method.name in (PLAIN, SPECIALIST)}

    def prompts(self, questions: Sequence[Question]) -> list[TokenIds]:
        return [tuple(ids) for ids in self.tokenizer([q.prompt for q in questions])["input_ids"]]

    def decode(
        self, method: Method, questions: Sequence[Question], temperature: float = 0.0, seeds: Sequence[int] = ()
    ) -> list[Generation]:
        """Many at a time. `seeds` has one for each question; at temperature 0 none is needed."""
        settings, stop = self.settings, self.stop_token_ids
        decoder = self.decoders(questions, settings.concurrency).decoder(method, settings.draft_length)
        return decoder.generate(
            [
                GenerationRequest(
                    prompt=prompt,
                    max_tokens=settings.max_tokens,
                    sampling=SamplingParams(temperature=temperature, seed=seed),
                    stop_token_ids=stop,
                )
                for prompt, seed in zip(self.prompts(questions), seeds or [0] * len(questions), strict=True)
            ]
        )

    def decoders(self, questions: Sequence[Question], concurrency: int = 1) -> Decoders:
        """With room for these questions and their answers."""
        longest = max(map(len, self.prompts(questions)))
        return Decoders(self.target, max_length=longest + self.settings.max_tokens, concurrency=concurrency)

    def stage(self, name: str, **inputs: Any) -> Stage:
        """Where a study keeps its results; what other inputs left there is cleared, what these left is kept."""
        drafters = {
            f"{language} {method.name}": hash_folder(method.drafter)
            for language in self.languages
            for method in self.methods(language)
            if method.drafter is not None
        }
        made = stage(self.folder.parent, f"evaluation/{name}", target=self.target_hash, drafters=drafters, **inputs)
        made.begin()
        return made

    def _read(self, wanted: TestSetSettings, language: str, count: int) -> TestSet:
        return read_test_set(wanted, language, self._data, template=self.recipe.prompt, count=count)

    def _corpus(self, language: str) -> Path:
        folder = self._run / language / "corpus"
        assert all((folder / f"{part}.jsonl").exists() for part in PARTS), f"{folder}: train first"
        return folder


def inputs_of(settings: LabSettings, *names: str) -> dict[str, Any]:
    """Those settings that a study depends on."""
    return {name: msgspec.to_builtins(getattr(settings, name)) for name in names}
