"""What a run consists of: its steps by the names of their stages, each with what it needs, before anything is done.

    corpus ─▶ target? ─▶ pretrain ─▶ finetune ─▶ evaluate ─▶ publish
                    └──▶ distill ──────┘

So it is for every language, and for the generalist on the texts and answers of all of them. Drafters that are made for
comparison (the generic one, pretraining alone, finetuning alone, variants) end with `evaluate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from common.languages import GENERALIST
from train import tasks
from train.capacity import Request
from train.fingerprint import fingerprints
from train.graph import Graph
from train.job import LoopSettings
from train.provenance import provenance
from train.publishing import Place
from train.recipe import Recipe, RefreshStage
from train.shapes import DrafterInit, NgramSettings
from train.stages import Stage, hash_folder
from train.step import Step, Training

GENERIC = "generic"
"""Stands where a language would, for the drafter trained on English text only."""
ALONE = "finetune-alone"
"""The stage of a drafter that was finetuned without having been pretrained."""


class Plan:
    """All steps of a recipe, each after those that it needs.

    Args:
        run: folder of the run.
        data: fills {data} in the corpus sources.
        target: folder of the target model; None if the recipe makes one.
        registry: where the drafters are published; with `force` also those that the gate would refuse.
    """

    def __init__(
        self,
        recipe: Recipe,
        languages: Sequence[str],
        *,
        run: Path,
        data: str,
        target: Path | None,
        registry: str,
        force: bool = False,
    ) -> None:
        self._graph = Graph(run)
        self._recipe, self._run, self._registry, self._force = recipe, run, registry, force
        self._provenance = provenance()
        self._checkpoint_inputs = _checkpoint_inputs(recipe.initial)
        texts = {lang: self._corpus(lang, data) for lang in languages}
        self.target = self._made_target(texts) if target is None else self._given_target(target)
        answers = {
            lang: self._distill(f"{lang}/distill", tasks.distill_answers, lang, corpus, prompt=recipe.prompt)
            for lang, corpus in texts.items()
        }
        baselines: dict[str, Stage] = {}
        if recipe.generic:
            baselines[GENERIC] = self._generic(texts)
        if recipe.generalist:
            baselines[GENERALIST] = self._specialist(GENERALIST, texts, list(answers.values()))
        for lang in languages:
            self._language(lang, {lang: texts[lang]}, answers[lang], baselines)

    @property
    def steps(self) -> dict[str, Step]:
        """By the names of their stages."""
        return self._graph.steps

    def _corpus(self, lang: str, data: str) -> Stage:
        recipe, name = self._recipe, f"{lang}/corpus"
        files = fingerprints(recipe.corpus.sources, lang, data)
        inputs: dict[str, Any] = {"corpus": recipe.corpus, "language": lang, "data": data, "files": files}
        return self._graph.add(name, tasks.prepare_corpus, (recipe, lang, data), [], **inputs)

    def _given_target(self, folder: Path) -> Path:
        self._graph.share(target=hash_folder(folder))
        return folder

    def _made_target(self, texts: tasks.Texts) -> Path:
        recipe, settings = self._recipe, self._recipe.target
        assert settings is not None
        folder = self._run / "target"
        made = self._graph.add(
            "target",
            tasks.prepare_target,
            (recipe, settings, texts),
            texts.values(),
            training=Training(
                initial=folder / "initial",
                loop=settings.loop,
                workers=settings.workers,
                target=None,
                evaluate=recipe.evaluate,
            ),
            settings=settings.inputs,
            prompt=recipe.prompt,
        )
        self._graph.share(target=made)
        return folder / "model"

    def _distill(self, name: str, work: Callable[..., tasks.Steps], language: str, text: Stage, **inputs: Any) -> Stage:
        recipe, settings = self._recipe, self._recipe.distill
        actors = Request(setting="train.distill", cpus=settings.cpus_per_actor, gpus=settings.gpus_per_actor)
        return self._graph.add(
            name,
            work,
            (recipe, text, language, self.target),
            [text],
            actors=actors if settings.on_actors else None,
            distill=settings.inputs,
            **inputs,
        )

    def _generic(self, texts: tasks.Texts) -> Stage:
        """As many steps as a specialist gets in both its stages."""
        recipe = self._recipe
        loop = msgspec.structs.replace(recipe.pretrain, steps=recipe.pretrain.steps + recipe.finetune.steps)
        name, arguments = f"{GENERIC}/pretrain", (recipe, texts, self.target)
        return self._train(name, tasks.prepare_generic, arguments, texts.values(), loop, **self._drafter())

    def _specialist(self, name: str, texts: tasks.Texts, answers: Sequence[Stage]) -> Stage:
        """The drafter that is published as `name`."""
        recipe = self._recipe
        arguments = (recipe, texts, self.target)
        inputs = {"prompt": recipe.prompt, **self._drafter()}
        pretrained = self._train(
            f"{name}/pretrain", tasks.prepare_pretraining, arguments, texts.values(), recipe.pretrain, **inputs
        )
        made = self._finetune(f"{name}/finetune", recipe.finetune, texts, pretrained, answers)
        if recipe.refresh is not None:
            made = self._refresh(f"{name}/refresh", recipe.refresh, texts, made)
        self._publish(name, name, texts, made)
        return made

    def _refresh(self, name: str, settings: RefreshStage, texts: tasks.Texts, finetuned: Stage) -> Stage:
        drafter, needs = finetuned.folder / "model", [finetuned, *texts.values()]
        arguments = (self._recipe, texts, self.target, drafter)
        inputs = {"answers": settings.answers.inputs, "prompt": self._recipe.prompt}
        return self._train(name, tasks.prepare_refresh, arguments, needs, settings.loop, drafter, **inputs)

    def _ngram(self, lang: str, settings: NgramSettings, texts: tasks.Texts, answers: Stage) -> None:
        recipe, needs = self._recipe, [answers, *texts.values()]
        arguments = (recipe, texts, self.target, [answers])
        made = self._graph.add(
            f"{lang}/ngram", tasks.make_ngram, arguments, needs, ngram=settings, prompt=recipe.prompt
        )
        self._publish(lang, f"{lang}-ngram", texts, made)

    def _language(self, lang: str, texts: tasks.Texts, answers: Stage, baselines: dict[str, Stage]) -> None:
        recipe = self._recipe
        self._specialist(lang, texts, [answers])
        if recipe.ngram is not None:
            self._ngram(lang, recipe.ngram, texts, answers)
        pretrained = self.steps[f"{lang}/pretrain"].stage
        compared = dict(baselines)
        if recipe.ablations:
            compared["pretrain"] = pretrained
            compared[ALONE] = self._finetune(f"{lang}/{ALONE}", recipe.finetune, texts, None, [answers])
        if recipe.refresh is not None:
            compared["finetune"] = self.steps[f"{lang}/finetune"].stage
        for variant, settings in recipe.variants.items():
            name, loop = f"finetune-{variant}", recipe.finetuning(variant)
            start = pretrained if settings.pretrained else None
            compared[name] = self._finetune(f"{lang}/{name}", loop, texts, start, [answers], settings.answers)
        for name, model in compared.items():
            self._evaluate(f"{lang}/evaluate/{name}", texts, model)

    def _finetune(
        self,
        name: str,
        loop: LoopSettings,
        texts: tasks.Texts,
        pretrained: Stage | None,
        answers: Sequence[Stage],
        most: int | None = None,
    ) -> Stage:
        """Of a pretrained drafter, or of one that is not trained at all; on `most` answers, if not on all."""
        work, arguments = tasks.prepare_finetuning, (self._recipe, texts, self.target, loop, answers, most)
        needs = [*answers, *texts.values()]
        inputs: dict[str, Any] = {} if most is None else {"answers": most}
        if pretrained is None:
            seed = self._recipe.pretrain.seed
            return self._train(name, work, (*arguments, False), needs, loop, seed=seed, **inputs, **self._drafter())
        initial = pretrained.folder / "model"
        return self._train(name, work, (*arguments, True), [pretrained, *needs], loop, initial, **inputs)

    def _drafter(self) -> dict[str, Any]:
        """The inputs of a stage that makes an untrained drafter."""
        recipe = self._recipe
        inputs = {"drafter": recipe.drafter, "weights": recipe.initial, "vocabulary": recipe.vocabulary}
        return inputs | self._checkpoint_inputs

    def _publish(self, owner: str, registered: str, texts: tasks.Texts, model: Stage) -> None:
        which = model.name.partition("/")[2]
        evaluated = self._evaluate(f"{owner}/evaluate/{which}", texts, model)
        place = Place(registry=self._registry, name=registered, force=self._force)
        arguments = (self._recipe, texts, self.target, model.folder / "model", evaluated, place, self._provenance)
        name, needs = f"{owner}/publish/{which}", [model, evaluated, *texts.values()]
        gpus = self._recipe.evaluate.gpus  # it may have to evaluate the promoted one
        self._graph.add(name, tasks.publish_drafter, arguments, needs, place=place, gpus=gpus, registry=self._registry)

    def _evaluate(self, name: str, texts: tasks.Texts, model: Stage) -> Stage:
        recipe = self._recipe
        arguments, needs = (recipe, texts, self.target, model.folder / "model"), [model, *texts.values()]
        inputs: dict[str, Any] = {"evaluate": recipe.evaluate.inputs, "prompt": recipe.prompt}
        return self._graph.add(name, tasks.evaluate_drafter, arguments, needs, gpus=recipe.evaluate.gpus, **inputs)

    def _train(
        self,
        name: str,
        work: Callable[..., tasks.Steps],
        arguments: tuple[Any, ...],
        needs: Iterable[Stage],
        loop: LoopSettings,
        initial: Path | None = None,
        **inputs: Any,
    ) -> Stage:
        """A step that trains a drafter, from `initial` or from what `work` leaves."""
        training = Training(
            initial=initial or self._run / name / "initial",
            loop=loop,
            workers=self._recipe.workers,
            target=self.target,
            evaluate=self._recipe.evaluate,
        )
        if loop.validate_every:
            inputs["validation"] = self._recipe.evaluate.validation_inputs
        return self._graph.add(name, work, arguments, needs, training=training, loop=loop.inputs, **inputs)


def _checkpoint_inputs(settings: DrafterInit) -> dict[str, str]:
    """What is in the folder that drafters begin with, if they do; a model of the hub is known by its name alone."""
    if settings.checkpoint is None or not Path(settings.checkpoint).is_dir():
        return {}
    return {"checkpoint": hash_folder(Path(settings.checkpoint))}
