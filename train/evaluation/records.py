"""What was measured, one text at a time: kept as it comes, so that a run that was killed repeats nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from common.engine.decoding import Generation

Key = tuple[str, str, str, str, float, int, int]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One text by one method."""

    test_set: str
    language: str
    question: str
    method: str
    temperature: float
    draft_length: int
    repetition: int
    output: list[int]
    text: str
    """What a reader sees of `output`."""
    rounds: list[tuple[int, int]]
    """Tokens drafted and accepted in each."""
    first_s: float
    """Until the first round was verified."""
    total_s: float
    draft_s: float = 0.0
    """In the drafter's forward passes."""
    verify_s: float = 0.0
    """In the target's."""

    @property
    def key(self) -> Key:
        return (
            self.test_set,
            self.language,
            self.question,
            self.method,
            self.temperature,
            self.draft_length,
            self.repetition,
        )

    @property
    def item(self) -> tuple[str, str, float]:
        """What intervals are over: a question at a temperature; its repetitions belong together."""
        return (self.test_set, self.question, self.temperature)


def measured(generation: Generation, text: str) -> dict[str, object]:
    """A record's fields that come from decoding."""
    return {
        "output": list(generation.output),
        "text": text,
        "rounds": list(generation.rounds),
        "first_s": generation.first_s,
        "total_s": generation.total_s,
        "draft_s": generation.timings.draft_s,
        "verify_s": generation.timings.verify_s,
    }


class Records:
    """A file of records, one JSON line each. A line that was cut off by a crash is dropped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found = {record.key: record for record in _read(path)}
        lines = [msgspec.json.encode(record) for record in self._found.values()]
        path.write_bytes(b"".join(line + b"\n" for line in lines))

    def __contains__(self, key: Key) -> bool:
        return key in self._found

    def __iter__(self) -> Iterator[Record]:
        return iter(self._found.values())

    def add(self, records: Iterable[Record]) -> None:
        """Write them together: a question's methods are compared with each other, so they stay together."""
        new = {record.key: record for record in records}
        with self._path.open("ab") as file:
            file.write(b"".join(msgspec.json.encode(record) + b"\n" for record in new.values()))
        self._found |= new


def _read(path: Path) -> Iterator[Record]:
    decode = msgspec.json.Decoder(Record).decode
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    # What follows the last line's end is a line that was not finished.
    return map(decode, lines[:-1])
