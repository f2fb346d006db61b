"""`polydraft reference`: pages of the documentation that are made from types."""

from __future__ import annotations

import click


@click.group()
def reference() -> None:
    """Print what the types say, as Markdown: every setting, every field of a request."""


@reference.command()
def settings() -> None:
    """Every setting of a configuration, with its default."""
    from cluster.config import Config
    from cluster.reference.settings import settings_page

    click.echo(settings_page(Config), nl=False)


@reference.command()
def http() -> None:
    """Every field of a request."""
    from cluster.reference.http import http_page

    click.echo(http_page(), nl=False)
