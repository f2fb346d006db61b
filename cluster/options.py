"""The options that say which run a command is about."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from cluster.run import Run

F = TypeVar("F", bound=Callable[..., Any])


def run_options(command: F) -> F:
    """Adds --config, --data, --target, --registry, --run and --set; all but `data` are for `run_of`."""
    return options_with("quickstart")(command)


def options_with(default: str) -> Callable[[F], F]:
    """The same, with another configuration by default."""
    return lambda command: _add_options(command, default)


def _add_options(command: F, default: str) -> F:
    for option in (
        click.option(
            "--config",
            "config_name",
            default=default,
            show_default=True,
            help="YAML file, or the name of a shipped one.",
        ),
        click.option("--data", default="", help="Fills {data} in the configuration's corpus sources."),
        click.option("--target", help="Folder of the target model."),
        click.option("--registry", help="Folder or fsspec URI of the drafter registry."),
        click.option("--run", "run_folder", help="Folder of the results; runs/<configuration> by default."),
        click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override a setting."),
    ):
        command = option(command)
    return command


def data_and_run_of(options: dict[str, Any]) -> tuple[str, Run]:
    """Of all the options of a command, those that it has beside `run_options` too."""
    names = ("config_name", "target", "registry", "run_folder", "overrides")
    return options["data"], run_of(**{name: options[name] for name in names})


def run_of(config_name: str, *, overrides: tuple[str, ...], run_folder: str | None, **paths: Any) -> Run:
    """Raises SettingsError."""
    from cluster.config import load_config
    from cluster.run import make_run

    return make_run(config_name, load_config(config_name, overrides), folder=run_folder, **paths)
