"""The documentation says what is so: its pages are made from the types, and its links, commands and examples hold."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest
import yaml

from cluster.cli import commands
from cluster.config import Config
from cluster.reference.http import http_page
from cluster.reference.settings import descriptions, places_of, sections, settings_page
from cluster.reference.tables import anchor, either
from common.settings import Settings, convert

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```(\w*).*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf8"))


def blocks(page: Path, language: str) -> Iterator[str]:
    return (text for found, text in FENCE.findall(page.read_text(encoding="utf8")) if found == language)


def anchors(page: Path) -> set[str]:
    return {anchor(heading) for heading in HEADING.findall(prose(page))}


@pytest.mark.parametrize(("page", "made"), [("settings", settings_page(Config)), ("http", http_page())])
def test_a_page_that_is_made_from_types_is_up_to_date(page: str, made: str) -> None:
    assert (DOCS / "reference" / f"{page}.md").read_text(encoding="utf8") == made, (
        f"polydraft reference {page} > docs/reference/{page}.md"
    )


@pytest.mark.parametrize("kind", places_of(Config), ids=lambda kind: kind.__name__)
def test_every_setting_is_described(kind: type[Settings]) -> None:
    assert kind.__doc__
    described = descriptions(kind)
    for field in msgspec.structs.fields(kind):
        assert field.name in described or any(sections(field.type)), f"{kind.__name__}.{field.name} has no docstring"


def test_the_settings_page_has_every_setting_once() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", settings_page(Config), re.MULTILINE)
    assert len(rows) == sum(len(msgspec.structs.fields(kind)) for kind in places_of(Config))


def test_alternatives_in_words() -> None:
    assert either(["text"]) == "text"
    assert either(["list of: text", "`null`"]) == "`null` or list of: text"
    assert either(["a", "b", "c"]) == "a, b or c"
    assert either(["list of: a", "list of: b"]) == "list of: a; or list of: b"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        path, _, place = link.partition("#")
        if "://" in link:
            continue
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not place or place in anchors(target), f"{page.name}: {link}"


def told_commands(page: Path) -> Iterator[list[str]]:
    """Of `polydraft`, in blocks of shell."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return (shlex.split(line, comments=True) for line in lines if line.startswith("polydraft "))


def known_options(command: click.Command, words: list[str]) -> set[str]:
    """Of the command that the words name, and of the groups that it is in."""
    options = {name for parameter in command.params for name in parameter.opts}
    if command.context_settings.get("ignore_unknown_options"):
        return options | {*words}  # another's, which looks at them
    if not isinstance(command, click.Group):
        return options
    named = next((word for word in words if word in command.commands), None)
    if named is None:
        assert command.invoke_without_command, f"{command.name} has none of {words}"
        return options
    return options | known_options(command.commands[named], words[words.index(named) + 1 :])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in told_commands(page):
        told = {word.partition("=")[0] for word in words if word.startswith("--")}
        unknown = told - known_options(commands(), words)
        assert not unknown, f"{page.name}: {shlex.join(words)}: {unknown}"


def test_the_walk_through_has_a_valid_configuration() -> None:
    (text,) = blocks(DOCS / "new-language.md", "yaml")
    config = convert(yaml.safe_load(text), Config, where="new-language.md")
    assert config.languages == ("es",)


def test_the_site_can_be_built(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="make test installs it")
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", DOCS / "site" / "mkdocs.yml"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        [*command, "--site-dir", tmp_path], env=environment, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    assert "train.corpus" in (tmp_path / "reference" / "settings" / "index.html").read_text(encoding="utf8")
    assert "min_pairs" in (tmp_path / "source" / "cluster" / "configs" / "laptop.yaml" / "index.html").read_text(
        encoding="utf8"
    )
