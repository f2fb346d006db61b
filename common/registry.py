"""Published drafters: versions of a language's drafter under one root, and which of them is current.

    <root>/<language>/current.json                which version is current, and which ones were before
    <root>/<language>/<version>/manifest.json     written last: without it the version does not exist
    <root>/<language>/<version>/…                 the model's files

The root is a local folder or any URI that fsspec knows. `current.json` and manifests are put in place in one step,
so that a reader, or a writer that dies, never leaves half of one. Two writers of one language never share a
version; of two that promote at the same moment the later one wins.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

import msgspec

from common.models import Fingerprint
from common.storage import RegistryError, Storage

__all__ = ["Manifest", "Registry", "RegistryError"]

MANIFEST = "manifest.json"
POINTER = "current.json"
CLAIM = "claim"
PICKLED = {".bin", ".ckpt", ".pkl", ".pt", ".pth"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
VERSION = re.compile(r"v\d+")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One published drafter. Raises ValueError if a name in it leads out of the version's folder."""

    schema: Literal[1] = 1
    language: str
    version: str
    """``v0001``, ``v0002`` …: numbers only grow, also over versions that were never finished."""
    created: str
    """UTC, ISO 8601."""
    target: str
    """Name or path of the model it drafts for."""
    fingerprint: Fingerprint
    """The drafter's own."""
    files: dict[str, str]
    """SHA-256, in hexadecimal, of each file by its path inside the version's folder."""
    metrics: dict[str, float]
    provenance: dict[str, Any]
    """What it was made from: revision, arguments, package versions, seeds, hashes of data."""

    def __post_init__(self) -> None:
        _checked(self.language, self.version)
        for name in self.files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or "\\" in name:
                raise ValueError(f"file `{name}` lies outside the version's folder")


class _Pointer(msgspec.Struct, frozen=True):
    current: str
    history: tuple[str, ...] = ()
    """Versions that were current before, oldest first; rollback takes the last."""


