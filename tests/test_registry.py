"""What is published stays whole; promotion and rollback happen entirely or not at all."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.drafters import drafters
from common.models import Fingerprint
from common.registry import Manifest, Registry, RegistryError
from common.storage import Storage

FINGERPRINT = Fingerprint(tokens="ab" * 32, special_tokens={"eos": 1}, vocab_size=8, context_length=16)
_numbers = itertools.count()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "extra").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "extra" / "config.json").write_text("{}")
    return folder


@pytest.fixture(params=["local", "memory"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    return Registry(str(tmp_path / "registry") if request.param == "local" else memory_root())


def memory_root() -> str:
    return f"memory://registry-{next(_numbers)}"


def publish(registry: Registry, model: Path, language: str = "de") -> Manifest:
    return registry.publish(
        language,
        model,
        target="target",
        fingerprint=FINGERPRINT,
        metrics={"mean_acceptance_length": 2.5},
        provenance={"seed": 1, "data": {"train": "sha"}},
    )


def test_a_published_version_is_not_current_until_promoted(registry: Registry, model: Path) -> None:
    manifest = publish(registry, model)
    assert manifest.version == "v0001"
    assert registry.current("de") is None
    registry.promote("de", "v0001")
    assert registry.current("de") == manifest
    assert registry.languages() == ["de"]


def test_a_fetched_version_has_the_published_files(registry: Registry, model: Path, tmp_path: Path) -> None:
    manifest = publish(registry, model)
    registry.verify(manifest)
    folder = registry.fetch(manifest, tmp_path / "cache")
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert (folder / "extra" / "config.json").read_text() == "{}"
    assert registry.fetch(manifest, tmp_path / "cache") == folder


def test_a_local_version_is_used_where_it_lies(model: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    manifest = publish(registry, model)
    assert registry.fetch(manifest, tmp_path / "cache") == tmp_path / "registry" / "de" / "v0001"
    assert not (tmp_path / "cache").exists()


def test_changed_or_missing_files_are_refused(model: Path, tmp_path: Path) -> None:
    root = memory_root()
    registry = Registry(root)
    manifest = publish(registry, model)
    registry.fetch(manifest, tmp_path / "cache")
    (tmp_path / "cache" / "de" / "v0001" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(RegistryError, match=r"de v0001: file model\.safetensors is not the one published"):
        registry.fetch(manifest, tmp_path / "cache")
    (model / "model.safetensors").write_bytes(b"evil")
    Storage(root).upload(model / "model.safetensors", "de", "v0001", "model.safetensors")
    for check in (registry.verify, lambda manifest: registry.fetch(manifest, tmp_path / "new")):
        with pytest.raises(RegistryError, match=r"de v0001: file model\.safetensors"):
            check(manifest)
    assert not (tmp_path / "new" / "de" / "v0001").exists()


@pytest.mark.parametrize(
    ("files", "reason"),
    [({}, "holds no safetensors"), ({"m.safetensors": "", "pytorch_model.bin": ""}, "pickled data")],
)
def test_what_is_not_safe_to_load_is_not_published(
    registry: Registry, tmp_path: Path, files: dict[str, str], reason: str
) -> None:
    for name, text in files.items():
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad" / name).write_text(text)
    with pytest.raises(RegistryError, match=reason):
        publish(registry, tmp_path / "bad")
    assert registry.versions("de") == []


def test_a_version_without_manifest_does_not_exist(
    registry: Registry, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(Storage, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            publish(registry, model)
    assert registry.languages() == []
    with pytest.raises(RegistryError, match="de: no version v0001"):
        registry.promote("de", "v0001")
    assert publish(registry, model).version == "v0002", "the number of an unfinished version is not used again"


def test_a_promotion_that_dies_while_writing_leaves_the_old_version_current(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path / "registry")
    for _ in range(2):
        publish(registry, model)
    registry.promote("de", "v0001")

    def die(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        registry.promote("de", "v0002")
    current = Registry(tmp_path / "registry").current("de")
    assert current is not None and current.version == "v0001"


def test_two_writers_never_share_a_version(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = memory_root()
    first, second = Registry(root), Registry(root)
    publish(first, model)
    # The second writer looked before the first one claimed its version.
    monkeypatch.setattr(second, "_claimed", lambda language: [])
    assert publish(second, model).version == "v0002"


def test_versions_are_in_the_order_of_their_numbers(registry: Registry, model: Path) -> None:
    Storage(registry.root).claim("de", "v9998", "claim")
    assert publish(registry, model).version == "v9999"
    assert publish(registry, model).version == "v10000"
    assert [manifest.version for manifest in registry.versions("de")] == ["v9999", "v10000"]


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden"])
def test_names_cannot_lead_out_of_the_registry(registry: Registry, model: Path, name: str) -> None:
    with pytest.raises(RegistryError, match="cannot name a language"):
        publish(registry, model, language=name)
    with pytest.raises(RegistryError, match="is not a version"):
        registry.promote("de", name)


def test_a_manifest_with_a_file_outside_its_folder_is_refused(model: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    publish(registry, model)
    manifest = tmp_path / "registry" / "de" / "v0001" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("extra/config.json", "../../config.json"))
    with pytest.raises(RegistryError, match=r"manifest\.json: .*lies outside"):
        registry.versions("de")


def test_broken_json_is_told_with_its_file(model: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    publish(registry, model)
    (tmp_path / "registry" / "de" / "current.json").write_text("{")
    with pytest.raises(RegistryError, match=r"current\.json: "):
        registry.current("de")


def test_an_unknown_kind_of_root_is_told() -> None:
    with pytest.raises(RegistryError, match="nosuch://x: Protocol not known"):
        Registry("nosuch://x")


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.just(0)),
        st.tuples(st.just("promote"), st.integers(1, 4)),
        st.tuples(st.just("rollback"), st.just(0)),
    ),
    max_size=15,
)


@settings(max_examples=40, deadline=None)
@given(operations=OPERATIONS)
def test_any_sequence_of_operations_does_what_the_words_say(
    operations: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Against a model that is a number of versions and a stack of those that were current."""
    model = tmp_path_factory.mktemp("model")
    (model / "model.safetensors").write_bytes(b"weights")
    registry, published, stack = Registry(memory_root()), 0, list[int]()
    for operation, number in operations:
        if operation == "publish":
            published += 1
            assert publish(registry, model).version == f"v{published:04d}"
        elif (operation == "promote" and number > published) or (operation == "rollback" and len(stack) < 2):
            with pytest.raises(RegistryError, match=r"^de: no "):
                registry.promote("de", f"v{number:04d}") if number else registry.rollback("de")
        elif operation == "promote":
            registry.promote("de", f"v{number:04d}")
            stack += [number] if stack[-1:] != [number] else []
        else:
            stack.pop()
            assert registry.rollback("de") == f"v{stack[-1]:04d}"
        current = registry.current("de")
        assert (current.version if current else None) == (f"v{stack[-1]:04d}" if stack else None)


def run(registry: Registry, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(drafters, [*arguments, "--registry", registry.root])
    return result.exit_code, result.output


def test_the_command_lists_promotes_and_rolls_back(registry: Registry, model: Path) -> None:
    publish(registry, model)
    publish(registry, model)
    assert run(registry, "promote", "de", "v0001") == (0, "de: v0001 is current\n")
    assert run(registry, "promote", "de", "v0002") == (0, "de: v0002 is current\n")
    assert run(registry, "rollback", "de") == (0, "de: v0001 is current\n")
    code, output = run(registry, "list")
    assert code == 0
    assert [("yes" in line) for line in output.splitlines() if "v000" in line] == [True, False]
    code, output = run(registry, "show", "de")
    assert '"version": "v0001"' in output
    assert run(registry, "show", "de", "v0002")[1].count('"version": "v0002"') == 1


def test_the_command_tells_an_error_in_one_line(registry: Registry) -> None:
    for arguments in (["list"], ["show", "de"], ["promote", "de", "v0009"], ["rollback", "de"]):
        code, output = run(registry, *arguments)
        assert code == 1
        assert output.startswith("Error: ") and output.count("\n") == 1
