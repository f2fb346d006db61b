"""What tells one state of a corpus's sources from another, without reading them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import fsspec
import msgspec

from train.sources import HubSource, Source, fill, matching

TRAITS = (
    *("size", "mtime", "LastModified", "Last-Modified", "last_modified", "updated"),
    *("ETag", "etag", "md5Hash", "Content-MD5", "blob_id"),
)
"""What file systems tell of a file that changes with what is in it; each tells some of these."""


def fingerprints(sources: Iterable[Source], language: str, data: str) -> dict[str, str | None]:
    """Of every file, by its name; None for a source that cannot be found, which is for its reader to tell.

    A dataset of the hub is known by its name alone, a local folder in its place by its files.
    """
    found: dict[str, str | None] = {}
    for source in sources:
        try:
            found |= {path: _fingerprint(path) for path in _files(source, language, data)}
        except (OSError, ValueError, ImportError):
            found[str(source)] = None
    return found


def _files(source: Source, language: str, data: str) -> list[str]:
    if isinstance(source, HubSource):
        return [str(path) for path in Path(fill(source.id, language, data)).rglob("*") if path.is_file()]
    return matching(fill(source, language, data))


def _fingerprint(path: str) -> str:
    filesystem, name = fsspec.url_to_fs(path)
    info = filesystem.info(name)
    traits = {trait: str(info[trait]) for trait in TRAITS if trait in info}
    return hashlib.sha256(msgspec.json.encode(traits)).hexdigest()
