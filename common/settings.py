"""Typed configuration: YAML in, frozen structs out; an unknown key is an error that names it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml


class SettingsError(ValueError):
    """A configuration that cannot be used; the message names the file and the setting."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every configuration section: frozen, keyword-only, unknown keys refused."""

    def without(self, *names: str) -> dict[str, Any]:
        """All settings but these, by name, as built-in types."""
        return {name: value for name, value in msgspec.to_builtins(self).items() if name not in names}


S = TypeVar("S", bound=Settings)


def load(path: Path, kind: type[S], overrides: tuple[str, ...] = ()) -> S:
    """Read the YAML file at `path` as `kind`; `overrides` are ``section.key=value`` with YAML values.

    Raises SettingsError naming the file and the setting (``train.steps``), or the line of broken YAML.
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
    for override in overrides:
        _apply(raw, override)
    return convert(raw, kind, where=str(path))


def convert(raw: dict[str, Any], kind: type[S], *, where: str) -> S:
    """Check `raw` against `kind`. Raises SettingsError starting with `where` and naming the setting."""
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{where}: {_readable(str(error))}") from None


def _parse(text: str, *, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None


def _apply(raw: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    *sections, last = key.split(".")
    if not separator or not last:
        raise SettingsError(f"--set {override}: expected section.key=value")
    for depth, section in enumerate(sections, start=1):
        raw = raw.setdefault(section, {})
        if not isinstance(raw, dict):
            raise SettingsError(f"--set {override}: `{'.'.join(sections[:depth])}` is not a section")
    raw[last] = _parse(value, where=f"--set {override}")


def _readable(message: str) -> str:
    """msgspec says ``Object contains unknown field `x` - at `$.a.b```; say it in the user's words."""
    message, _, place = message.partition(" - at ")
    prefix = place.strip("`").removeprefix("$").removeprefix(".")
    unknown = re.fullmatch(r"Object contains unknown field `(.+)`", message)
    missing = re.fullmatch(r"Object missing required field `(.+)`", message)
    if unknown or missing:
        name = (unknown or missing).group(1)  # type: ignore[union-attr]
        return f"{'unknown' if unknown else 'missing'} setting `{f'{prefix}.{name}' if prefix else name}`"
    return f"setting `{prefix}`: {message}" if prefix else message
