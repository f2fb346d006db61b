"""The work of the stages, except the training itself: plain generators that yield (done, total).

They run as Ray tasks, or directly in a test. Each leaves its results in the stage's folder and declares it finished,
unless a training run is to follow; called again after an interruption they go on, or start over where that is cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import msgspec
from transformers import PreTrainedTokenizerFast

from common.models import load_tokenizer, stop_token_ids
from common.types import TokenIds
from common.vocabulary import write_vocabulary
from train.corpus import read_training, sample_part, write_corpus
from train.distillation.answers import Prompt
from train.distillation.distill import distill_stage
from train.distillation.store import read_documents, read_taught_documents
from train.documents import Prompter, documents
from train.evaluation.drafter import Evaluation, evaluate
from train.hashing import distinct
from train.initial import save_initial_drafter, save_initial_model, train_tokenizer
from train.job import LoopSettings
from train.ngram import save_ngram_drafter
from train.packing import Document, pack_to
from train.pair import Pair
from train.prompts import sample_prompts
from train.publishing import Place, judge, publish
from train.recipe import Recipe, TargetSettings
from train.refresh import refresh_documents
from train.splitting import Part
from train.stages import Stage
from train.validation import write_prompts
from train.vocabulary import choose_vocabulary

Steps = Iterator[tuple[int, int]]
Texts = dict[str, Stage]
"""Corpora by language."""
VALIDATION = "validation.jsonl"
"""Prompts that checkpoints are judged by."""


def prepare_corpus(stage: Stage, recipe: Recipe, language: str, data: str) -> Steps:
    """Clean, split and decontaminate one language's text."""
    report = write_corpus(recipe.corpus, language, data, stage.folder)
    stage.finish(**msgspec.to_builtins(report))
    yield 1, 1


def prepare_target(stage: Stage, recipe: Recipe, settings: TargetSettings, texts: Texts) -> Steps:
    """Tokenizer, initial weights and training rows of a target made from scratch."""
    pairs = chain.from_iterable(_training(texts))
    tokenizer = train_tokenizer((side for pair in pairs for side in (pair.source, pair.english)), settings)
    save_initial_model(
        stage.folder / "initial",
        settings.shape,
        tokenizer,
        vocab_size=settings.vocab_size,
        context_length=settings.context_length,
        seed=settings.loop.seed,
    )
    yield 1, 2
    translations = _translations(recipe, texts, tokenizer, answer_only=True)
    _pack(stage, translations, settings.loop, answers_only=True)
    yield 2, 2


def prepare_pretraining(stage: Stage, recipe: Recipe, texts: Texts, target: Path) -> Steps:
    """A drafter's initial weights and its rows: prompts and reference answers of its languages."""
    tokenizer = load_tokenizer(target)
    _prepare_drafter(stage, recipe, target, _translations(recipe, texts, tokenizer, answer_only=True))
    _prepare_validation(stage, recipe, texts, target, recipe.pretrain)
    _pack(stage, _translations(recipe, texts, tokenizer), recipe.pretrain)
    yield 1, 1


def prepare_generic(stage: Stage, recipe: Recipe, texts: Texts, target: Path) -> Steps:
    """The baseline's initial weights and rows: the English sides of all languages, and nothing else."""
    tokenizer = load_tokenizer(target)
    _prepare_drafter(stage, recipe, target, documents(tokenizer, _english(texts)))
    _prepare_validation(stage, recipe, texts, target, recipe.pretrain)
    _pack(stage, documents(tokenizer, _english(texts)), recipe.pretrain)
    yield 1, 1


def distill_answers(stage: Stage, recipe: Recipe, corpus: Stage, language: str, target: Path) -> Steps:
    """The target's answers to training prompts of one language."""
    settings = recipe.distill
    prompter = Prompter(load_tokenizer(target), recipe.prompt, language)
    sources = [pair.source for pair in sample_part(corpus.folder, "train", settings.prompts, recipe.corpus.seed)]
    prompts = list(map(Prompt, map(prompter.prompt, sources), prompter.prompts(sources)))
    yield from distill_stage(stage, prompts, language, target, settings)


def prepare_finetuning(
    stage: Stage,
    recipe: Recipe,
    texts: Texts,
    target: Path,
    loop: LoopSettings,
    answers: Sequence[Stage],
    most: int | None,
    pretrained: bool,
) -> Steps:
    """Rows of prompts and the target's answers, with the loss on the answers; initial weights if not `pretrained`.

    With `most`, of the first so many answers: the prompts were chosen by a hash, so the first are like the others.
    """
    if not pretrained:
        _prepare_drafter(stage, recipe, target, islice(_answers(answers), most))
    _prepare_validation(stage, recipe, texts, target, loop)
    # Laws are many times the size of the answers: rows hold them only for an objective that reads them.
    read = read_taught_documents if loop.objective.teacher == "stored" else read_documents
    _pack(stage, islice(_answers(answers, read), most), loop, answers_only=True)
    yield 1, 1


