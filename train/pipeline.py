"""All languages from text to published drafters, stage by stage, on the cluster's resources.

    corpus ─▶ target? ─▶ pretrain ─▶ finetune ─▶ evaluate ─▶ publish
                    └──▶ distill ──────┘

Within a stage all languages run at the same time: training in one TorchTrainer per language, everything else as one
Ray task per language. A stage whose inputs are unchanged is skipped. Text that cannot be read ends the run at once; a
language that fails later drops out, the others go on, and the failure is told at the end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from common.models import fingerprint, load_config, load_tokenizer, mismatch
from common.registry import Manifest, Registry
from train import tasks
from train.display import Display
from train.executor import Executor
from train.job import LoopSettings
from train.provenance import provenance
from train.recipe import Recipe
from train.stages import Stage, hash_folder, stage

GENERIC = "generic"
"""Stands where a language would, for the drafter trained on English text only."""

Stages = dict[str, Stage]


class PipelineError(RuntimeError):
    """Languages that could not be finished; the message names each and why."""


class Target(msgspec.Struct, frozen=True):
    folder: Path
    key: str
    """Identifies its weights."""


class Pipeline:
    """One run of a recipe.

    Args:
        run: folder of the run, on storage that every machine sees.
        data: fills {data} in the corpus sources.
        target: folder of the target model; None if the recipe makes one.
        registry: where the drafters are published.
    """

    def __init__(
        self, recipe: Recipe, languages: list[str], *, run: Path, data: str, target: Path | None, registry: str
    ) -> None:
        self._recipe = recipe
        self._languages = languages
        self._run = run.resolve()
        self._data = data
        self._given_target = target
        self._registry = Registry(registry)
        self._executor = Executor(self._run / "ray", Display())

    def run(self) -> dict[str, Manifest]:
        """Do what is not done yet; returns each language's published drafter.

        Raises PipelineError at the end if a language failed.
        """
        corpora = self._corpora()
        self._raise_failures()  # text that cannot be read is told now, not after hours of work on the rest
        target = self._target(corpora)
        pretrained = self._pretrained(corpora, target)
        generic = pretrained.pop(GENERIC, None)
        answers = self._answers(corpora, target)
        finetuned = self._finetuned(pretrained, answers)
        evaluated = self._evaluated(corpora, target, finetuned, generic)
        published = {lang: self._publish(lang, finetuned[lang], evaluated[lang], target) for lang in evaluated}
        self._raise_failures()
        return published

    def _corpora(self) -> Stages:
        recipe, data = self._recipe, self._data
        stages = {lang: stage(self._run, f"{lang}/corpus", recipe.corpus, lang, data) for lang in self._languages}
        self._executor.run("corpus", stages, tasks.prepare_corpus, lambda lang: (recipe, lang, data))
        return self._executor.alive(stages)

    def _target(self, corpora: Stages) -> Target:
        """The target that was given, or the one that the recipe makes."""
        recipe, settings = self._recipe, self._recipe.target
        if settings is None:
            assert self._given_target is not None
            return Target(self._given_target, hash_folder(self._given_target))
        made = stage(self._run, "target", settings, recipe.prompt, *corpora.values())
        self._executor.run("rows", {"target": made}, tasks.prepare_target, lambda _: (recipe, settings, corpora))
        initial, loop = made.folder / "initial", settings.loop
        self._executor.train("target", {"target": made}, {"target": initial}, {"target": loop}, settings.workers)
        self._raise_failures()
        return Target(made.folder / "model", made.key)

    def _pretrained(self, corpora: Stages, target: Target) -> Stages:
        """Of every language, and the generic one if the recipe wants it."""
        recipe, loop = self._recipe, self._recipe.pretrain
        stages = {
            lang: stage(self._run, f"{lang}/pretrain", loop, recipe.drafter, recipe.prompt, target.key, corpus)
            for lang, corpus in corpora.items()
        }
        self._executor.run(
            "rows", stages, tasks.prepare_pretraining, lambda lang: (recipe, corpora[lang], lang, target.folder)
        )
        loops = dict.fromkeys(stages, loop)
        if recipe.generic:
            # As many steps as a specialist gets in both its stages.
            loops[GENERIC] = msgspec.structs.replace(loop, steps=loop.steps + recipe.finetune.steps)
            stages[GENERIC] = self._generic(corpora, target, loops[GENERIC])
        initial = {name: s.folder / "initial" for name, s in stages.items()}
        self._executor.train("pretrain", stages, initial, loops, recipe.workers)
        return self._executor.alive(stages)

    def _generic(self, corpora: Stages, target: Target, loop: LoopSettings) -> Stage:
        """The baseline's stage, its rows prepared."""
        recipe, english_of = self._recipe, list(corpora.values())
        made = stage(self._run, f"{GENERIC}/pretrain", loop, recipe.drafter, target.key, *english_of)
        self._executor.run(
            "rows", {GENERIC: made}, tasks.prepare_generic, lambda _: (recipe, english_of, target.folder)
        )
        return made

    def _answers(self, corpora: Stages, target: Target) -> Stages:
        recipe = self._recipe
        stages = {
            lang: stage(self._run, f"{lang}/distill", recipe.distill, recipe.prompt, target.key, corpus)
            for lang, corpus in corpora.items()
        }
        self._executor.run(
            "distill", stages, tasks.distill_answers, lambda lang: (recipe, corpora[lang], lang, target.folder)
        )
        return self._executor.alive(stages)

    def _finetuned(self, pretrained: Stages, answers: Stages) -> Stages:
        recipe, loop = self._recipe, self._recipe.finetune
        stages = {
            lang: stage(self._run, f"{lang}/finetune", loop, pretrained[lang], answers[lang])
            for lang in answers
            if lang in pretrained
        }
        self._executor.run("rows", stages, tasks.prepare_finetuning, lambda lang: (recipe, answers[lang]))
        initial = {lang: pretrained[lang].folder / "model" for lang in stages}
        self._executor.train("finetune", stages, initial, dict.fromkeys(stages, loop), recipe.workers)
        return self._executor.alive(stages)

    def _evaluated(self, corpora: Stages, target: Target, finetuned: Stages, generic: Stage | None) -> Stages:
        recipe = self._recipe
        baseline = {GENERIC: generic} if generic is not None else {}
        stages = {
            lang: stage(
                self._run, f"{lang}/evaluate", recipe.evaluate, target.key, corpora[lang], s, *baseline.values()
            )
            for lang, s in finetuned.items()
        }

        def arguments(lang: str) -> tuple[Any, ...]:
            drafters = {name: s.folder / "model" for name, s in {lang: finetuned[lang], **baseline}.items()}
            return recipe, corpora[lang], lang, target.folder, drafters

        self._executor.run("evaluate", stages, tasks.evaluate_drafters, arguments)
        return self._executor.alive(stages)

    def _publish(self, language: str, finetuned: Stage, evaluated: Stage, target: Target) -> Manifest:
        """Publish and promote, unless just this drafter is the one that is current."""
        current = self._registry.current(language)
        if current is not None and current.provenance.get("stage") == evaluated.key:
            return current
        folder = finetuned.folder / "model"
        own = fingerprint(load_tokenizer(folder), load_config(folder))
        problem = mismatch(fingerprint(load_tokenizer(target.folder), load_config(target.folder)), own)
        assert problem is None, problem
        manifest = self._registry.publish(
            language,
            folder,
            target=str(target.folder),
            fingerprint=own,
            metrics=_metrics(evaluated.facts()["acceptance"]),
            provenance=provenance(stage=evaluated.key, recipe=msgspec.to_builtins(self._recipe)),
        )
        self._registry.promote(language, manifest.version)
        return manifest

    def _raise_failures(self) -> None:
        failures = self._executor.failures
        if failures:
            raise PipelineError("; ".join(f"{name}: {why}" for name, why in failures.items()))


def _metrics(acceptance: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Flat, for the manifest: ``de/mean_acceptance_length/T=0``."""
    return {
        f"{drafter}/{name}/T={result['temperature']:g}": result[name]
        for drafter, results in acceptance.items()
        for result in results
        for name in ("mean_acceptance_length", "acceptance_rate")
    }
