"""Answers on disk, in shards that are there whole or not at all.

distill/manifest.json              what the answers depend on; others are never added to them
        shard-00000/counts.json    answers, errors and skipped ones
                    answers.jsonl  an `Answer` a line
                    errors.jsonl   a `Rejected` a line: questions that got no answer
                    skipped.jsonl  a `Rejected` a line: answers that were left out
                    teacher.safetensors  ids [N, K], weights [N, K]: the laws at the answers' N tokens, in order
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import load_file, save_file

from train.distillation.answers import Answer, DistillationError, Law, Rejected, document
from train.packing import Document

MANIFEST = "manifest.json"


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a number of questions."""

    success: int = 0
    error: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            success=self.success + other.success, error=self.error + other.error, skipped=self.skipped + other.skipped
        )

    @property
    def total(self) -> int:
        return self.success + self.error + self.skipped


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    answers: Sequence[Answer]
    errors: Sequence[Rejected]
    skipped: Sequence[Rejected]
    law: Law | None
    """At all tokens of all answers."""

    @property
    def counts(self) -> Counts:
        return Counts(success=len(self.answers), error=len(self.errors), skipped=len(self.skipped))


def begin(folder: Path, inputs: dict[str, Any]) -> None:
    """Take `folder` for the answers made from `inputs`, and clear away what an interruption left of a shard.

    Raises DistillationError, naming what differs, if it holds answers made from other inputs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, encoded = folder / MANIFEST, msgspec.json.encode(inputs, order="sorted")
    if path.exists():
        old, new = msgspec.json.decode(path.read_bytes()), msgspec.json.decode(encoded)
        differing = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        if differing:
            raise DistillationError(f"{folder}: holds answers made with another {', '.join(differing)}")
    else:
        temporary = folder / f".{MANIFEST}"
        temporary.write_bytes(msgspec.json.format(encoded))
        os.replace(temporary, path)
    for scratch in folder.glob(".shard-*"):
        shutil.rmtree(scratch)


def missing(folder: Path, shards: int) -> list[int]:
    """Numbers of the shards that are not there, of `shards` in all."""
    return [number for number in range(shards) if not _path(folder, number).exists()]


def write_shard(folder: Path, number: int, shard: Shard) -> None:
    """One that is there already stays: it is the same, made by an actor that was taken for dead.

    Raises DistillationError if it cannot be written (a full disk); nothing is left behind then.
    """
    path = _path(folder, number)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=folder) as scratch:
            whole = Path(scratch) / path.name
            whole.mkdir()
            _write_files(whole, shard)
            if not path.exists():
                os.replace(whole, path)
    except OSError as error:
        raise DistillationError(f"{path} cannot be written: {error}") from error


def read_counts(folder: Path) -> Counts:
    """Of all shards that are there."""
    counts = (msgspec.json.decode((s / "counts.json").read_bytes(), type=Counts) for s in _shards(folder))
    return sum(counts, Counts())


def read_answers(folder: Path) -> Iterator[Answer]:
    """In the order of their numbers."""
    for shard in _shards(folder):
        yield from _answers(shard)


def read_documents(folder: Path) -> Iterator[Document]:
    """The answers as training documents."""
    return map(document, read_answers(folder))


def read_taught_documents(folder: Path) -> Iterator[Document]:
    """The same, with the target's laws, which must have been stored."""
    for shard in _shards(folder):
        answers = _answers(shard)
        yield from map(document, answers, _split(load_file(shard / "teacher.safetensors"), answers))


def _path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}"


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("shard-*"), key=lambda path: int(path.name.removeprefix("shard-")))


def _answers(shard: Path) -> list[Answer]:
    return msgspec.json.Decoder(Answer).decode_lines((shard / "answers.jsonl").read_bytes())


def _split(arrays: dict[str, np.ndarray[Any, Any]], answers: Sequence[Answer]) -> list[Law]:
    ends = np.cumsum([len(answer.output) for answer in answers])[:-1]
    return [Law(*law) for law in zip(*(np.split(arrays[name], ends) for name in Law._fields), strict=True)]


def _write_files(folder: Path, shard: Shard) -> None:
    encoder = msgspec.json.Encoder()
    (folder / "counts.json").write_bytes(encoder.encode(shard.counts))
    for name in ("answers", "errors", "skipped"):
        (folder / f"{name}.jsonl").write_bytes(encoder.encode_lines(getattr(shard, name)))
    if shard.law is not None:
        save_file(shard.law._asdict(), folder / "teacher.safetensors")
