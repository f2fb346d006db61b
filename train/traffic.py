"""Captured prompts on their way into training: read, each once, and set aside, so that a run can be resumed.

The folder they come from changes all the time: a run that was interrupted goes on with what it began with.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from common.languages import language_name
from common.registry import Manifest, Registry
from common.storage import RegistryError
from common.traffic import SUFFIX, ServedPrompt
from train.hashing import text_key
from train.lines import read_lines, write_lines
from train.pair import CorpusError


def read_traffic(folder: Path) -> Iterator[ServedPrompt]:
    """The prompts of every file in `folder`; a last line without an end is still being written.

    Raises CorpusError naming the folder, or file and line.
    """
    if not folder.is_dir():
        raise CorpusError(f"{folder}: no such folder")
    decoder = msgspec.json.Decoder(ServedPrompt)
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        for number, line in enumerate(read_lines(path), 1):
            try:
                served = decoder.decode(line)
                language_name(served.language)
                yield served
            except (msgspec.DecodeError, ValueError) as error:
                raise CorpusError(f"{path}:{number}: not a captured prompt: {error}") from None


class Snapshot:
    """Prompts by language, a file each, in a folder of the run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def files(self) -> dict[str, Path]:
        return {path.stem: path for path in sorted(self.folder.glob(f"*{SUFFIX}"))}

    def take(self, source: Path) -> None:
        """Set aside what is in `source` now, equal prompts once, unless there is a snapshot already.

        Raises CorpusError if there is nothing.
        """
        if self.folder.exists():
            return
        found: dict[str, dict[str, ServedPrompt]] = {}
        for served in sorted(read_traffic(source), key=lambda served: served.prompt):
            found.setdefault(served.language, {}).setdefault(text_key(served.prompt), served)
        if not found:
            raise CorpusError(f"{source}: no captured prompts (*{SUFFIX})")
        partial = self.folder.with_name(f".{self.folder.name}")
        shutil.rmtree(partial, ignore_errors=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir(mode=0o700)
        for language, prompts in found.items():
            write_lines(partial / f"{language}{SUFFIX}", [msgspec.json.encode(prompt) for prompt in prompts.values()])
        os.replace(partial, self.folder)

    def forget(self) -> None:
        """What was made of it stays."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What one language's drafter is to be improved with, and from where on."""

    prompts: Path
    key: str
    """SHA-256 of the prompts."""
    published: Manifest
    drafter: Path
    """Folder of the published version."""


def start_from(registry: Registry, language: str, prompts: Path, cache: Path) -> Start:
    """From the current version; from the one before, if these very prompts have made the current one already.

    Raises RegistryError if none is published, or one that is not a network. A remote version is fetched into `cache`.
    """
    key = hashlib.sha256(prompts.read_bytes()).hexdigest()
    published = registry.current(language)
    if published is None:
        raise RegistryError(f"{language}: no drafter is published at {registry.root} that traffic could improve")
    made_of = published.provenance.get("traffic", {})
    if made_of.get("prompts") == key:
        published = registry.manifest(language, made_of["start"])
    if "config.json" not in published.files or "model.safetensors" not in published.files:
        raise RegistryError(f"{language}: {published.version} is not a network that could be trained on")
    return Start(prompts=prompts, key=key, published=published, drafter=registry.fetch(published, cache))