class Registry:
    """Drafters under `root`. Raises RegistryError if `root` is a URI of an unknown kind.

    Every method raises RegistryError, naming the language and the version, for what cannot be done, and naming
    the file if one in the registry is broken.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        self._storage = Storage(root)

    def publish(
        self,
        language: str,
        folder: Path,
        *,
        target: str,
        fingerprint: Fingerprint,
        metrics: dict[str, float],
        provenance: dict[str, Any],
    ) -> Manifest:
        """Copy the model in `folder` as the next version of `language`; it is not current until promoted."""
        names = _publishable(language, folder)
        version = self._claim(language)
        manifest = Manifest(
            language=language,
            version=version,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            target=target,
            fingerprint=fingerprint,
            files={name: self._upload(folder / name, language, version, name) for name in names},
            metrics=metrics,
            provenance=provenance,
        )
        self._storage.replace(language, version, MANIFEST, value=manifest)
        return self.manifest(language, version)

    def promote(self, language: str, version: str) -> None:
        """Make `version` current. Promoting the current version changes nothing."""
        self.manifest(language, version)
        pointer = self._pointer(language)
        if pointer is None:
            pointer = _Pointer(version)
        elif pointer.current != version:
            pointer = _Pointer(version, (*pointer.history, pointer.current))
        self._storage.replace(language, POINTER, value=pointer)

    def rollback(self, language: str) -> str:
        """Make the version current that was before the current one, and return it."""
        pointer = self._pointer(language)
        if pointer is None or not pointer.history:
            raise RegistryError(f"{language}: no earlier version to roll back to")
        *history, previous = pointer.history
        self.manifest(language, previous)
        self._storage.replace(language, POINTER, value=_Pointer(previous, tuple(history)))
        return previous

    def current(self, language: str) -> Manifest | None:
        """The version to serve, or None if none was promoted."""
        pointer = self._pointer(language)
        return self.manifest(language, pointer.current) if pointer else None

    def manifest(self, language: str, version: str) -> Manifest:
        """The manifest of one version. Raises RegistryError if there is no such version."""
        _checked(language, version)
        found = self._storage.read(language, version, MANIFEST, kind=Manifest)
        if found is None:
            raise RegistryError(f"{language}: no version {version} in registry {self.root}")
        return found

    def versions(self, language: str) -> list[Manifest]:
        """All published versions, oldest first."""
        found = [self._storage.read(language, name, MANIFEST, kind=Manifest) for name in self._claimed(language)]
        return [manifest for manifest in found if manifest is not None]

    def languages(self) -> list[str]:
        """Languages with a published version, in alphabetical order."""
        names = [name for name in self._storage.names() if NAME.fullmatch(name)]
        return [name for name in names if self.versions(name)]

    def fetch(self, manifest: Manifest, into: Path) -> Path:
        """A local folder with the version's files.

        A local registry's own folder is returned, without a copy. Otherwise the files are downloaded below `into`
        and checked; a version downloaded before is used again if it is still whole. Raises RegistryError if the
        files are not those that were published.
        """
        if self._storage.is_local:
            return Path(self._storage.path(manifest.language, manifest.version))
        folder = into / manifest.language / manifest.version
        if not folder.is_dir():
            partial = folder.with_name(f".{manifest.version}.{os.getpid()}")
            shutil.rmtree(partial, ignore_errors=True)
            for name in manifest.files:
                # A missing file is told by the check, like a changed one.
                with contextlib.suppress(FileNotFoundError):
                    self._storage.download(partial / name, manifest.language, manifest.version, name)
            _verify(manifest, lambda name: (partial / name).open("rb"))
            _move(partial, folder)
        _verify(manifest, lambda name: (folder / name).open("rb"))
        return folder

    def verify(self, manifest: Manifest) -> None:
        """Read every file of the version. Raises RegistryError naming the first that is missing or changed."""
        _verify(manifest, lambda name: self._storage.open(manifest.language, manifest.version, name))

    def _claim(self, language: str) -> str:
        """Reserve the next version number."""
        number = max((int(name[1:]) for name in self._claimed(language)), default=0) + 1
        while not self._storage.claim(language, f"v{number:04d}", CLAIM):
            number += 1
        return f"v{number:04d}"

    def _claimed(self, language: str) -> list[str]:
        """Version numbers in use, oldest first, also those that were never finished."""
        names = self._storage.names(_checked(language))
        return sorted(filter(VERSION.fullmatch, names), key=lambda name: int(name[1:]))

    def _pointer(self, language: str) -> _Pointer | None:
        return self._storage.read(_checked(language), POINTER, kind=_Pointer)

    def _upload(self, source: Path, *parts: str) -> str:
        self._storage.upload(source, *parts)
        with source.open("rb") as file:
            return _sha256(file)


def _publishable(language: str, folder: Path) -> list[str]:
    """Paths of the files to publish, relative to `folder`."""
    _checked(language)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (MANIFEST, CLAIM))
    if not any(path.suffix == ".safetensors" for path in files):
        raise RegistryError(f"{language}: {folder} holds no safetensors weights to publish")
    pickled = [path.name for path in files if path.suffix in PICKLED]
    if pickled:
        raise RegistryError(f"{language}: {folder} holds pickled data, which is not published: {pickled[0]}")
    return [path.relative_to(folder).as_posix() for path in files]


def _move(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError:
        # Another process of this machine was faster; its copy is as good.
        if not folder.is_dir():
            raise
        shutil.rmtree(partial)


def _verify(manifest: Manifest, open_file: Callable[[str], IO[bytes]]) -> None:
    for name, published in manifest.files.items():
        try:
            with open_file(name) as file:
                found = _sha256(file)
        except FileNotFoundError:
            found = "none: it is missing"
        if found != published:
            where = f"{manifest.language} {manifest.version}: file {name}"
            raise RegistryError(f"{where} is not the one published: sha256 {published[:12]}, found {found[:24]}")


def _sha256(file: IO[bytes]) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _checked(language: str, version: str = "v1") -> str:
    """The language, if it and the version can name folders."""
    if not NAME.fullmatch(language):
        raise RegistryError(f"`{language}` cannot name a language: letters, digits, `-` and `_` only")
    if not VERSION.fullmatch(version):
        raise RegistryError(f"{language}: `{version}` is not a version: v0001, v0002 …")
    return language
