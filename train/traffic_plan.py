"""What `--from-traffic` does: one language's served prompts make its published drafter better, or nothing changes.

    served prompts ─▶ corpus-traffic ─▶ distill-traffic ─┐
                                        distill ─────────┴▶ finetune-traffic ─▶ evaluate ─▶ publish/traffic
                                        published drafter ─┘

Finetuning goes on from the published drafter, on as many ordinary answers: what it can it shall not forget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from train import tasks, traffic_tasks
from train.plan import Plan
from train.publishing import Place
from train.recipe import Recipe
from train.selection import with_needs
from train.stages import Stage
from train.step import Step
from train.traffic import Start


class TrafficPlan(Plan):
    """The steps of a recipe, and those that improve the drafters of some languages.

    Args:
        starts: by language.
    """

    def __init__(self, recipe: Recipe, languages: Sequence[str], starts: Mapping[str, Start], **run: Any) -> None:
        super().__init__(recipe, languages, **run)
        self._corpora = {language: self.steps[f"{language}/corpus"].stage for language in languages}
        self._rounds = {language: self._improve(language, start) for language, start in starts.items()}

    @property
    def improvements(self) -> dict[str, Step]:
        """The last steps, and all that they need."""
        return with_needs(self.steps, [last.name for _, last in self._rounds.values()])

    @property
    def unfinished(self) -> bool:
        """Whether some language's prompts are prepared, and nothing is decided yet: that work would be lost."""
        return any(prepared.done and not last.done for prepared, last in self._rounds.values())

    def _improve(self, language: str, start: Start) -> tuple[Stage, Stage]:
        """Its first stage and its last."""
        recipe, target = self._recipe, self.target
        texts = {language: self._corpora[language]}
        prepared = self._graph.add(
            f"{language}/corpus-traffic",
            traffic_tasks.prepare_traffic,
            (recipe, language, self._corpora, target, start.prompts),
            self._corpora.values(),
            prompts=start.key,
            traffic=recipe.traffic,
            most_tokens=max(recipe.distill.max_tokens, recipe.evaluate.max_tokens),
        )
        answers = self._distill(f"{language}/distill-traffic", traffic_tasks.distill_traffic, language, prepared)
        ordinary, loop = self.steps[f"{language}/distill"].stage, recipe.traffic_finetuning
        made = self._train(
            f"{language}/finetune-traffic",
            traffic_tasks.prepare_traffic_finetuning,
            (recipe, texts, target, loop, answers, ordinary),
            [answers, ordinary, *texts.values()],
            loop,
            start.drafter,
            start=start.published.files,
        )
        return prepared, self._promote(language, texts, prepared, made, start)

    def _promote(self, language: str, texts: tasks.Texts, prepared: Stage, made: Stage, start: Start) -> Stage:
        recipe = self._recipe
        evaluated = self._evaluate(f"{language}/evaluate/finetune-traffic", texts, made)
        place = Place(registry=self._registry, name=language, force=self._force)
        drafter = made.folder / "model"
        return self._graph.add(
            f"{language}/publish/traffic",
            traffic_tasks.promote_if_better,
            (recipe, texts, prepared, self.target, drafter, evaluated, start, place, self._provenance),
            [made, evaluated, prepared, *texts.values()],
            gpus=recipe.evaluate.gpus,
            registry=self._registry,
            start=start.published.version,
            force=self._force,
            publish=recipe.publish,
        )
