"""`polydraft keys`: API keys for the HTTP server."""

from __future__ import annotations

import click
import yaml

from serve.http.keys import hash_of, new_key


@click.group()
def keys() -> None:
    """Make API keys."""


@keys.command()
@click.option("--name", required=True, help="Whose key it is.")
def new(name: str) -> None:
    """Make a key: it is shown now and never again; the configuration holds only its hash."""
    key = new_key()
    entry = yaml.safe_dump([{"name": name, "hash": hash_of(key)}], sort_keys=False, allow_unicode=True)
    click.echo(f"The key, for {name}:\n{key}\n\nThe entry for `keys` in the configuration:\n{entry}", nl=False)
