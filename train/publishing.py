"""From a trained drafter to a published one: the gate, then the registry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from common.models import Fingerprint, fingerprint, load_config, load_tokenizer, mismatch
from common.registry import Manifest, Registry
from common.types import TokenIds
from train.evaluation.drafter import Evaluation, Models
from train.gate import check
from train.recipe import EvaluateSettings, PublishSettings


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a drafter is published."""

    registry: str
    name: str
    """A language's code, or another name in the registry."""
    force: bool = False
    """Whatever the gate says."""

    def published(self, key: str) -> Manifest | None:
        """The newest version with this key, whether it is the current one or not."""
        versions = Registry(self.registry).versions(self.name)
        return next((found for found in reversed(versions) if found.provenance.get("stage") == key), None)

    def note(self, key: str) -> str | None:
        """What to say of a version with this key that is not current: somebody has decided so, and it stays so."""
        own, current = self.published(key), Registry(self.registry).current(self.name)
        if own is None or current is None or own.version == current.version:
            return None
        promote = f"polydraft drafters promote {self.name} {own.version}"
        return f"{self.name}: {own.version} is published, but {current.version} is current and stays so ({promote})"


def judge(
    place: Place,
    own: Evaluation,
    target: Path,
    prompts: Sequence[TokenIds],
    settings: PublishSettings,
    evaluation: EvaluateSettings,
    scratch: Path,
) -> None:
    """Raises NotWorthPublishing. The promoted drafter's acceptance is measured anew, on the same prompts.

    `scratch` is a folder for it.
    """
    if place.force:
        return
    registry = Registry(place.registry)
    promoted = registry.current(place.name) if settings.keep_best else None
    rival = None
    if promoted is not None and mismatch(_fingerprint(target), promoted.fingerprint) is None:
        rival = Models(target, registry.fetch(promoted, scratch), evaluation).acceptance(prompts)
    check(settings, own, rival)


def publish(place: Place, drafter: Path, target: Path, own: Evaluation, provenance: dict[str, Any]) -> Manifest:
    """Publish and promote. The key of the stage, by which a version is found again, is in the provenance."""
    registry = Registry(place.registry)
    fits = _fingerprint(drafter)
    problem = mismatch(_fingerprint(target), fits)
    assert problem is None, problem
    manifest = registry.publish(
        place.name,
        drafter,
        target=str(target),
        fingerprint=fits,
        metrics=own.metrics(),
        provenance=provenance,
    )
    registry.promote(place.name, manifest.version)
    return manifest


def _fingerprint(folder: Path) -> Fingerprint:
    return fingerprint(load_tokenizer(folder), load_config(folder))
