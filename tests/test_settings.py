"""A configuration is right, or an error names the file and the setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.settings import Settings, SettingsError, load


class Optimizer(Settings):
    rate: float = 0.1


class Train(Settings):
    steps: int
    optimizer: Optimizer = Optimizer()
    languages: tuple[str, ...] = ()


class Span(Settings):
    low: int = 1
    high: int = 2
    pace: int = 0

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low must not exceed high ({self.high})")
        if self.pace < 0:
            raise ValueError("pace must not be negative")


class Run(Settings):
    train: Train
    span: Span = Span()
    name: str = "run"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


def test_settings_are_read_with_their_defaults(path: Path) -> None:
    path.write_text("train:\n  steps: 3\n  languages: [de, 中]\n", encoding="utf8")
    assert load(path, Run) == Run(train=Train(steps=3, languages=("de", "中")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {steps: 3}\nnmae: x\n", ":2: unknown setting `nmae`"),
        ("train: {steps: 3, optimizer: {rte: 1}}\n", ":1: unknown setting `train.optimizer.rte`"),
        ("name: x\ntrain: {}\n", ":2: missing setting `train.steps`"),
        ("{}\n", ":1: missing setting `train`"),
        ("train:\n  steps: many\n", ":2: setting `train.steps`: Expected `int`, got `str`"),
        (
            "train:\n  steps: 3\n  languages:\n  - de\n  - 1\n",
            ":5: setting `train.languages[1]`: Expected `str`, got `int`",
        ),
        ("train: 3\n", ":1: setting `train`: Expected `object`, got `int`"),
        ("", ": expected settings by name, found NoneType"),
        ("- a\n", ": expected settings by name, found list"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(SettingsError) as error:
        load(path, Run)
    assert str(error.value) == f"{path}{message}"


def test_broken_yaml_is_told_with_its_line(path: Path) -> None:
    path.write_text("train:\n  steps: 3\n  name: [\n")
    with pytest.raises(SettingsError, match=r"run\.yaml: not valid YAML: .*line 4"):
        load(path, Run)


@pytest.mark.parametrize("wrong", ["steps: 4", "no: x", "1.5: x"])
def test_a_name_that_is_no_name_is_told_with_its_line(path: Path, wrong: str) -> None:
    path.write_text(f"train:\n  steps: 3\n  {wrong}\n")
    with pytest.raises(SettingsError, match=r"run\.yaml: not valid YAML: .*line 3"):
        load(path, Run)


def test_every_mistake_is_told(path: Path) -> None:
    """Those of the YAML, of --set, and of our own checks; not what only follows from another."""
    path.write_text('train:\n  stepz: 3\n  optimizer: {rte: 1}\nspan:\n  low: 5\n  high: many\n  name: [""]\nspam: 1\n')
    with pytest.raises(SettingsError) as error:
        load(path, Run, overrides=("train.stop=1", "span.pace=-1"))
    assert str(error.value).splitlines() == [
        f"{path}:2: unknown setting `train.stepz`",
        f"{path}:3: unknown setting `train.optimizer.rte`",
        "--set train.stop=1: unknown setting `train.stop`",
        f"{path}:1: missing setting `train.steps`",
        f"{path}:6: setting `span.high`: Expected `int`, got `str`",
        f"{path}:7: unknown setting `span.name`",
        "--set span.pace=-1: setting `span`: pace must not be negative",
        f"{path}:8: unknown setting `spam`",
    ]


@pytest.mark.parametrize(("low", "line"), [(5, 2), (1, 3)])
def test_a_check_of_a_section_tells_the_line_of_the_setting_it_names(path: Path, low: int, line: int) -> None:
    path.write_text(f"span:\n  low: {low}\n  pace: -1\ntrain: {{steps: 3}}\n")
    with pytest.raises(SettingsError, match=f":{line}: setting `span`"):
        load(path, Run)


def test_a_file_that_is_not_text_is_told(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00train")
    with pytest.raises(SettingsError, match=r"run\.yaml: not valid"):
        load(path, Run)


def test_a_missing_file_is_told(path: Path) -> None:
    with pytest.raises(SettingsError, match=r"run\.yaml: no such configuration file"):
        load(path, Run)


def test_a_folder_is_no_configuration_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such configuration file"):
        load(tmp_path, Run)


def test_overrides_win_and_make_missing_sections(path: Path) -> None:
    path.write_text("train: {steps: 3}\n")
    run = load(path, Run, overrides=("train.steps=5", "train.optimizer.rate=0.5", "name=other"))
    assert run == Run(train=Train(steps=5, optimizer=Optimizer(rate=0.5)), name="other")


def test_the_last_of_two_overrides_wins(path: Path) -> None:
    path.write_text("train: {steps: 3}\n")
    assert load(path, Run, overrides=("train.steps=5", "train.steps=6")).train.steps == 6


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps", "--set train.steps: expected section.key=value"),
        ("=3", "--set =3: expected section.key=value"),
        ("name.first=3", "--set name.first=3: `name` is not a section"),
        ("train.steps.max=3", "--set train.steps.max=3: `train.steps` is not a section"),
        ("name=[", "--set name=[: not valid YAML"),
        ("train.stps=3", "--set train.stps=3: unknown setting `train.stps`"),
    ],
)
def test_a_wrong_override_is_named(path: Path, override: str, message: str) -> None:
    path.write_text("train: {steps: 3}\nname: x\n")
    with pytest.raises(SettingsError) as error:
        load(path, Run, overrides=(override,))
    assert message in str(error.value)


def test_settings_can_be_told_without_some() -> None:
    assert Train(steps=3, languages=("de",)).without("optimizer") == {"steps": 3, "languages": ("de",)}


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Optimizer().rate = 1.0  # type: ignore[misc]
