"""One drafter judged as a whole: what its target accepts of it, and the time that saves."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import msgspec
import torch

from common.engine.decoding import Decoder, build_decoder
from common.engine.drafters import load_drafter
from common.models import load_model, load_tokenizer
from common.types import TokenIds
from train.evaluation.acceptance import Acceptance, measure_acceptance, requests_at
from train.evaluation.speed import Speed, measure_speed
from train.recipe import EvaluateSettings


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """One entry a temperature."""

    acceptance: list[Acceptance]
    speed: list[Speed]

    @property
    def mean_length(self) -> float:
        """Mean acceptance length, averaged over the temperatures."""
        return sum(at.mean_acceptance_length for at in self.acceptance) / len(self.acceptance)

    def metrics(self) -> dict[str, float]:
        """Flat, for the manifest: ``mean_acceptance_length/T=0``; ``accepted_at_1/T=0`` is of first drafted tokens."""
        named = {f"{name}/T={at.temperature:g}": getattr(at, name) for name in ACCEPTANCE for at in self.acceptance}
        positions = {
            f"accepted_at_{position}/T={at.temperature:g}": share
            for at in self.acceptance
            for position, share in enumerate(at.accepted_per_position, 1)
        }
        return named | positions | {f"speedup/T={at.temperature:g}": at.speedup for at in self.speed}


ACCEPTANCE = ("mean_acceptance_length", "acceptance_rate")


def evaluate(
    target: Path, drafter: Path, prompts: Sequence[TokenIds], settings: EvaluateSettings
) -> Generator[tuple[int, int], None, Evaluation]:
    """Measure the drafter on `prompts`; yields how much is done, out of how much."""
    stop = frozenset({load_tokenizer(target).eos_token_id})
    total = 1 + len(settings.temperatures)
    decoder = _decoder(target, drafter, prompts, settings, settings.concurrency)
    acceptance = measure_acceptance(decoder, prompts, settings, stop)
    yield 1, total
    timed = prompts[: settings.speed_prompts]
    plain = _decoder(target, None, timed, settings, settings.speed_concurrency)
    speculative = _decoder(target, drafter, timed, settings, settings.speed_concurrency)
    speed: list[Speed] = []
    for temperature in settings.temperatures:
        speed.append(measure_speed(plain, speculative, requests_at(temperature, timed, settings, stop), settings))
        yield 1 + len(speed), total
    return Evaluation(acceptance=acceptance, speed=speed)


def _decoder(
    target: Path, drafter: Path | None, prompts: Sequence[TokenIds], settings: EvaluateSettings, concurrency: int
) -> Decoder:
    # Ray hides GPUs from a task that has asked for none.
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_drafter(drafter) if drafter else None
    return build_decoder(
        load_model(target).to(device),
        model.to(device) if isinstance(model, torch.nn.Module) else model,
        max_length=max(map(len, prompts)) + settings.max_tokens,
        concurrency=concurrency,
        draft_length=settings.draft_length,
    )
