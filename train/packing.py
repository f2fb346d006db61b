"""Documents packed into rows of one length: little padding, and no document sees another.

Positions restart at every document. Hugging Face decoders read that off `position_ids` when they are called with
``attention_mask=None, use_cache=False`` and then keep the documents of a row apart exactly.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

IGNORED = -100
"""Label of a position that has no loss; torch's cross-entropy ignores it too."""

Rows = npt.NDArray[np.int32]


class Document(msgspec.Struct, frozen=True):
    tokens: list[int]
    loss_from: int = 0
    """The loss counts for the tokens from this index on; the first token is never predicted."""


class PackingReport(msgspec.Struct, frozen=True, kw_only=True):
    documents: int
    """Packed ones."""
    without_loss: int
    """Dropped, because no token (within the row length) has a loss: they cost time and teach nothing."""
    truncated: int
    """Cut at the row length."""
    rows: int
    tokens: int
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

    def save(self, folder: Path) -> None:
        """Write to `folder`, which appears complete or not at all; an earlier one is replaced."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        for name in ("input_ids", "position_ids", "labels", "loss_tokens"):
            np.save(scratch / f"{name}.npy", getattr(self, name))
        (scratch / "report.json").write_bytes(msgspec.json.encode(self.report))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(scratch, folder)

    @classmethod
    def load(cls, folder: Path) -> PackedRows:
        """Memory-map the rows in `folder`. Raises ValueError naming it if they are not there."""
        try:
            report = msgspec.json.decode((folder / "report.json").read_bytes(), type=PackingReport)
        except FileNotFoundError:
            raise ValueError(f"{folder}: no packed rows") from None
        names = ("input_ids", "position_ids", "labels", "loss_tokens")
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
        return cls(report=report, **arrays)


def pack(documents: Iterable[Document], row_length: int, seed: int) -> PackedRows:
    """Pack `documents` into rows of `row_length` tokens, best fit first, longest documents first.

    Documents of equal length are taken in an order drawn from `seed`. Raises ValueError if no token has a loss.
    """
    if row_length < 2:
        raise ValueError(f"row_length is {row_length}, must be at least 2: the first token is never predicted")
    kept, without_loss, truncated = _usable(documents, row_length)
    if not kept:
        raise ValueError(f"no token has a loss in any of the {without_loss} documents (row_length {row_length})")
    rows = _best_fit([len(document.tokens) for document in kept], row_length, seed)
    filled = _fill([[kept[index] for index in row] for row in rows], row_length)
    tokens = sum(len(document.tokens) for document in kept)
    input_ids, position_ids, labels = filled
    loss_tokens = (labels != IGNORED).sum(axis=1, dtype=np.int32)
    report = PackingReport(
        documents=len(kept),
        without_loss=without_loss,
        truncated=truncated,
        rows=len(rows),
        tokens=tokens,
        loss_tokens=int(loss_tokens.sum()),
        padding_share=1 - tokens / input_ids.size,
    )
    return PackedRows(
        input_ids=input_ids, position_ids=position_ids, labels=labels, loss_tokens=loss_tokens, report=report
    )


def _usable(documents: Iterable[Document], row_length: int) -> tuple[list[Document], int, int]:
    """The documents that can teach something, cut at the row length; counts of dropped and of cut ones."""
    kept: list[Document] = []
    without_loss = truncated = 0
    for document in documents:
        if max(1, document.loss_from) >= min(len(document.tokens), row_length):
            without_loss += 1
            continue
        if len(document.tokens) > row_length:
            truncated += 1
            document = Document(document.tokens[:row_length], document.loss_from)
        kept.append(document)
    return kept, without_loss, truncated


def _best_fit(lengths: list[int], row_length: int, seed: int) -> list[list[int]]:
    """Which documents share a row: each goes to the fullest row that has room for it (best-fit decreasing)."""
    shuffled = np.random.default_rng(seed).permutation(len(lengths))
    order = sorted(shuffled.tolist(), key=lengths.__getitem__, reverse=True)
    with_room: list[list[list[int]]] = [[] for _ in range(row_length + 1)]
    occupied = 0  # bit r is set when some row has exactly r free places, so that the best fit is one bit trick
    rows: list[list[int]] = []
    for index in order:
        length = lengths[index]
        fitting = occupied >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = with_room[room].pop()
            if not with_room[room]:
                occupied &= ~(1 << room)
        else:
            room, row = row_length, []
            rows.append(row)
        row.append(index)
        with_room[room - length].append(row)
        occupied |= 1 << (room - length)
    return rows


def _fill(rows: list[list[Document]], row_length: int) -> tuple[Rows, Rows, Rows]:
    input_ids = np.zeros((len(rows), row_length), np.int32)
    position_ids = np.zeros_like(input_ids)
    labels = np.full_like(input_ids, IGNORED)
    places = np.arange(row_length, dtype=np.int32)
    for number, row in enumerate(rows):
        start = 0
        for document in row:
            end, first = start + len(document.tokens), max(1, document.loss_from)
            input_ids[number, start:end] = document.tokens
            position_ids[number, start:end] = places[: end - start]
            labels[number, start + first : end] = document.tokens[first:]
            start = end
        position_ids[number, start:] = places[: row_length - start]
    return input_ids, position_ids, labels
