"""The work of the stages that make a better drafter of served prompts; see `tasks`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from common.models import load_config, load_tokenizer
from common.registry import Registry
from common.traffic import ServedPrompt
from common.types import TokenIds
from train.decontamination import HeldOut
from train.distillation.answers import Prompt
from train.distillation.distill import distill_stage
from train.distillation.store import read_counts
from train.evaluation.drafter import Evaluation, Models
from train.evaluation.improvement import Compared, Improvement, compare
from train.gate import NotWorthPublishing, check, check_improvement
from train.hashing import text_hash, text_key
from train.job import LoopSettings
from train.lines import read_lines, write_lines
from train.pair import CorpusError
from train.prompts import sample_prompts
from train.publishing import Place, publish
from train.recipe import Recipe, TrafficSettings
from train.sources import parts_of
from train.splitting import Part
from train.stages import Stage
from train.tasks import Steps, Texts, prepare_finetuning
from train.traffic import Start


class TrafficReport(msgspec.Struct, frozen=True, kw_only=True):
    train: int
    test: int
    contaminated: int
    """Left out: a part of the prompt is held out by some language's corpus."""
    too_long: int
    """Left out: with an answer they would exceed the target's context."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a drafter that was made of traffic."""

    start: str
    """The version that it was made from."""
    promoted: str | None
    """As which version, if it was."""
    why_not: str | None
    traffic: Compared
    ordinary: Compared


def prepare_traffic(stage: Stage, recipe: Recipe, language: str, corpora: Texts, target: Path, served: Path) -> Steps:
    """Tokenize, decontaminate against all that any corpus holds out, and split. Raises CorpusError for too little."""
    held_out = HeldOut()
    for name, corpus in corpora.items():
        held_out.load(name, corpus.folder)
    decoder, settings = msgspec.json.Decoder(ServedPrompt), recipe.traffic
    read = list(map(decoder.decode, read_lines(served)))
    clean = [prompt for prompt in read if not held_out.holds(_parts(prompt))]
    fitting = list(_fitting(recipe, clean, target))
    if len(fitting) < settings.min_prompts:
        raise CorpusError(f"{language}: {len(fitting)} prompts are left, traffic.min_prompts is {settings.min_prompts}")
    parts: dict[Part, list[Prompt]] = {"train": [], "test": []}
    for prompt in fitting:
        parts[_part(prompt, settings)].append(prompt)
    for part, prompts in parts.items():
        if not prompts:
            raise CorpusError(f"{language}: no served prompt for {part}, see traffic.held_out_share")
        write_lines(_path(stage, part), list(map(msgspec.json.encode, prompts)))
    report = TrafficReport(
        train=len(parts["train"]),
        test=len(parts["test"]),
        contaminated=len(read) - len(clean),
        too_long=len(clean) - len(fitting),
    )
    stage.finish(**msgspec.to_builtins(report))
    yield 1, 1


def distill_traffic(stage: Stage, recipe: Recipe, prepared: Stage, language: str, target: Path) -> Steps:
    """The target's answers to served prompts: its own law, whatever it was that clients were answered."""
    prompts = _read(prepared, "train")[: recipe.distill.prompts]
    yield from distill_stage(stage, prompts, language, target, recipe.distill)


def prepare_traffic_finetuning(
    stage: Stage, recipe: Recipe, texts: Texts, target: Path, loop: LoopSettings, traffic: Stage, ordinary: Stage
) -> Steps:
    """Rows of the answers to traffic, and of as many ordinary ones, at most: both are to be felt."""
    count = read_counts(traffic.folder / "answers").success
    yield from prepare_finetuning(stage, recipe, texts, target, loop, [traffic, ordinary], 2 * count, True)


