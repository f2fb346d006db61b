"""The `polydraft` command."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def run_options(command: F) -> F:
    """The options that say which run is meant."""
    for option in (
        click.option(
            "--config",
            "config_name",
            default="quickstart",
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


@click.group()
def polydraft() -> None:
    """Speculative decoding for every language: train drafters, serve them, measure them."""
    _authenticate_ray()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    for package in ("common", "serve", "train", "cluster"):
        logging.getLogger(package).setLevel(logging.INFO)


@polydraft.command()
@run_options
def train(config_name: str, data: str, **options: Any) -> None:
    """Train and publish a drafter for every language of a configuration; what is done is not done again."""
    from cluster.run import start_ray
    from train.pipeline import Pipeline

    run = _run(config_name, **options)
    run.check()
    start_ray()
    pipeline = Pipeline(
        run.config.train,
        list(run.config.languages),
        run=run.folder,
        data=data,
        target=run.given_target,
        registry=run.registry,
    )
    published = pipeline.run()
    for language, manifest in published.items():
        click.echo(f"{language} {manifest.version} {manifest.metrics}")


@polydraft.command()
@run_options
@click.option("--language", "languages", multiple=True, help="Only add or replace this language's drafter.")
def serve(config_name: str, data: str, languages: tuple[str, ...], **options: Any) -> None:
    """Serve a trained configuration and stay up; with --language, change a server that is up (RAY_ADDRESS)."""
    from cluster.deployment import deploy, deploy_drafter, usable_drafters
    from cluster.run import start_ray

    run = _run(config_name, **options)
    run.check_trained()
    drafters = usable_drafters(run.config, run.target, run.registry)
    missing = sorted(set(languages) - set(drafters))
    if missing:
        raise click.ClickException(f"--language {missing[0]}: no drafter that fits the target")
    start_ray()
    if languages:
        for language in languages:
            deploy_drafter(run.config, run.registry, run.folder / "cache", language)
        return
    deploy(run.config, run.target, run.registry, run.folder / "cache", drafters)
    click.echo(f"serving {', '.join(drafters)} at http://{run.config.serve.host}:{run.config.serve.port}/v1")
    signal.sigwait({signal.SIGINT, signal.SIGTERM})


@polydraft.command()
@click.option("--once", is_flag=True, envvar="ONCE", help="Exit after the table instead of staying up.")
@click.option("--run", "run_folder", default="runs/quickstart", help="Folder of the results.")
def quickstart(once: bool, run_folder: str) -> None:
    """From nothing to a multilingual server: build a corpus, train a target and five drafters, serve, ask."""
    from cluster.quickstart import main

    main(run_folder, once=once)


@polydraft.group()
def bench() -> None:
    """Benchmarks: a table on standard error, JSON as the last line of standard output."""


@bench.command()
@click.option("--rounds", default=2000, help="Rounds measured on each path.")
def roundtrip(rounds: int) -> None:
    """What a draft-verify round costs to coordinate: our streams beside Serve handle calls."""
    from cluster.bench.roundtrip import main

    main(rounds)


@bench.command()
@run_options
@click.option("--prompts", type=int, help="Test sentences a language; as configured by default.")
def acceptance(config_name: str, data: str, prompts: int | None, **options: Any) -> None:
    """Tokens per verification of each language's drafter on test sentences; trains the embedded default if need be."""
    from cluster.bench.acceptance import main
    from cluster.quickstart import CONFIG, train_default

    run = _run(config_name, **options)
    if config_name == CONFIG and not options["target"]:
        data = data or train_default(run)
    run.check_trained()
    main(run, data, prompts)


def _authenticate_ray() -> None:
    """A cluster that we start answers only to us. Ray reads this when it is first imported."""
    if "RAY_ADDRESS" not in os.environ and os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _run(config_name: str, *, overrides: tuple[str, ...], run_folder: str | None, **paths: Any) -> Any:
    from cluster.config import load_config
    from cluster.run import make_run

    return make_run(config_name, load_config(config_name, overrides), folder=run_folder, **paths)


def main() -> None:
    """Bad input ends with one clear line, not a traceback."""
    from cluster.drafters import drafters

    polydraft.add_command(drafters)
    try:
        polydraft(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except (ValueError, RuntimeError) as error:
        if not _expected(error):
            raise
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


def _expected(error: Exception) -> bool:
    from common.models import ModelError
    from common.settings import SettingsError
    from common.storage import RegistryError
    from train.pair import CorpusError
    from train.pipeline import PipelineError

    return isinstance(error, ModelError | SettingsError | RegistryError | CorpusError | PipelineError)


if __name__ == "__main__":
    main()
