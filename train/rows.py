"""Training rows as arrays: in memory, on disk, and growing on disk when a corpus is larger than memory."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from train.writing import writing

IGNORED = -100
"""Label of a position that has no loss; torch's cross-entropy ignores it too."""

Rows = npt.NDArray[np.int32]

_ALWAYS = ("input_ids", "position_ids", "labels", "loss_tokens")
_TEACHER = ("teacher_ids", "teacher_weights")


class PackingReport(msgspec.Struct, frozen=True, kw_only=True):
    documents: int
    """Packed ones."""
    without_loss: int
    """Dropped, because no token has a loss: they cost time and teach nothing."""
    unmasked: int
    """Packed ones in which every token but the first, which is never predicted, has a loss."""
    split: int
    """Packed ones that are longer than a row, in segments of a row at most."""
    rows: int
    tokens: int
    """In the rows; each segment after a document's first repeats one."""
    loss_tokens: int
    padding_share: float
    """Of all positions."""


class PackedRows(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Training rows, in memory or memory-mapped."""

    input_ids: Rows
    """[rows, row length] token ids; padding is token 0, which nothing attends to."""
    position_ids: Rows
    """[rows, row length] position within the document; the padding counts as one document."""
    labels: Rows
    """[rows, row length] the token that this position must be predicted as, or IGNORED. Not shifted: the
    prediction for position t is made at position t - 1."""
    loss_tokens: Rows
    """[rows] positions with a loss; at least 1."""
    report: PackingReport
    teacher_ids: Rows | None = None
    """[rows, row length, K] tokens to which the teacher gives weight, aligned with `labels`: entry t is its sparse
    law of the token at position t. None: there is no stored teacher."""
    teacher_weights: npt.NDArray[np.float16] | None = None
    """[rows, row length, K] their weights; 0 where the teacher says nothing."""

    def document_spans(self, row: int) -> list[slice]:
        """Where the documents of a row lie, its padding left out."""
        starts = np.flatnonzero(self.position_ids[row] == 0).tolist()
        spans = map(slice, starts, [*starts[1:], self.input_ids.shape[1]])
        return [span for span in spans if (self.labels[row, span] != IGNORED).any()]

    def save(self, folder: Path) -> None:
        """Write to `folder`, which appears complete or not at all; an earlier one is replaced."""
        with RowWriter(folder) as writer:
            writer.append(self)
            writer.finish(self.report)

    @classmethod
    def load(cls, folder: Path) -> PackedRows:
        """Memory-map the rows in `folder`. Raises ValueError naming it if they are not there."""
        try:
            report = msgspec.json.decode((folder / "report.json").read_bytes(), type=PackingReport)
        except FileNotFoundError:
            raise ValueError(f"{folder}: no packed rows") from None
        names = [*_ALWAYS, *(name for name in _TEACHER if (folder / f"{name}.npy").exists())]
        return cls(report=report, **{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names})


class RowWriter:
    """Writes rows to `folder` as they come; it appears complete, on `finish`, or not at all.

    A context manager, which removes what was written if `finish` was not reached.
    """

    def __init__(self, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        self._arrays: dict[str, _GrowingArray] = {}

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for array in self._arrays.values():
            with suppress(OSError):  # what a full disk had no room for is thrown away here
                array.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def append(self, rows: PackedRows) -> None:
        """Add rows of the same length, and with teachers of the same K, as those before."""
        for name in (*_ALWAYS, *(_TEACHER if rows.teacher_ids is not None else ())):
            array = getattr(rows, name)
            if name not in self._arrays:
                self._arrays[name] = _GrowingArray(self._scratch / f"{name}.npy", array.shape[1:], array.dtype)
            with writing(self._folder):
                self._arrays[name].append(array)

    def finish(self, report: PackingReport) -> None:
        with writing(self._folder):
            for array in self._arrays.values():
                array.finish()
            (self._scratch / "report.json").write_bytes(msgspec.json.encode(report))
        shutil.rmtree(self._folder, ignore_errors=True)
        os.replace(self._scratch, self._folder)


class _GrowingArray:
    """A .npy file of which the number of rows is known last: NumPy leaves room in the header for its digits."""

    def __init__(self, path: Path, row_shape: Sequence[int], dtype: np.dtype[Any]) -> None:
        self._file = path.open("wb")
        self._row_shape, self._dtype, self._rows = tuple(row_shape), dtype, 0
        self._write_header()

    def append(self, rows: npt.NDArray[Any]) -> None:
        assert rows.shape[1:] == self._row_shape and rows.dtype == self._dtype
        self._file.write(np.ascontiguousarray(rows).data)
        self._rows += len(rows)

    def finish(self) -> None:
        end = self._file.tell()
        self._file.seek(0)
        self._write_header()
        self._file.seek(end)
        self.close()

    def close(self) -> None:
        self._file.close()

    def _write_header(self) -> None:
        shape = (self._rows, *self._row_shape)
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
