"""API keys: only hashes are configured, every entry is compared, and a broken file is named with its field."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from cluster.keys import keys as keys_command
from common.settings import SettingsError, convert
from serve.http import keys
from serve.http.keys import ApiKey, find_key, hash_of, new_key, read_keys
from serve.http.limits import Limits
from serve.http.protection import ProtectionSettings


def entry(key: str, name: str = "team") -> ApiKey:
    return ApiKey(name=name, hash=hash_of(key))


def test_a_hash_is_the_sha256_of_the_key() -> None:
    assert hash_of("abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_keys_are_distinct_and_256_bits_long() -> None:
    made = {new_key() for _ in range(100)}
    assert len(made) == 100
    assert all(len(key.removeprefix("pd-")) == 43 for key in made)  # 256 bits in base 64


def test_each_key_is_found_by_itself_and_nothing_else_is() -> None:
    secrets = [new_key() for _ in range(3)]
    entries = [entry(key, f"team {index}") for index, key in enumerate(secrets)]
    assert [find_key(entries, key) for key in secrets] == entries
    for wrong in ("", "pd-", secrets[0][:-1], secrets[0] + "x", entries[0].hash, "ключ"):
        assert find_key(entries, wrong) is None


def test_every_entry_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def compare(left: str, right: str) -> bool:
        compared.append(right)
        return hmac_compare(left, right)

    hmac_compare: Callable[[str, str], bool] = hmac.compare_digest
    monkeypatch.setattr(keys.hmac, "compare_digest", compare)
    secrets = [new_key() for _ in range(3)]
    entries = [entry(key, f"team {index}") for index, key in enumerate(secrets)]
    for presented in (secrets[0], "wrong"):
        compared.clear()
        find_key(entries, presented)
        assert compared == [e.hash for e in entries]


def test_the_command_shows_a_key_and_the_entry_that_lets_it_in() -> None:
    result = CliRunner().invoke(keys_command, ["new", "--name", "Müller: search"])
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    (key,) = [line for line in lines if line.startswith("pd-")]
    configured = yaml.safe_load("\n".join(lines[lines.index("The entry for `keys` in the configuration:") + 1 :]))
    settings = convert({"keys": configured}, ProtectionSettings, where="test")
    assert find_key(settings.keys, key) == settings.keys[0]
    assert settings.keys[0].name == "Müller: search"


def test_keys_and_their_limits_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(f"keys:\n  - name: a\n    hash: {hash_of('x')}\n    limits: {{max_tokens: 5}}\n")
    assert read_keys(path) == (ApiKey(name="a", hash=hash_of("x"), limits=Limits(max_tokens=5)),)
    both = ProtectionSettings(keys=(entry("y", "b"),), keys_file=str(path)).all_keys()
    assert [key.name for key in both] == ["b", "a"]


GOOD = f"{{name: a, hash: '{hash_of('x')}'}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"keys:\n  - {GOOD}\n  - {{name: [\n", "line 4"),
        ("keys: []", "keys.yaml:1: keys must hold at least one key"),
        ("key: []", "unknown setting `key`"),
        (f"keys: [{GOOD}, {{name: b}}]", r"missing setting `keys\[1\].hash`"),
        ("keys: [{name: a, hash: pd-secret}]", "hash of key 'a' must be sha256"),
        (f"keys: [{GOOD.replace('sha256', 'md5')}]", "hash of key 'a' must be sha256"),
        (f"keys: [{GOOD.replace('name: a', 'name: ')}]", r"setting `keys\[0\].name`: Expected `str`, got `null`"),
        (f"keys: [{GOOD}, {GOOD}]", "the same name twice"),
        (f"keys: [{GOOD}, {GOOD.replace('name: a', 'name: b')}]", "a, b: the same hash twice"),
        (f"keys: [{GOOD[:-1]}, limits: {{max_tokens: 0}}}}]", "max_tokens must be at least 1"),
    ],
)
def test_a_malformed_key_file_is_named_with_its_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=message) as raised:
        ProtectionSettings(keys_file=str(path)).all_keys()
    assert str(raised.value).startswith(str(path))
    assert "pd-secret" not in str(raised.value)


def test_a_key_file_that_is_missing_or_repeats_a_configured_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    with pytest.raises(SettingsError, match="no such"):
        ProtectionSettings(keys_file=str(path)).all_keys()
    path.write_text(f"keys: [{GOOD}]")
    with pytest.raises(SettingsError, match=r"keys\.yaml: keys: a: the same name twice"):
        ProtectionSettings(keys=(entry("y", "a"),), keys_file=str(path)).all_keys()
