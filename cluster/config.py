"""A whole configuration: what is trained and how it is served."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from common.languages import language_name
from common.settings import Settings, SettingsError, load
from common.yaml_lines import YamlLines
from serve.settings import ServeSettings
from train.evaluation.settings import LabSettings
from train.recipe import Recipe

SHIPPED = Path(str(files("cluster"))) / "configs"


class Config(Settings, frozen=True, kw_only=True):
    """What is trained, how it is served, and how it is measured."""

    languages: tuple[str, ...]
    """ISO 639-1 codes; each gets a drafter."""
    train: Recipe
    serve: ServeSettings = ServeSettings()
    lab: LabSettings = LabSettings()

    def __post_init__(self) -> None:
        if not self.languages or len(set(self.languages)) != len(self.languages):
            raise ValueError("languages must name at least one language, each once")
        for language in self.languages:
            language_name(language)


def load_config(name_or_path: str, overrides: tuple[str, ...] = ()) -> Config:
    """A YAML file, or the name of one that is shipped. Raises SettingsError naming file and setting."""
    return load(_file(name_or_path), Config, overrides)


def line_of(name_or_path: str, setting: str) -> str:
    """Where a setting of a valid configuration stands, ``file:line``; empty for what is not a setting in the file."""
    path = _file(name_or_path)
    line = YamlLines(path.read_text(encoding="utf8")).by_key().get(setting)
    return "" if line is None else f"{path}:{line}"


def _file(name_or_path: str) -> Path:
    path = Path(name_or_path)
    shipped = SHIPPED / f"{name_or_path}.yaml"
    if not path.exists() and not shipped.exists():
        names = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.yaml")))
        raise SettingsError(f"--config {name_or_path}: no such file, and no shipped configuration ({names})")
    return path if path.exists() else shipped