def prepare_refresh(stage: Stage, recipe: Recipe, texts: Texts, target: Path, drafter: Path) -> Steps:
    """Rows of training prompts and the drafter's own answers, with the loss on the answers."""
    assert recipe.refresh is not None
    settings, loop = recipe.refresh.answers, recipe.refresh.loop
    prompts = _prompts(stage, recipe, texts, target, "train", settings.prompts, settings.max_tokens)
    _prepare_validation(stage, recipe, texts, target, loop)
    documents = refresh_documents(drafter, prompts, settings, _stop_token_ids(target))
    _pack(stage, documents, loop, answers_only=True)
    yield 1, 1


def make_ngram(stage: Stage, recipe: Recipe, texts: Texts, target: Path, answers: Sequence[Stage]) -> Steps:
    """An n-gram drafter, counted from all that the other drafters are trained on."""
    assert recipe.ngram is not None
    counted = chain(_translations(recipe, texts, load_tokenizer(target)), _answers(answers))
    save_ngram_drafter(stage.folder / "model", counted, recipe.ngram, target)
    stage.finish()
    yield 1, 1


def evaluate_drafter(stage: Stage, recipe: Recipe, texts: Texts, target: Path, drafter: Path) -> Steps:
    """Acceptance and speed of one drafter, on test sentences of its languages."""
    prompts = _test_prompts(stage, recipe, texts, target)
    evaluation = yield from evaluate(target, drafter, prompts, recipe.evaluate)
    stage.finish(**msgspec.to_builtins(evaluation))


def publish_drafter(
    stage: Stage,
    recipe: Recipe,
    texts: Texts,
    target: Path,
    drafter: Path,
    evaluated: Stage,
    place: Place,
    provenance: dict[str, Any],
) -> Steps:
    """Publish and promote what the gate lets pass. Raises NotWorthPublishing; then the registry is untouched.

    `provenance` is the run's: this process was started by Ray, not by the command that somebody gave.
    """
    own = msgspec.convert(evaluated.facts(), Evaluation)
    prompts = _test_prompts(stage, recipe, texts, target)
    judge(place, own, target, prompts, recipe.publish, recipe.evaluate, stage.folder / "promoted")
    facts = {"stage": stage.key, "recipe": msgspec.to_builtins(recipe), "forced": place.force}
    manifest = publish(place, drafter, target, own, provenance | facts)
    stage.finish(version=manifest.version)
    yield 1, 1


def _prompts(
    stage: Stage, recipe: Recipe, texts: Texts, target: Path, part: Part, count: int, max_tokens: int
) -> list[TokenIds]:
    """Also leaves a report in the stage's folder."""
    corpora = {language: corpus.folder for language, corpus in texts.items()}
    sampled = sample_prompts(recipe, corpora, target, part, count, max_tokens=max_tokens)
    (stage.folder / f"{part}-prompts.json").write_bytes(msgspec.json.encode(sampled.report))
    return sampled.tokens


def _test_prompts(stage: Stage, recipe: Recipe, texts: Texts, target: Path) -> list[TokenIds]:
    settings = recipe.evaluate
    return _prompts(stage, recipe, texts, target, "test", settings.prompts, settings.max_tokens)


def _translations(
    recipe: Recipe, texts: Texts, tokenizer: PreTrainedTokenizerFast, *, answer_only: bool = False
) -> Iterator[Document]:
    for language, pairs in zip(texts, _training(texts), strict=True):
        prompter = Prompter(tokenizer, recipe.prompt, language)
        yield from prompter.translations(pairs, answer_only=answer_only)


def _english(texts: Texts) -> Iterator[str]:
    """The languages share it: each sentence once."""
    return distinct(pair.english for pairs in _training(texts) for pair in pairs)


def _training(texts: Texts) -> Iterator[Iterator[Pair]]:
    """Of each language."""
    return read_training([corpus.folder for corpus in texts.values()])


def _answers(
    stages: Sequence[Stage], read: Callable[[Path], Iterator[Document]] = read_documents
) -> Iterator[Document]:
    return chain.from_iterable(read(stage.folder / "answers") for stage in stages)


def _pack(stage: Stage, documents: Iterable[Document], loop: LoopSettings, *, answers_only: bool = False) -> None:
    pack_to(stage.folder / "rows", documents, loop.row_length, loop.seed, answers_only=answers_only)


def _prepare_drafter(stage: Stage, recipe: Recipe, target: Path, written: Iterable[Document]) -> None:
    """The weights that training begins with; a trimmed vocabulary is chosen by what is `written` in training."""
    folder = stage.folder / "initial"
    save_initial_drafter(folder, recipe.initial, recipe.drafter, target, recipe.pretrain.seed)
    if recipe.vocabulary is not None:
        chosen = choose_vocabulary(written, recipe.vocabulary, stop_token_ids=_stop_token_ids(target))
        write_vocabulary(folder, chosen.ids)
        (stage.folder / "vocabulary.json").write_bytes(msgspec.json.encode(chosen.report))


def _stop_token_ids(target: Path) -> frozenset[int]:
    return stop_token_ids(target, load_tokenizer(target))


def _prepare_validation(stage: Stage, recipe: Recipe, texts: Texts, target: Path, loop: LoopSettings) -> None:
    settings = recipe.evaluate
    if loop.validate_every:
        prompts = _prompts(stage, recipe, texts, target, "valid", settings.validation_prompts, settings.max_tokens)
        write_prompts(stage.folder / VALIDATION, prompts)
