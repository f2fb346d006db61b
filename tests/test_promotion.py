"""A drafter follows its registry: what is promoted replaces what serves, if it fits the target and can be loaded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from common.models import Fingerprint, ModelError
from common.registry import Registry
from common.storage import RegistryError
from serve import model_replica
from serve.model_replica import Drafter
from serve.settings import ReplicaSettings, ServeSettings

TARGET = Fingerprint(tokens="ab", special_tokens={"eos": 1}, vocab_size=64, context_length=4096)
SMALL = msgspec.structs.replace(TARGET, vocab_size=60, context_length=2048)
SETTINGS = ServeSettings(promotion_poll_s=0.005, verifier=ReplicaSettings(kv_tokens=1024))


class Host:
    """Stands in for `ModelHost`."""

    num_leases = num_sessions = 0
    errors: dict[str, Exception]
    """What loading a version fails of."""
    loaded: list[str]

    @classmethod
    async def start(cls, folder: Path, name: str, *settings: object) -> Host:
        cls.loaded.append(name)
        if name in cls.errors:
            raise cls.errors[name]
        made = cls()
        made.name = name  # type: ignore[attr-defined]
        return made

    async def stop(self) -> None: ...
    def check_health(self) -> None: ...


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> type[Host]:
    Host.errors, Host.loaded = {}, []
    monkeypatch.setattr(model_replica, "ModelHost", Host)
    return Host


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    return Registry(tmp_path / "registry")


def promote(registry: Registry, fingerprint: Fingerprint) -> str:
    model = Path(registry.root).parent / "model"
    made = registry.publish("de", model, target="t", fingerprint=fingerprint, metrics={}, provenance={})
    registry.promote("de", made.version)
    return made.version


@asynccontextmanager
async def drafter(registry: Registry) -> AsyncIterator[Any]:
    made: Any = object.__new__(Drafter)
    await made.__init__(TARGET, registry.root, "de", f"{registry.root}-cache", SETTINGS)
    yield made
    made.check_health()
    made._following.cancel()
    await asyncio.wait([made._following])


async def until_it_serves(drafter: Any, version: str) -> None:
    async with asyncio.timeout(5):
        while drafter._host.name != f"de/{version}":
            drafter.check_health()
            await asyncio.sleep(0.005)


async def polls(count: int = 5) -> None:
    await asyncio.sleep(count * 10 * SETTINGS.promotion_poll_s)


@pytest.mark.parametrize(("first", "second"), [(SMALL, TARGET), (TARGET, SMALL)])
async def test_whatever_fits_the_target_replaces_whatever_served(
    registry: Registry, first: Fingerprint, second: Fingerprint
) -> None:
    """Wider padding or a shorter context than the version before are no reason against it."""
    promote(registry, first)
    async with drafter(registry) as serving:
        await until_it_serves(serving, promote(registry, second))


@pytest.mark.parametrize("change", [{"tokens": "cd"}, {"vocab_size": 65}, {"context_length": 1023}])
async def test_what_does_not_fit_the_target_is_refused_once_and_the_next_version_is_taken(
    registry: Registry, host: type[Host], change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    promote(registry, TARGET)
    async with drafter(registry) as serving:
        promote(registry, msgspec.structs.replace(TARGET, **change))
        await polls()
        assert host.loaded == ["de/v0001"]
        assert caplog.text.count("v0002 cannot be used") == 1
        await until_it_serves(serving, promote(registry, TARGET))


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), NotImplementedError(), ModelError("broken")])
async def test_a_version_that_cannot_be_loaded_leaves_the_one_that_serves(
    registry: Registry, host: type[Host], error: Exception
) -> None:
    first = promote(registry, TARGET)
    host.errors["de/v0002"] = error
    async with drafter(registry) as serving:
        promote(registry, TARGET)
        await polls()
        serving.check_health()
        assert serving._host.name == "de/v0001" and host.loaded.count("de/v0002") == 1
        host.errors.clear()
        registry.promote("de", first)
        await polls()
        registry.promote("de", "v0002")
        await until_it_serves(serving, "v0002")


async def test_a_version_that_cannot_be_fetched_is_tried_again(registry: Registry, host: type[Host]) -> None:
    promote(registry, TARGET)
    host.errors["de/v0002"] = RegistryError("no connection")
    async with drafter(registry) as serving:
        promote(registry, TARGET)
        await polls()
        assert serving._host.name == "de/v0001" and host.loaded.count("de/v0002") > 1
        host.errors.clear()
        await until_it_serves(serving, "v0002")
