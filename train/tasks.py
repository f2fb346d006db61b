"""The work of the stages that are not training runs: plain generators that yield (done, total).

They run as Ray tasks, one per language, or directly in a test. Each leaves its results in the stage's folder and
declares it finished; called again after an interruption they go on, or start over where that is cheap.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from common.engine.decoding import Decoder, build_decoder
from common.models import load_config, load_model, load_tokenizer
from common.types import TokenIds
from train.corpus import load_corpus
from train.distill import distill, read_answers
from train.documents import Prompter, documents
from train.evaluation.acceptance import measure_acceptance
from train.initial import save_initial_model, train_tokenizer
from train.packing import pack
from train.pair import Pair
from train.recipe import DistillSettings, EvaluateSettings, ModelShape, Recipe, TargetSettings
from train.stages import Stage

Steps = Iterator[tuple[int, int]]
PARTS = ("train", "valid", "test")


def prepare_corpus(stage: Stage, recipe: Recipe, language: str, data: str) -> Steps:
    """Load, clean, split and decontaminate one language's text."""

    corpus = load_corpus(recipe.corpus, language, data)
    for part in PARTS:
        pairs = getattr(corpus, part)
        (stage.folder / f"{part}.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(pairs))
    counts = {part: len(getattr(corpus, part)) for part in PARTS}
    stage.finish(**counts, contaminated=corpus.contaminated, cleaning=msgspec.to_builtins(corpus.report))
    yield 1, 1


def read_part(corpus: Stage, part: str) -> list[Pair]:
    """`part` is "train", "valid" or "test" of a prepared corpus."""
    return msgspec.json.Decoder(Pair).decode_lines((corpus.folder / f"{part}.jsonl").read_bytes())


def prepare_target(stage: Stage, recipe: Recipe, settings: TargetSettings, corpora: dict[str, Stage]) -> Steps:
    """Tokenizer, initial weights and training rows of a target made from scratch."""

    texts = {language: read_part(corpus, "train") for language, corpus in corpora.items()}
    tokenizer = train_tokenizer((side for p in chain(*texts.values()) for side in (p.source, p.english)), settings)
    save_initial_model(
        stage.folder / "initial",
        settings.shape,
        tokenizer,
        vocab_size=settings.vocab_size,
        context_length=settings.context_length,
        seed=settings.loop.seed,
    )
    yield 1, 2
    translations = [
        document
        for language, pairs in texts.items()
        for document in Prompter(tokenizer, recipe.prompt, language).translations(pairs, answer_only=True)
    ]
    pack(translations, settings.loop.row_length, settings.loop.seed).save(stage.folder / "rows")
    yield 2, 2


def prepare_pretraining(stage: Stage, recipe: Recipe, corpus: Stage, language: str, target: Path) -> Steps:
    """A drafter's initial weights and its rows: prompts and reference answers of its language."""

    prompter = Prompter(load_tokenizer(target), recipe.prompt, language)
    translations = prompter.translations(read_part(corpus, "train"))
    _save_initial_drafter(stage, recipe.drafter, target, recipe.pretrain.seed)
    pack(translations, recipe.pretrain.row_length, recipe.pretrain.seed).save(stage.folder / "rows")
    yield 1, 1


def prepare_generic(stage: Stage, recipe: Recipe, corpora: Sequence[Stage], target: Path) -> Steps:
    """The baseline's initial weights and rows: the English sides of all languages, and nothing else."""

    english = dict.fromkeys(pair.english for corpus in corpora for pair in read_part(corpus, "train"))
    _save_initial_drafter(stage, recipe.drafter, target, recipe.pretrain.seed)
    rows = pack(documents(load_tokenizer(target), english), recipe.pretrain.row_length, recipe.pretrain.seed)
    rows.save(stage.folder / "rows")
    yield 1, 1


def distill_answers(stage: Stage, recipe: Recipe, corpus: Stage, language: str, target: Path) -> Steps:
    """The target's answers to training prompts of one language."""
    settings = recipe.distill

    pairs = read_part(corpus, "train")[: settings.prompts]
    prompts = _prompts(pairs, recipe, language, target)
    total = len(prompts) * len(settings.temperatures)
    decoder, stop = _decoder(target, None, prompts, settings)
    for done in distill(decoder, prompts, settings, stop, stage.folder / "answers.jsonl"):
        yield done, total
    stage.finish(answers=total)


def prepare_finetuning(stage: Stage, recipe: Recipe, answers: Stage) -> Steps:
    """Rows of prompts and the target's answers; the loss is on the answers."""

    answered = [answer.document for answer in read_answers(answers.folder / "answers.jsonl")]
    pack(answered, recipe.finetune.row_length, recipe.finetune.seed).save(stage.folder / "rows")
    yield 1, 1


def evaluate_drafters(
    stage: Stage, recipe: Recipe, corpus: Stage, language: str, target: Path, drafters: dict[str, Path]
) -> Steps:
    """Acceptance of each drafter by the target, on the language's test sentences."""

    settings = recipe.evaluate
    prompts = _prompts(read_part(corpus, "test")[: settings.prompts], recipe, language, target)
    total = len(prompts) * len(settings.temperatures) * len(drafters)
    results: dict[str, Any] = {}
    for number, (name, drafter) in enumerate(drafters.items(), 1):
        decoder, stop = _decoder(target, drafter, prompts, settings, settings.draft_length)
        results[name] = msgspec.to_builtins(measure_acceptance(decoder, prompts, settings, stop))
        yield number * total // len(drafters), total
    stage.finish(acceptance=results)


def _prompts(pairs: Sequence[Pair], recipe: Recipe, language: str, target: Path) -> list[TokenIds]:

    return Prompter(load_tokenizer(target), recipe.prompt, language).prompts([p.source for p in pairs])


def _save_initial_drafter(stage: Stage, shape: ModelShape, target: Path, seed: int) -> None:
    """The drafter speaks the target's token ids: same tokenizer, same vocabulary size."""

    config = load_config(target).get_text_config()
    save_initial_model(
        stage.folder / "initial",
        shape,
        load_tokenizer(target),
        vocab_size=config.vocab_size,
        context_length=config.max_position_embeddings,
        seed=seed,
    )


def _decoder(
    target: Path,
    drafter: Path | None,
    prompts: Sequence[TokenIds],
    settings: DistillSettings | EvaluateSettings,
    draft_length: int = 1,
) -> tuple[Decoder, frozenset[int]]:
    """An in-process decoder, and the target's stop tokens."""
    decoder = build_decoder(
        load_model(target),
        load_model(drafter) if drafter else None,
        max_length=max(map(len, prompts)) + settings.max_tokens,
        concurrency=settings.concurrency,
        draft_length=draft_length,
    )
    return decoder, frozenset({load_tokenizer(target).eos_token_id})
