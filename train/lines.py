"""Files of lines that are added one at a time, by a process that may die in the middle of one."""

from __future__ import annotations

from pathlib import Path


def read_lines(path: Path) -> list[bytes]:
    """The whole ones, without their ends; none if there is no file."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def write_lines(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def append_line(path: Path, line: bytes) -> None:
    """What an interrupted writer left of a line is written over. One process at a time may do this."""
    with path.open("ab+") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write(line + b"\n")
