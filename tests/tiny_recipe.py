"""A recipe and text so small that a whole run takes seconds."""

from __future__ import annotations

from pathlib import Path

import msgspec

from cluster.config import load_config
from train.recipe import PublishSettings, Recipe


def tiny_recipe() -> Recipe:
    """The quickstart's, made small."""
    replace = msgspec.structs.replace
    recipe = load_config("quickstart").train
    assert recipe.target is not None
    shape = replace(recipe.drafter, hidden_size=16, num_heads=2, intermediate_size=32)
    loop = replace(recipe.pretrain, steps=3, rows_per_step=4, row_length=64, micro_rows=2)
    return replace(
        recipe,
        corpus=replace(recipe.corpus, min_pairs=10, valid_share=0.1, test_share=0.2),
        target=replace(recipe.target, shape=shape, vocab_size=400, loop=replace(loop, zero_stage=1)),
        drafter=shape,
        pretrain=loop,
        distill=replace(recipe.distill, prompts=5, concurrency=4, max_tokens=6, shard_answers=4),
        finetune=loop,
        evaluate=replace(recipe.evaluate, prompts=3, max_tokens=6, speed_prompts=1),
        publish=PublishSettings(require_speedup=None),
    )


def write_text(folder: Path, language: str, source: str) -> None:
    lines = "".join(f"{source.format(number)}\tNumber {number} is here.\n" for number in range(60))
    (folder / f"{language}.tsv").write_text(lines, encoding="utf8")
