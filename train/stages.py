"""Stages that are done once: a folder of results with a record of the inputs they were made from.

    runs/quickstart/de/distill/               the results
                              started.json    the inputs (settings, and keys of stages built on), and provenance
                              stage.json      the same and the facts, written last: with it the results are whole

A stage's key is a hash of its inputs: its settings and the keys of the stages it builds on, so a change anywhere
makes all that depends on it run again, and nothing else.
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
SHOWN = 3
"""Most changes named in a message."""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    """``de/distill``; also the folder, below the run's."""
    folder: Path
    key: str
    inputs: dict[str, Any] = {}
    """By name: resolved settings as built-in types, and the keys of the stages built on."""

    @property
    def done(self) -> bool:
        """Whether the results are there and were made from the same inputs."""
        record = _read(self.folder / RECORD)
        return record is not None and record["key"] == self.key

    def begin(self) -> str | None:
        """Clear what other inputs left behind; what the same inputs left unfinished stays, to be resumed.

        Returns what the user should know about either, if there was something.
        """
        started = _read(self.folder / STARTED)
        if started is not None and started["key"] == self.key:
            return self._resumption(started)
        self.forget()
        self.folder.mkdir(parents=True)
        _write(self.folder / STARTED, {"key": self.key, "inputs": self.inputs, "provenance": provenance()})
        return None if started is None else f"{self.name} is done anew: {self._changes(started)}"

    def forget(self) -> None:
        """Remove the results, to have them made again."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def finish(self, **facts: Any) -> None:
        """Declare the results complete; `facts` are kept with the inputs and the provenance."""
        begun = _read(self.folder / STARTED)
        assert begun is not None, f"{self.name} was not begun"
        _write(self.folder / RECORD, {**begun, "facts": facts})

    def facts(self) -> dict[str, Any]:
        """What `finish` was told."""
        record = _read(self.folder / RECORD)
        assert record is not None, f"{self.name} is not done"
        return record["facts"]

    def _changes(self, started: dict[str, Any]) -> str:
        old, new = _flat(started.get("inputs", {})), _flat(self.inputs)
        names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        shown = [_change(name, old.get(name), new.get(name)) for name in names[:SHOWN]]
        return ", ".join(shown + [f"{len(names) - SHOWN} more"] * (len(names) > SHOWN))

    def _resumption(self, started: dict[str, Any]) -> str | None:
        """Another version of a library may round otherwise; then the result is not the undisturbed run's."""
        old, new = started["provenance"]["versions"], provenance()["versions"]
        changed = [f"{name} {new[name]}, begun with {old.get(name)}" for name in new if old.get(name) != new[name]]
        return f"{self.name} is resumed by {'; '.join(changed)}" if changed else None


def stage(run: Path, name: str, **inputs: object) -> Stage:
    """The stage `name` of the run in folder `run`; `inputs` are settings, plain values, and stages built on."""
    described = {key: i.key if isinstance(i, Stage) else i for key, i in inputs.items()}
    encoded = msgspec.json.encode(described, order="deterministic")
    key = hashlib.sha256(name.encode() + b"\n" + encoded).hexdigest()
    return Stage(name=name, folder=run / name, key=key, inputs=msgspec.json.decode(encoded))


def hash_folder(folder: Path) -> str:
    """SHA-256 over names and contents of a folder's files: what identifies a model that was given to us."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _change(name: str, old: Any, new: Any) -> str:
    """A long text is a key: it says nothing to a reader."""
    if max(len(str(old)), len(str(new))) > 40:
        return f"{name} has changed"
    return f"{name} is {new}, was {old}"


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _read(path: Path) -> dict[str, Any] | None:
    return msgspec.json.decode(path.read_bytes()) if path.exists() else None


def _write(path: Path, value: Any) -> None:
    """In one step: a record is whole or not there."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(value)))
    os.replace(temporary, path)
