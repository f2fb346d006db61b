"""Files of lines that are kept for some time only, and in bounded space, whoever else writes to the same folder."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from common.traffic import SUFFIX
from serve.capture.settings import CaptureSettings

FILE_S = 3600.0
"""Longest time that one file is written to; a file is deleted when its last line is too old."""
FILES = 16
"""As many, at least, hold all that may be kept, so that little is deleted at once."""
DAY_S = 86_400.0


class CaptureFiles:
    """Of one writer. Folder and files are its owner's alone; lines are whole. Raises OSError if there is no folder."""

    def __init__(self, settings: CaptureSettings, clock: Callable[[], float] = time.time) -> None:
        self._folder = Path(settings.folder)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._keep_s = settings.keep_days * DAY_S
        self._most = int(settings.max_megabytes * 2**20)
        self._clock = clock
        self._file: int | None = None
        self._begun_s = 0.0

    def append(self, line: bytes) -> None:
        """Raises OSError."""
        if self._file is not None and self._full(self._file):
            self.close()
        if self._file is None:
            self.prune()
            self._file, self._begun_s = self._open(), self._clock()
        self._write(self._file, line + b"\n")

    def prune(self) -> None:
        """Delete what is too old, and the oldest of what is too much. Raises OSError."""
        kept = 0
        for path, found in sorted(self._found(), key=lambda item: item[1].st_mtime, reverse=True):
            kept += found.st_size
            if found.st_mtime < self._clock() - self._keep_s or kept > self._most:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        file, self._file = self._file, None  # also if it fails: its number may then be another's
        if file is not None:
            os.close(file)

    def _write(self, file: int, line: bytes) -> None:
        """What a full disk cuts off ends its file: a reader knows it by the missing end of the line."""
        try:
            if os.write(file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
        except OSError:
            self.close()
            raise

    def _full(self, file: int) -> bool:
        return self._clock() >= self._begun_s + FILE_S or os.fstat(file).st_size >= self._most // FILES

    def _open(self) -> int:
        began = time.strftime("%Y%m%dT%H%M%S", time.gmtime(self._clock()))
        path = self._folder / f"{began}-{secrets.token_hex(4)}{SUFFIX}"
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)

    def _found(self) -> list[tuple[Path, os.stat_result]]:
        found = []
        for path in self._folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # another router may have deleted it
                found.append((path, path.stat()))
        return found
