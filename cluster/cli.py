"""The `polydraft` command."""

from __future__ import annotations

import logging
import signal
import sys
from typing import Any

import click

from cluster.options import run_of, run_options
from cluster.ray_environment import configure_ray


@click.group()
@click.pass_context
def polydraft(context: click.Context) -> None:
    """Speculative decoding for every language: train drafters, serve them, measure them."""
    if context.invoked_subcommand != "job":  # which talks to a cluster that is up already
        configure_ray()
    _show_logs()


def _show_logs() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    for package in ("common", "serve", "train", "cluster"):
        logging.getLogger(package).setLevel(logging.INFO)


@polydraft.command()
@run_options
@click.option("--language", "languages", multiple=True, help="Only add or replace this language's drafter.")
def serve(config_name: str, data: str, languages: tuple[str, ...], **options: Any) -> None:
    """Serve a trained configuration and stay up; with --language, change a server that is up (RAY_ADDRESS)."""
    from cluster.deployment import deploy, deploy_drafter, usable_drafters
    from cluster.run import start_ray

    run = run_of(config_name, **options)
    run.check_trained()
    drafters = usable_drafters(run.config, run.target, run.registry)
    missing = sorted(set(languages) - set(drafters))
    if missing:
        raise click.ClickException(f"--language {missing[0]}: no drafter that fits the target")
    start_ray()
    if languages:
        for language in languages:
            deploy_drafter(run.config, run.target, run.registry, run.folder / "cache", language)
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


@polydraft.command()
@click.option("--run", "run_folder", default="runs/rehearsal", help="Folder of the results.")
def rehearse(run_folder: str) -> None:
    """What operators do on a cluster, on a small one of this machine's own: job, deployment, request, promotion."""
    from cluster.rehearsal import main, report

    report(main(run_folder))


def commands() -> click.Group:
    """`polydraft` with all its commands."""
    from cluster.bench.commands import bench
    from cluster.capacity.command import plan
    from cluster.doctor.command import doctor
    from cluster.drafters import drafters
    from cluster.evaluate_command import evaluate
    from cluster.keys import keys
    from cluster.reference.command import reference
    from cluster.serve_config_command import serve_config
    from cluster.show_mask import show_mask
    from cluster.submit import job
    from cluster.train_command import train

    for command in (bench, doctor, drafters, evaluate, job, keys, plan, reference, serve_config, show_mask, train):
        polydraft.add_command(command)
    return polydraft


def main() -> None:
    """The `polydraft` command."""
    run(commands())


def run_job(command: click.Command) -> None:
    """A command as the whole of a process, with nothing to choose before it."""
    configure_ray()
    _show_logs()
    run(command)


def run(command: click.Command) -> None:
    """Bad input ends with a clear line for each mistake, not a traceback, and exit status 1; wrong options with 2."""
    try:
        command(standalone_mode=False)
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
    from cluster.local_cluster import ClusterError
    from common.models import ModelError
    from common.settings import SettingsError
    from common.storage import RegistryError
    from train.evaluation.studies.judge import JudgeError
    from train.pair import CorpusError
    from train.pipeline import PipelineError

    kinds = (ClusterError, ModelError, SettingsError, RegistryError, CorpusError, PipelineError, JudgeError)
    return isinstance(error, kinds)


if __name__ == "__main__":
    main()
