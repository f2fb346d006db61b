"""Stages that are done once: a folder of results with a record of the inputs they were made from.

    runs/quickstart/de/distill/          the results
                              stage.json written last: the key of the inputs, and provenance

A stage's key is a hash of its settings and of the keys of the stages it builds on, so a change anywhere makes all
that depends on it run again, and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec

from train.provenance import provenance

STARTED = "started.json"
RECORD = "stage.json"


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    """``de/distill``; also the folder, below the run's."""
    folder: Path
    key: str

    @property
    def done(self) -> bool:
        """Whether the results are there and were made from the same inputs."""
        record = self.folder / RECORD
        return record.exists() and msgspec.json.decode(record.read_bytes())["key"] == self.key

    def begin(self) -> None:
        """Clear what another key left behind; what this key left unfinished stays, to be resumed."""
        started = self.folder / STARTED
        if not started.exists() or msgspec.json.decode(started.read_bytes())["key"] != self.key:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            _write(started, {"key": self.key, "provenance": provenance()})

    def finish(self, **facts: Any) -> None:
        """Declare the results complete; `facts` are kept with the provenance."""
        begun = msgspec.json.decode((self.folder / STARTED).read_bytes())
        _write(self.folder / RECORD, {**begun, "facts": facts})

    def facts(self) -> dict[str, Any]:
        """What `finish` was told."""
        return msgspec.json.decode((self.folder / RECORD).read_bytes())["facts"]


def stage(run: Path, name: str, *inputs: object) -> Stage:
    """The stage `name` of the run in folder `run`; `inputs` are settings, plain values, and stages built on."""
    described = [i.key if isinstance(i, Stage) else msgspec.to_builtins(i) for i in inputs]
    key = hashlib.sha256(msgspec.json.encode([name, described], order="deterministic")).hexdigest()
    return Stage(name=name, folder=run / name, key=key)


def hash_folder(folder: Path) -> str:
    """SHA-256 over names and contents of a folder's files: what identifies a model that was given to us."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _write(path: Path, value: Any) -> None:
    """In one step: a record is whole or not there."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(value)))
    os.replace(temporary, path)
