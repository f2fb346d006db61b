"""A training run made by hand, in moments, for the studies of the evaluation lab."""

from __future__ import annotations

from pathlib import Path

import msgspec
import tiny
from tiny_tokenizer import byte_level

from cluster.config import load_config
from train.corpus import PARTS
from train.evaluation.lab import Lab
from train.evaluation.settings import LabSettings
from train.pair import Pair
from train.recipe import Recipe

LANGUAGES = ("de", "fr")


def pairs(language: str, count: int = 6) -> list[Pair]:
    return [Pair(f"{language} {chr(97 + n)}{n}", f"text {chr(97 + n)}") for n in range(count)]


def make_run(folder: Path) -> Path:
    """A run's folder with all that a training run leaves behind: corpora, drafters, and the target."""
    tokenizer, target = byte_level(), tiny.model(vocabulary=len(byte_level()))
    drafters = {"generic/pretrain": 3.0, "generalist/finetune": 0.2}
    for number, language in enumerate(LANGUAGES):
        drafters |= {f"{language}/{name}": 0.1 + 0.2 * number for name in ("pretrain", "finetune-alone", "finetune")}
        (folder / language / "corpus").mkdir(parents=True)
        for part in PARTS:
            lines = [msgspec.json.encode(Pair(f"{part} {p.source}", p.english)) for p in pairs(language)]
            (folder / language / "corpus" / f"{part}.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    models = {folder / name / "model": tiny.perturbed(target, amount) for name, amount in drafters.items()}
    for path, model in {**models, folder / "target" / "model": target}.items():
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
    return folder


def settings(**changes: object) -> LabSettings:
    small = LabSettings(
        questions=4,
        repetitions=1,
        draft_length=2,
        draft_lengths=(1, 2),
        max_tokens=8,
        domain_questions=4,
        peer_questions=2,
        law_texts=12,
        concurrency=3,
    )
    return msgspec.structs.replace(small, **changes)


def make_lab(run: Path, chosen: LabSettings) -> Lab:
    def no_plan(recipe: Recipe) -> None:
        raise AssertionError("nothing is to be trained here")

    recipe = load_config("lab").train
    target = run / "target" / "model"
    return Lab(recipe, chosen, LANGUAGES, run=run, target=target, data="", plan=no_plan)  # type: ignore[arg-type]