def promote_if_better(
    stage: Stage,
    recipe: Recipe,
    texts: Texts,
    prepared: Stage,
    target: Path,
    drafter: Path,
    evaluated: Stage,
    start: Start,
    place: Place,
    provenance: dict[str, Any],
) -> Steps:
    """Compare the drafter with the one it was made from; publish and promote it if the gate lets it pass.

    That it does not is a result, too: the stage ends with the reason.
    """
    ordinary = _ordinary(recipe, texts, target)
    traffic = [prompt.tokens for prompt in _read(prepared, "test")[: recipe.evaluate.prompts]]
    found = _compare(recipe, target, start.drafter, drafter, traffic, ordinary)
    yield 1, 2
    own = msgspec.convert(evaluated.facts(), Evaluation)
    why_not, version = _objection(recipe, own, found, start, place, stage.key), None
    if why_not is None:
        made_of = {"prompts": start.key, "start": start.published.version} | msgspec.to_builtins(found)
        facts = {"stage": stage.key, "recipe": msgspec.to_builtins(recipe), "forced": place.force, "traffic": made_of}
        version = _publish(place, stage.key, drafter, target, own, provenance | facts)
    verdict = Verdict(
        start=start.published.version,
        promoted=version,
        why_not=why_not,
        traffic=found.traffic,
        ordinary=found.ordinary,
    )
    stage.finish(**msgspec.to_builtins(verdict))
    yield 2, 2


def _parts(served: ServedPrompt) -> list[str]:
    """What it may be about. A template may write a message's end, and the next one's beginning, on the same line."""
    return [part for text in (served.prompt, *served.messages) for part in parts_of(text)]


def _fitting(recipe: Recipe, served: Iterable[ServedPrompt], target: Path) -> Iterator[Prompt]:
    """In tokens, as the server makes them, where an answer has room."""
    tokenizer = load_tokenizer(target)
    answer = max(recipe.distill.max_tokens, recipe.evaluate.max_tokens)
    longest = load_config(target).get_text_config().max_position_embeddings - answer
    for prompt in served:
        tokens = tokenizer.encode(prompt.prompt, add_special_tokens=not prompt.rendered)
        if 0 < len(tokens) <= longest:
            yield Prompt(prompt.prompt, tuple(tokens))


def _part(prompt: Prompt, settings: TrafficSettings) -> Part:
    position = text_hash(text_key(prompt.text), f"traffic {settings.seed}") / 2**64
    return "test" if position < settings.held_out_share else "train"


def _read(prepared: Stage, part: Part) -> list[Prompt]:
    """In the order of a hash, so that the first are like the others."""
    prompts = map(msgspec.json.Decoder(Prompt).decode, read_lines(_path(prepared, part)))
    return sorted(prompts, key=lambda prompt: text_hash(prompt.text))


def _path(prepared: Stage, part: Part) -> Path:
    return prepared.folder / f"{part}.jsonl"


def _ordinary(recipe: Recipe, texts: Texts, target: Path) -> list[TokenIds]:
    corpora, settings = {language: corpus.folder for language, corpus in texts.items()}, recipe.evaluate
    return sample_prompts(recipe, corpora, target, "test", settings.prompts, max_tokens=settings.max_tokens).tokens


def _compare(
    recipe: Recipe, target: Path, old: Path, new: Path, traffic: list[TokenIds], ordinary: list[TokenIds]
) -> Improvement:
    def measure(drafter: Path) -> tuple[list[Any], list[Any]]:
        models = Models(target, drafter, recipe.evaluate)
        return models.texts(traffic), models.texts(ordinary)

    before, after = measure(old), measure(new)
    return Improvement(traffic=compare(before[0], after[0]), ordinary=compare(before[1], after[1]))


def _objection(recipe: Recipe, own: Evaluation, found: Improvement, start: Start, place: Place, key: str) -> str | None:
    if place.force:
        return None
    current = Registry(place.registry).current(place.name)
    if current is None or (current.version != start.published.version and current.provenance.get("stage") != key):
        return f"{start.published.version} is not current any more"
    try:
        check(recipe.publish, own, None)
        check_improvement(found)
    except NotWorthPublishing as objection:
        return str(objection)
    return None


def _publish(place: Place, key: str, drafter: Path, target: Path, own: Evaluation, provenance: dict[str, Any]) -> str:
    """Unless an interrupted run has done so already."""
    made = place.published(key)
    if made is None:
        return publish(place, drafter, target, own, provenance).version
    Registry(place.registry).promote(place.name, made.version)
    return made.version
