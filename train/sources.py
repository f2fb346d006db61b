"""Reading text as people have it, row by row: TSV, JSON lines, parquet, compressed or not, and datasets of the hub."""

from __future__ import annotations

import io
import lzma
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

import fsspec
import msgspec
from fsspec.utils import infer_compression

from common.settings import Settings
from train.pair import CorpusError, Pair

_UNREADABLE = (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError)

Row = tuple[str, Any]
"""Where it stands, for messages, and what it holds."""


class HubSource(Settings, frozen=True, kw_only=True):
    """A dataset of the hub, or a local folder of the same layout, in WMT's translation schema; it is streamed."""

    id: str
    """For example ``wmt/wmt16``; may contain ``{language}`` and ``{data}``."""
    config: str | None = "{language}-en"
    """Configuration name; may contain ``{language}``. None: the dataset has only one."""
    split: str = "train"
    """Of the dataset."""
    max_rows: int | None = None
    """Read no more than the first so many rows."""


class QuestionRow(msgspec.Struct, frozen=True):
    """A row of a question file, as of Spec-Bench and MT-Bench."""

    turns: list[str]
    question_id: int | str = ""
    category: str = ""
    reference: list[str | list[str]] = []

    @property
    def references(self) -> list[str]:
        return [text for found in self.reference for text in ([found] if isinstance(found, str) else found)]


Source = str | HubSource
"""A path or URI, in which ``{language}`` and ``{data}`` are filled in and ``*`` matches any name, or a dataset."""


def read_pairs(path: str) -> Iterator[Pair]:
    """The pairs of a .tsv, .jsonl or .parquet file (path or fsspec URI), compressed or not.

    TSV lines are ``source<TAB>english``; JSON lines and parquet rows are ``{"translation": {"de": …, "en": …}}``
    or ``{"source": …, "english": …}``, and may name the ``document`` they are from. Blank lines are skipped.
    Raises CorpusError naming file and line.
    """
    return (to_pair(row, where) for where, row in _file_rows(path))


def read_sources(sources: Iterable[Source], language: str, data: str) -> Iterator[Pair]:
    """The pairs of every source, in order; `data` fills ``{data}``. Raises CorpusError."""
    return (to_pair(row, where) for _, rows in read_rows(sources, language, data) for where, row in rows)


def read_evaluation_sets(sources: Iterable[Source], language: str, data: str) -> Iterator[tuple[str, Iterator[str]]]:
    """The name and the texts of every file or dataset: both sides of parallel text, or questions.

    A question is a JSON line with ``"turns": […]``, as in Spec-Bench. It may frame the sentence it is about
    (``Translate German to English:Nein!``), so each line of a turn is also a text, with and without what stands
    before its first colon; so are the texts of ``reference``, where there is one. Raises CorpusError.
    """
    for name, rows in read_rows(sources, language, data):
        yield name, (text for where, row in rows for text in _texts(row, where))


def read_rows(sources: Iterable[Source], language: str, data: str) -> Iterator[tuple[str, Iterator[Row]]]:
    """The name and the rows of every file or dataset. Raises CorpusError."""
    for source in sources:
        if isinstance(source, HubSource):
            name = fill(source.id, language, data)
            config = None if source.config is None else fill(source.config, language, data)
            yield name, _hub_rows(name, config, source)
        else:
            for path in matching(fill(source, language, data)):
                yield path, _file_rows(path)


def fill(template: str, language: str, data: str) -> str:
    """Raises CorpusError for a placeholder that there is not."""
    try:
        return template.format(language=language, data=data)
    except (KeyError, IndexError, ValueError):
        raise CorpusError(f"{template}: only {{language}} and {{data}} can be filled in") from None


def matching(pattern: str) -> list[str]:
    """The files that a path or URI stands for: itself, if there is no ``*`` in it. Raises CorpusError if none match."""
    if "*" not in pattern:
        return [pattern]
    filesystem, path = fsspec.url_to_fs(pattern)
    found = sorted(filesystem.unstrip_protocol(name) if "://" in pattern else name for name in filesystem.glob(path))
    if not found:
        raise CorpusError(f"{pattern}: no file matches")
    return found


def _hub_rows(name: str, config: str | None, source: HubSource) -> Iterator[Row]:
    number = 0
    try:
        rows = _load_dataset(name, config, split=source.split)
        for number, row in enumerate(islice(rows, source.max_rows), 1):
            yield f"{name}: row {number}", row
    except (OSError, ValueError) as error:
        raise CorpusError(f"{name}: cannot be loaded: {error}") from error
    if not number:
        raise CorpusError(f"{name}: empty corpus")


