"""One drafter judged as a whole: what its target accepts of it, and the time that saves."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import msgspec
import torch
from transformers import PreTrainedModel

from common.engine.decoding import Decoder, build_decoder
from common.engine.drafters import DraftModel, load_drafter
from common.models import load_model, load_tokenizer, stop_token_ids
from common.types import SpeculationStats, TokenIds
from train.evaluation.acceptance import Acceptance, measure_acceptance, requests_at
from train.evaluation.speed import Speed, measure_speed
from train.recipe import EvaluateSettings

ACCEPTANCE = ("mean_acceptance_length", "acceptance_rate")
SPEEDUP = {"speedup": "value", "speedup_low": "low", "speedup_high": "high"}


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """One entry a temperature."""

    acceptance: list[Acceptance]
    speed: list[Speed]

    def metrics(self) -> dict[str, float]:
        """Flat, for the manifest: ``mean_acceptance_length/T=0``; ``accepted_at_1/T=0`` is of first drafted tokens;
        ``speedup_low`` and ``speedup_high`` are the ends of its interval."""
        named = {f"{name}/T={at.temperature:g}": getattr(at, name) for name in ACCEPTANCE for at in self.acceptance}
        positions = {
            f"accepted_at_{position}/T={at.temperature:g}": share
            for at in self.acceptance
            for position, share in enumerate(at.accepted_per_position, 1)
        }
        speeds = {
            f"{name}/T={at.temperature:g}": getattr(at.speedup, end)
            for name, end in SPEEDUP.items()
            for at in self.speed
        }
        return named | positions | speeds


def mean_length(acceptance: Sequence[Acceptance]) -> float:
    """Mean acceptance length, averaged over the temperatures."""
    return sum(at.mean_acceptance_length for at in acceptance) / len(acceptance)


class Models:
    """A target and a drafter, each in memory once, however many decoders they work in."""

    def __init__(self, target: Path, drafter: Path, settings: EvaluateSettings) -> None:
        self._settings = settings
        self._target: PreTrainedModel = load_model(target, dtype=settings.dtype).to(settings.device)
        model = load_drafter(drafter, dtype=settings.dtype)
        self._drafter: DraftModel = model.to(settings.device) if isinstance(model, torch.nn.Module) else model
        self._stop = stop_token_ids(target, load_tokenizer(target))

    def acceptance(
        self, prompts: Sequence[TokenIds], on_finish: Callable[[], object] = lambda: None
    ) -> list[Acceptance]:
        """One entry a temperature; `on_finish` is called once a text."""
        decoder = self._decoder(prompts, self._settings.concurrency, self._drafter)
        return measure_acceptance(decoder, prompts, self._settings, self._stop, on_finish)

    def texts(self, prompts: Sequence[TokenIds]) -> list[SpeculationStats]:
        """What speculation did for each prompt, over all temperatures."""
        decoder, settings = self._decoder(prompts, self._settings.concurrency, self._drafter), self._settings
        asked = [requests_at(temperature, prompts, settings, self._stop) for temperature in settings.temperatures]
        written = zip(*map(decoder.generate, asked), strict=True)
        return [sum((text.stats for text in texts), SpeculationStats()) for texts in written]

    def speeds(self, prompts: Sequence[TokenIds]) -> Iterator[Speed]:
        """One entry a temperature, as it is measured."""
        at_once, settings = self._settings.speed_concurrency, self._settings
        plain, speculative = (self._decoder(prompts, at_once, drafter) for drafter in (None, self._drafter))
        for temperature in settings.temperatures:
            requests = requests_at(temperature, prompts, settings, self._stop)
            yield measure_speed(plain, speculative, requests, settings)

    def _decoder(self, prompts: Sequence[TokenIds], concurrency: int, drafter: DraftModel | None) -> Decoder:
        return build_decoder(
            self._target,
            drafter,
            max_length=max(map(len, prompts)) + self._settings.max_tokens,
            concurrency=concurrency,
            draft_length=self._settings.draft_length,
        )


def evaluate(
    target: Path, drafter: Path, prompts: Sequence[TokenIds], settings: EvaluateSettings
) -> Generator[tuple[int, int], None, Evaluation]:
    """Measure the drafter on `prompts`; yields how much is done, out of how much."""
    models, total = Models(target, drafter, settings), 1 + len(settings.temperatures)
    acceptance = models.acceptance(prompts)
    yield 1, total
    speed: list[Speed] = []
    for measured in models.speeds(prompts[: settings.speed_prompts]):
        speed.append(measured)
        yield 1 + len(speed), total
    return Evaluation(acceptance=acceptance, speed=speed)
