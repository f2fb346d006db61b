"""`polydraft drafters`: what is published, and which version of a language's drafter is served."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from common.registry import Manifest, Registry, RegistryError

DEFAULT_REGISTRY = "runs/quickstart/registry"
LISTED = ("mean_acceptance_length", "speedup/")
"""How the names of the metrics begin that a list has room for."""


def _registry_command(command: Callable[..., None]) -> Callable[..., None]:
    """Adds `--registry`; an error of the registry becomes one line and exit code 1."""

    @click.option("--registry", "root", default=DEFAULT_REGISTRY, show_default=True, help="Folder or URI.")
    @wraps(command)
    def wrapped(root: str, **arguments: Any) -> None:
        try:
            command(registry=Registry(root), **arguments)
        except RegistryError as error:
            raise click.ClickException(str(error)) from None

    return wrapped


@click.group()
def drafters() -> None:
    """Look at published drafters and choose which ones are served."""


@drafters.command(name="list")
@_registry_command
def list_drafters(registry: Registry) -> None:
    """Every published version of every language."""
    languages = registry.languages()
    if not languages:
        raise RegistryError(f"no drafters are published at {registry.root}")
    table = Table("language", "version", "current", "created", "target", "metrics")
    for language in languages:
        current = registry.current(language)
        for manifest in registry.versions(language):
            table.add_row(*_row(manifest, is_current=current is not None and current.version == manifest.version))
    Console().print(table)


@drafters.command()
@click.argument("language")
@click.argument("version", required=False)
@_registry_command
def show(registry: Registry, language: str, version: str | None) -> None:
    """The manifest of VERSION (by default the current one) as JSON."""
    manifest = registry.manifest(language, version) if version else registry.current(language)
    if manifest is None:
        raise RegistryError(f"{language}: no version is current at {registry.root}")
    click.echo(msgspec.json.format(msgspec.json.encode(manifest)).decode())


@drafters.command()
@click.argument("language")
@click.argument("version")
@_registry_command
def promote(registry: Registry, language: str, version: str) -> None:
    """Make VERSION the one that is served, once its files are found whole."""
    registry.verify(registry.manifest(language, version))
    registry.promote(language, version)
    click.echo(f"{language}: {version} is current")


@drafters.command()
@click.argument("language")
@_registry_command
def rollback(registry: Registry, language: str) -> None:
    """Serve again the version that was current before."""
    click.echo(f"{language}: {registry.rollback(language)} is current")


def _row(manifest: Manifest, *, is_current: bool) -> tuple[str, ...]:
    found = sorted(manifest.metrics.items())
    metrics = ", ".join(f"{name} {value:.3g}" for name, value in found if name.startswith(LISTED))
    mark = "yes" if is_current else ""
    return manifest.language, manifest.version, mark, manifest.created, manifest.target, metrics
