"""Prompts that a drafter is judged by, or that it answers itself: sentences of its languages, in turns."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path

import msgspec

from common.models import load_config, load_tokenizer
from common.types import TokenIds
from train.corpus import sample_part
from train.documents import Prompter
from train.pair import CorpusError
from train.recipe import Recipe
from train.splitting import Part


class PromptReport(msgspec.Struct, frozen=True, kw_only=True):
    prompts: int
    too_long: int
    """Left out: with an answer they would exceed the target's context."""


class Prompts(msgspec.Struct, frozen=True, kw_only=True):
    tokens: list[TokenIds]
    """One language after the other in turns, so that the first few are of all of them."""
    report: PromptReport


def sample_prompts(
    recipe: Recipe, corpora: Mapping[str, Path], target: Path, part: Part, count: int, *, max_tokens: int
) -> Prompts:
    """Of at least `count` sentences, where the text has them, in equal shares.

    Raises CorpusError if a language has none, or none that leaves room for an answer of `max_tokens`.

    Args:
        corpora: folders of written corpora, by language.
    """
    tokenizer, share = load_tokenizer(target), -(-count // len(corpora))
    longest = load_config(target).get_text_config().max_position_embeddings - max_tokens
    fitting: dict[str, list[TokenIds]] = {}
    asked = 0
    for language, corpus in corpora.items():
        sources = [pair.source for pair in sample_part(corpus, part, share, recipe.corpus.seed)]
        if not sources:
            raise CorpusError(f"{language}: no sentences for {part}")
        prompts = Prompter(tokenizer, recipe.prompt, language).prompts(sources)
        fitting[language] = [prompt for prompt in prompts if len(prompt) <= longest]
        if not fitting[language]:
            raise CorpusError(f"{language}: no sentence for {part} makes a prompt of at most {longest} tokens")
        asked += len(prompts)
    tokens = [prompt for turn in zip_longest(*fitting.values()) for prompt in turn if prompt is not None]
    return Prompts(tokens=tokens, report=PromptReport(prompts=len(tokens), too_long=asked - len(tokens)))
