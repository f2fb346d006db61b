"""Files below a root that is a local folder or any URI that fsspec knows, replaced in one step."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

import fsspec
import msgspec
from fsspec.implementations.local import LocalFileSystem

S = TypeVar("S", bound=msgspec.Struct)


class RegistryError(ValueError):
    """Something asked of the registry that cannot be done; the message names what."""


class Storage:
    """Files below `root`, named by their path's parts. Raises RegistryError if fsspec does not know such a root."""

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        try:
            self._fs, path = fsspec.core.url_to_fs(self.root)
        except (ValueError, ImportError) as error:
            raise RegistryError(f"{self.root}: {error}") from None
        self._path = path.rstrip("/")
        self.is_local = isinstance(self._fs, LocalFileSystem)

    def path(self, *parts: str) -> str:
        """Where the file system keeps the file."""
        return "/".join((self._path, *parts))

    def names(self, *parts: str) -> list[str]:
        """Names in a folder, sorted; none if there is no such folder."""
        self._fs.invalidate_cache()
        try:
            return sorted(PurePosixPath(entry).name for entry in self._fs.ls(self.path(*parts), detail=False))
        except FileNotFoundError:
            return []

    def read(self, *parts: str, kind: type[S]) -> S | None:
        """The JSON file as `kind`, None if there is none. Raises RegistryError if it is not such a JSON file."""
        try:
            return msgspec.json.decode(self._fs.cat_file(self.path(*parts)), type=kind)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise RegistryError(f"{self.path(*parts)}: {error}") from None

    def replace(self, *parts: str, value: msgspec.Struct) -> None:
        """Write a JSON file in one step: an object store's put already is one, a local file takes a rename."""
        path = self.path(*parts)
        data = msgspec.json.format(msgspec.json.encode(value))
        if not self.is_local:
            self._fs.pipe_file(path, data)
            return
        temporary = f"{path}.{os.getpid()}.tmp"
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)

    def claim(self, *parts: str) -> bool:
        """Create an empty file; False if it was there already, so that of many writers one succeeds."""
        self._fs.makedirs(self.path(*parts[:-1]), exist_ok=True)
        try:
            with self._fs.open(self.path(*parts), "xb"):
                pass
        except FileExistsError:
            return False
        return True

    def upload(self, source: Path, *parts: str) -> None:
        """Copy a local file to the storage."""
        path = self.path(*parts)
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._fs.put_file(str(source), path)

    def download(self, destination: Path, *parts: str) -> None:
        """Copy a file of the storage to a local one."""
        destination.parent.mkdir(parents=True, exist_ok=True)
        self._fs.get_file(self.path(*parts), str(destination))

    def open(self, *parts: str) -> IO[bytes]:
        """A file for reading. Raises FileNotFoundError."""
        return self._fs.open(self.path(*parts), "rb")
