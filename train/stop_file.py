"""How whoever started a training run has it save its state and end: by a file beside the model.

    model.stop    empty: worker 0 is at its steps, and reads it after each
                  not empty: the run is to end

A file, as the log is: it needs no process that stays, and no way from the caller to the workers but their storage.
"""

from __future__ import annotations

from pathlib import Path


class StopFile:
    """Of the run that makes the model folder `output`."""

    def __init__(self, output: str | Path) -> None:
        self._path = Path(f"{output}.stop")

    def clear(self) -> None:
        """Also before the run begins: what an earlier one left behind is not meant for it."""
        self._path.unlink(missing_ok=True)

    def listen(self) -> None:
        """Worker 0 will read it from now on. A worker that replaces another finds what that one was asked."""
        self._path.touch()

    def ask(self) -> bool:
        """Ask the run to end. False if no worker listens: it has taken no step yet, or leaves no checkpoints."""
        if not self._path.exists():
            return False
        self._path.write_text("stop", encoding="utf8")
        return True

    def asked(self) -> bool:
        # Read, not looked at: only opening a file makes a network file system ask its server for changes.
        return self._path.exists() and self._path.read_bytes() != b""
