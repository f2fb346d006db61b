"""Documents packed into rows of one length: little padding, and no document sees another.

Positions restart at every document. Hugging Face decoders read that off `position_ids` when they are called with
``attention_mask=None, use_cache=False`` and then keep the documents of a row apart exactly.

A document longer than a row is split into segments, which are packed as documents of their own:

    tokens     a b c d e f g h        row length 4
    segments   a b c d
                     d e f g          begins with the token before, so that e, too, is predicted from something:
                           g h        every token with a loss is a label once
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from train.rows import IGNORED, PackedRows, PackingReport, RowWriter

__all__ = ["IGNORED", "Document", "PackedRows", "PackingReport", "pack", "pack_to"]

PORTION = 1 << 20
"""Tokens packed at a time when rows go to disk: some 100 MB of Python lists, and rows enough to fill well."""

Teacher = tuple[npt.NDArray[np.int32], npt.NDArray[np.float16]]


class Document(msgspec.Struct, frozen=True):
    tokens: list[int]
    loss_from: int = 0
    """The loss counts for the tokens from this index on; the first token is never predicted."""
    teacher: Teacher | None = None
    """Token ids and weights, each [tokens from `loss_from` on, K]: the teacher's sparse law of each of these tokens."""


def pack(documents: Iterable[Document], row_length: int, seed: int, *, answers_only: bool = False) -> PackedRows:
    """Pack `documents` into rows of `row_length` tokens in memory, best fit first, longest documents first.

    Of equal length they are taken in an order drawn from `seed`. Raises ValueError if no token has a loss, if
    `answers_only` and yet every document has a loss on all of its tokens, or if the teachers differ in K.
    """
    rows = _pack_portion(list(documents), row_length, np.random.default_rng((seed, 0)))
    _check_masks(rows.report, answers_only, "")
    return rows


def pack_to(
    folder: Path,
    documents: Iterable[Document],
    row_length: int,
    seed: int,
    *,
    answers_only: bool = False,
    portion: int = PORTION,
) -> PackingReport:
    """Pack `documents` into rows on disk, to be read with PackedRows.load; memory holds `portion` tokens at a time.

    `folder` appears complete or not at all. Raises ValueError as `pack` does, naming it.
    """
    reports: list[PackingReport] = []
    teacher_sizes: set[int | None] = set()
    with RowWriter(folder) as writer:
        for number, part in enumerate(_portions(documents, portion)):
            rows = _pack_portion(part, row_length, np.random.default_rng((seed, number)))
            reports.append(rows.report)
            if rows.report.rows:
                teacher_sizes.add(None if rows.teacher_ids is None else rows.teacher_ids.shape[-1])
                _check_teachers(teacher_sizes)
                writer.append(rows)
        report = _total(reports, row_length)
        _check_masks(report, answers_only, f"{folder}: ")
        writer.finish(report)
    return report


def _portions(documents: Iterable[Document], portion: int) -> Iterator[list[Document]]:
    held: list[Document] = []
    tokens = 0
    for document in documents:
        held.append(document)
        tokens += len(document.tokens)
        if tokens >= portion:
            yield held
            held, tokens = [], 0
    yield held


def _pack_portion(documents: Sequence[Document], row_length: int, rng: np.random.Generator) -> PackedRows:
    if row_length < 2:
        raise ValueError(f"row_length is {row_length}, must be at least 2: the first token is never predicted")
    split = [_segments(document, row_length) for document in documents]
    kept = [document for document, found in zip(documents, split, strict=True) if found]
    segments = list(chain.from_iterable(split))
    placed = _best_fit([len(segment.tokens) for segment in segments], row_length, rng)
    rows = [[segments[index] for index in row] for row in placed]
    arrays = _fill(rows, row_length)
    report = _report(
        documents=len(kept),
        without_loss=len(documents) - len(kept),
        unmasked=sum(document.loss_from <= 1 for document in kept),
        split=sum(len(document.tokens) > row_length for document in kept),
        rows=len(rows),
        tokens=sum(len(segment.tokens) for segment in segments),
        loss_tokens=int(arrays["loss_tokens"].sum()),
        row_length=row_length,
    )
    return PackedRows(**arrays, **_fill_teachers(rows, row_length), report=report)


