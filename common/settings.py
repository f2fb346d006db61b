"""Typed configuration: YAML in, frozen structs out; an unknown key is an error that names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from common.settings_problems import Path as Place
from common.settings_problems import problems
from common.yaml_lines import YamlLines


class SettingsError(ValueError):
    """A configuration that cannot be used; the message names the file and the setting, for each mistake on a line."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every configuration section: frozen, keyword-only, unknown keys refused."""

    def without(self, *names: str) -> dict[str, Any]:
        """All settings but these, by name, as built-in types."""
        return {name: value for name, value in msgspec.to_builtins(self).items() if name not in names}

    def changed(self) -> dict[str, Any]:
        """The settings that are not left to their defaults, as built-in types: what a file has to say."""
        values = ((field, getattr(self, field.name)) for field in msgspec.structs.fields(self))
        return {field.name: _as_written(value) for field, value in values if value != _default(field)}


S = TypeVar("S", bound=Settings)


def load(path: Path, kind: type[S], overrides: tuple[str, ...] = ()) -> S:
    """Read the YAML file at `path` as `kind`; `overrides` are ``section.key=value`` with YAML values.

    Raises SettingsError naming, for every mistake, the file, the line and the setting (``train.steps``).
    """
    try:
        text = path.read_text(encoding="utf8")
    except (FileNotFoundError, IsADirectoryError):
        raise SettingsError(f"{path}: no such configuration file") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not valid UTF-8: {error}") from None
    raw = _parse(text, where=str(path))
    if not isinstance(raw, dict):
        raise SettingsError(f"{path}: expected settings by name, found {type(raw).__name__}")
    lines, overridden = YamlLines(text), dict[Place, str]()
    for override in overrides:
        overridden[_apply(raw, override)] = override

    def where(place: Place) -> str:
        for path_set, override in reversed(overridden.items()):
            if place[: len(path_set)] == path_set:
                return f"--set {override}"
        return f"{path}:{lines[place]}"

    return _convert(raw, kind, where)


def convert(raw: dict[str, Any], kind: type[S], *, where: str) -> S:
    """Check `raw` against `kind`. Raises SettingsError that says, for every mistake, `where`, and names the setting."""
    return _convert(raw, kind, lambda _: where)


def _convert(raw: dict[str, Any], kind: type[S], where: Callable[[Place], str]) -> S:
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError:
        found = [f"{where(problem.where)}: {problem.message}" for problem in problems(raw, kind)]
        raise SettingsError("\n".join(found)) from None


def _default(field: msgspec.structs.FieldInfo) -> Any:
    factory = field.default_factory
    return field.default if factory is msgspec.NODEFAULT else factory()


def _as_written(value: Any) -> Any:
    return value.changed() if isinstance(value, Settings) else msgspec.to_builtins(value)


def _parse(text: str, *, where: str) -> Any:
    try:
        YamlLines(text)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None


def _apply(raw: dict[str, Any], override: str) -> Place:
    """Returns which setting was set."""
    key, separator, value = override.partition("=")
    *sections, last = key.split(".")
    if not separator or not last:
        raise SettingsError(f"--set {override}: expected section.key=value")
    for depth, section in enumerate(sections, start=1):
        raw = raw.setdefault(section, {})
        if not isinstance(raw, dict):
            raise SettingsError(f"--set {override}: `{'.'.join(sections[:depth])}` is not a section")
    raw[last] = _parse(value, where=f"--set {override}")
    return (*sections, last)
