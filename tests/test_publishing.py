"""What counts as published, whoever decided since what is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.models import Fingerprint
from common.registry import Registry
from train.publishing import Place

FINGERPRINT = Fingerprint(tokens="ab" * 32, special_tokens={"eos": 1}, vocab_size=8, context_length=16)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Versions v0001 and v0002 of one drafter, made by the stages `old` and `new`; v0002 is current."""
    (tmp_path / "model.safetensors").touch()
    registry = Registry(tmp_path / "registry")
    for stage in ("old", "new"):
        made = registry.publish(
            "de", tmp_path, target="t", fingerprint=FINGERPRINT, metrics={}, provenance={"stage": stage}
        )
        registry.promote("de", made.version)
    return registry


def test_a_version_stays_published_when_another_one_is_current(registry: Registry) -> None:
    place = Place(registry=registry.root, name="de")
    assert place.note("new") is None
    registry.rollback("de")
    published = place.published("new")
    assert published is not None and published.version == "v0002"
    told = place.note("new")
    assert told is not None and "\n" not in told
    assert told.startswith("de: v0002 is published, but v0001 is current")
    assert place.note("old") is None


def test_what_was_never_published_is_not(registry: Registry) -> None:
    assert Place(registry=registry.root, name="de").published("other") is None
    assert Place(registry=registry.root, name="de").note("other") is None
    assert Place(registry=registry.root, name="fr").published("new") is None
