"""Reading parallel text as people have it: TSV, JSON lines, parquet, compressed or not, and datasets of the hub."""

from __future__ import annotations

import io
import json
import lzma
import zlib
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

import fsspec
from fsspec.utils import infer_compression

from common.settings import Settings
from train.pair import CorpusError, Pair

_UNREADABLE = (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError)


class HubSource(Settings, frozen=True, kw_only=True):
    """A dataset of the hub, or a local folder of the same layout, in WMT's translation schema."""

    id: str
    """For example ``wmt/wmt16``; may contain ``{language}`` and ``{data}``."""
    config: str | None = "{language}-en"
    """Configuration name; may contain ``{language}``. None: the dataset has only one."""
    split: str = "train"
    """Split name, with ``datasets``' slice syntax: ``train[:200000]`` reads no more than that many rows."""


def read_pairs(path: str) -> list[Pair]:
    """Read every pair of a .tsv, .jsonl or .parquet file (path or fsspec URI), compressed or not.

    TSV lines are ``source<TAB>english``; JSON lines and parquet rows are ``{"translation": {"de": …, "en": …}}``
    or ``{"source": …, "english": …}``. Blank lines are skipped. Raises CorpusError naming file and line.
    """
    kind = _kind(path)
    try:
        if kind == ".parquet":
            rows = _load_dataset("parquet", data_files=path, split="train", streaming=True)
            pairs = [_from_row(row, f"{path}: row {number}") for number, row in enumerate(rows, 1)]
        else:
            parse = _from_tsv if kind == ".tsv" else _from_json
            pairs = [parse(line, f"{path}:{number}") for number, line in _lines(path)]
    except FileNotFoundError:
        raise CorpusError(f"{path}: no such file") from None
    except CorpusError:
        raise
    except _UNREADABLE as error:
        raise CorpusError(f"{path}: cannot be read: {error}") from error
    if not pairs:
        raise CorpusError(f"{path}: empty corpus")
    return pairs


def read_hub(source: HubSource, language: str, data: str = "") -> list[Pair]:
    """Read a dataset of the hub. Raises CorpusError naming the dataset (and row)."""
    name = _fill(source.id, language, data)
    config = None if source.config is None else _fill(source.config, language, data)
    try:
        rows = _load_dataset(name, config, split=source.split)
    except (OSError, ValueError) as error:
        raise CorpusError(f"{name}: cannot be loaded: {error}") from error
    pairs = [_from_row(row, f"{name}: row {number}") for number, row in enumerate(rows, 1)]
    if not pairs:
        raise CorpusError(f"{name}: empty corpus")
    return pairs


def read_sources(sources: Iterable[str | HubSource], language: str, data: str) -> list[Pair]:
    """Every pair of every source, in order; `data` fills ``{data}``. Raises CorpusError."""
    pairs: list[Pair] = []
    for source in sources:
        if isinstance(source, HubSource):
            pairs += read_hub(source, language, data)
        else:
            for path in _expand(_fill(source, language, data)):
                pairs += read_pairs(path)
    return pairs


def _fill(template: str, language: str, data: str) -> str:
    try:
        return template.format(language=language, data=data)
    except (KeyError, IndexError, ValueError):
        raise CorpusError(f"{template}: only {{language}} and {{data}} can be filled in") from None


def _expand(pattern: str) -> list[str]:
    if "*" not in pattern:
        return [pattern]
    filesystem, path = fsspec.url_to_fs(pattern)
    found = sorted(filesystem.unstrip_protocol(name) if "://" in pattern else name for name in filesystem.glob(path))
    if not found:
        raise CorpusError(f"{pattern}: no file matches")
    return found


def _kind(path: str) -> str:
    name = PurePosixPath(path)
    kind = name.with_suffix("").suffix if infer_compression(path) else name.suffix
    if kind not in (".tsv", ".jsonl", ".parquet"):
        raise CorpusError(f"{path}: expected a .tsv, .jsonl or .parquet file, found {kind or 'no suffix'}")
    return kind


def _lines(path: str) -> Iterator[tuple[int, str]]:
    # Read as bytes: only "\n" ends a line, while text files also break at characters that occur inside sentences.
    with fsspec.open(path, "rb", compression="infer") as file:
        for number, raw in enumerate(io.BufferedReader(file), 1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise CorpusError(f"{path}:{number}: not UTF-8: {error}") from None
            if line.strip():
                yield number, line.rstrip("\r\n")


def _from_tsv(line: str, where: str) -> Pair:
    fields = line.split("\t")
    if len(fields) != 2:
        raise CorpusError(f"{where}: expected source<TAB>english, found {len(fields)} field(s): {line[:80]!r}")
    return Pair(source=fields[0], english=fields[1])


def _from_json(line: str, where: str) -> Pair:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise CorpusError(f"{where}: not JSON: {error}") from None
    return _from_row(row, where)


def _from_row(row: Any, where: str) -> Pair:
    fields = row.get("translation", row) if isinstance(row, dict) else None
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
    return Pair(source=source, english=english)


def _load_dataset(*args: Any, **kwargs: Any) -> Iterable[Any]:
    import datasets  # here, because the import takes seconds and local text files do not need it

    return datasets.load_dataset(*args, **kwargs)