def _report(*, rows: int, tokens: int, row_length: int, **counts: int) -> PackingReport:
    return PackingReport(rows=rows, tokens=tokens, padding_share=1 - tokens / max(1, rows * row_length), **counts)


def _total(reports: Sequence[PackingReport], row_length: int) -> PackingReport:
    counts = [name for name in PackingReport.__struct_fields__ if name != "padding_share"]
    return _report(**{name: sum(getattr(report, name) for report in reports) for name in counts}, row_length=row_length)


def _check_masks(report: PackingReport, answers_only: bool, where: str) -> None:
    if not report.documents:
        raise ValueError(f"{where}no token has a loss in any of the {report.without_loss} documents")
    if answers_only and report.unmasked == report.documents:
        raise ValueError(
            f"{where}every token has a loss in all {report.documents} documents, where only answers are to be "
            "learned: the prompts are empty"
        )


def _check_teachers(sizes: set[int | None]) -> None:
    if len(sizes) > 1:
        raise ValueError(f"documents have teachers of different K (None: no teacher): {', '.join(map(str, sizes))}")


def _segments(document: Document, row_length: int) -> list[Document]:
    """The document, split if it is longer than a row; only segments with a loss, so none of what can teach nothing.

    As TRL's ``bfd_split`` and torchtune's ``split_across_pack`` do it. Both cut off the end by default where answers
    are learned, but a drafter has to draft there as well. The prompt is not repeated before the rest of an answer:
    nowhere that a drafter drafts does an answer's midst follow on the prompt. A stored teacher has read all that
    came before a token; its law remains the best that can be learned by who sees less of it.
    """
    length = len(document.tokens)
    starts = range(0, length - 1, row_length - 1)
    return [
        _segment(document, at, at + row_length) for at in starts if document.loss_from < min(at + row_length, length)
    ]


def _segment(document: Document, start: int, end: int) -> Document:
    """The tokens from `start` to before `end`, and what the teacher says of them."""
    laws = slice(max(0, start - document.loss_from), end - document.loss_from)
    teacher = None if document.teacher is None else (document.teacher[0][laws], document.teacher[1][laws])
    return Document(document.tokens[start:end], max(0, document.loss_from - start), teacher)


def _best_fit(lengths: list[int], row_length: int, rng: np.random.Generator) -> list[list[int]]:
    """Which documents share a row: each goes to the fullest row that has room for it (best-fit decreasing)."""
    shuffled = rng.permutation(len(lengths))
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


def _fill(rows: list[list[Document]], row_length: int) -> dict[str, Any]:
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
    loss_tokens = (labels != IGNORED).sum(axis=1, dtype=np.int32)
    return {"input_ids": input_ids, "position_ids": position_ids, "labels": labels, "loss_tokens": loss_tokens}


def _fill_teachers(rows: list[list[Document]], row_length: int) -> dict[str, Any]:
    """Empty if no document has a teacher; its law of a document's first token, never predicted, is left out."""
    sizes = {None if d.teacher is None else d.teacher[0].shape[-1] for row in rows for d in row}
    _check_teachers(sizes)
    size = next(iter(sizes), None)
    if size is None:
        return {}
    ids = np.zeros((len(rows), row_length, size), np.int32)
    weights = np.zeros(ids.shape, np.float16)
    for number, row in enumerate(rows):
        start = 0
        for document in row:
            assert document.teacher is not None
            end, first = start + len(document.tokens), max(1, document.loss_from)
            place, law = slice(start + first, end), slice(first - document.loss_from, end - start - document.loss_from)
            ids[number, place], weights[number, place] = (part[law] for part in document.teacher)
            start = end
    return {"teacher_ids": ids, "teacher_weights": weights}