def _file_rows(path: str) -> Iterator[Row]:
    rows = {".tsv": _tsv_rows, ".jsonl": _json_rows, ".parquet": _parquet_rows}[_kind(path)]
    found = False
    try:
        for row in rows(path):
            found = True
            yield row
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file") from None
    except CorpusError:
        raise
    except _UNREADABLE as error:
        raise CorpusError(f"{path}: cannot be read: {error}") from error
    if not found:
        raise CorpusError(f"{path}: empty corpus")


def _kind(path: str) -> str:
    name = PurePosixPath(path)
    kind = name.with_suffix("").suffix if infer_compression(path) else name.suffix
    if kind not in (".tsv", ".jsonl", ".parquet"):
        raise CorpusError(f"{path}: expected a .tsv, .jsonl or .parquet file, found {kind or 'no suffix'}")
    return kind


def _tsv_rows(path: str) -> Iterator[Row]:
    for where, line in _lines(path):
        fields = line.split("\t")
        if len(fields) != 2:
            raise CorpusError(f"{where}: expected source<TAB>english, found {len(fields)} field(s): {line[:80]!r}")
        yield where, {"source": fields[0], "english": fields[1]}


def _json_rows(path: str) -> Iterator[Row]:
    for where, line in _lines(path):
        try:
            row = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise CorpusError(f"{where}: not JSON: {error}") from None
        yield where, row


def _parquet_rows(path: str) -> Iterator[Row]:
    rows = _load_dataset("parquet", data_files=path, split="train")
    return ((f"{path}: row {number}", row) for number, row in enumerate(rows, 1))


def _lines(path: str) -> Iterator[tuple[str, str]]:
    # Read as bytes: only "\n" ends a line, while text files also break at characters that occur inside sentences.
    with fsspec.open(path, "rb", compression="infer") as file:
        for number, raw in enumerate(io.BufferedReader(file), 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise CorpusError(f"{path}:{number}: not UTF-8: {error}") from None
            if line.strip():
                yield f"{path}:{number}", line.rstrip("\r\n")


def to_pair(row: Any, where: str) -> Pair:
    """What a row holds. Raises CorpusError."""
    fields, document = row, None
    if isinstance(row, dict):
        fields = row.get("translation") or {name: value for name, value in row.items() if name != "document"}
        document = row.get("document")
    english_name = "english" if isinstance(fields, dict) and "english" in fields else "en"
    if not isinstance(fields, dict) or len(fields) != 2 or english_name not in fields:
        raise CorpusError(
            f'{where}: expected {{"translation": {{"de": …, "en": …}}}} or {{"source": …, "english": …}}, '
            f"found {str(row)[:80]}"
        )
    english = fields[english_name]
    (source,) = (text for name, text in fields.items() if name != english_name)
    if not isinstance(source, str) or not isinstance(english, str):
        raise CorpusError(f"{where}: expected two texts, found {type(source).__name__} and {type(english).__name__}")
    if not isinstance(document, str | None):
        raise CorpusError(f"{where}: expected the document's name, found {type(document).__name__}")
    return Pair(source, english, document)


def _texts(row: Any, where: str) -> list[str]:
    if not isinstance(row, dict) or "turns" not in row:
        pair = to_pair(row, where)
        return [pair.source, pair.english]
    question = to_question(row, where)
    parts = [part for turn in question.turns for part in parts_of(turn)]
    return [text for text in (*parts, *question.references) if text.strip()]


def parts_of(prompt: str) -> list[str]:
    """What a prompt may be about: itself, each of its lines, and what follows the first colon of each."""
    lines = prompt.splitlines()
    return [prompt, *lines, *(line.partition(":")[2] for line in lines)]


def to_question(row: Any, where: str) -> QuestionRow:
    """What a row of a question file holds. Raises CorpusError."""
    try:
        question = msgspec.convert(row, QuestionRow)
    except msgspec.ValidationError as error:
        raise CorpusError(f"{where}: not a question: {error}") from None
    if not question.turns:
        raise CorpusError(f"{where}: a question without turns")
    return question


def _load_dataset(*args: Any, **kwargs: Any) -> Iterable[Any]:
    import datasets  # here, because the import takes seconds and local text files do not need it

    return datasets.load_dataset(*args, streaming=True, **kwargs)
