"""Sources that have changed are told from those that have not."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec

from train.fingerprint import fingerprints
from train.sources import HubSource, Source


def of(folder: Path, *sources: Source) -> dict[str, str | None]:
    return fingerprints(sources, "de", str(folder))


def test_a_file_that_is_replaced_in_place_is_another(tmp_path: Path) -> None:
    path = tmp_path / "de.tsv"
    path.write_text("eins\tone\n")
    before = of(tmp_path, "{data}/{language}.tsv")
    assert before.keys() == {str(path)}
    path.chmod(0o600)
    assert of(tmp_path, "{data}/{language}.tsv") == before
    path.write_text("eins\tuno\n")
    os.utime(path, (1.0, 1.0))
    changed = of(tmp_path, "{data}/{language}.tsv")
    assert changed != before
    path.write_text("eins\tthree\n")
    os.utime(path, (1.0, 1.0))
    assert of(tmp_path, "{data}/{language}.tsv") != changed, "as old, but longer"


def test_all_files_of_a_pattern_and_of_a_local_dataset_count(tmp_path: Path) -> None:
    sources: tuple[Source, ...] = ("{data}/*.tsv", HubSource(id="{data}/wmt"))
    (tmp_path / "one.tsv").touch()
    (tmp_path / "wmt" / "train").mkdir(parents=True)
    (tmp_path / "wmt" / "train" / "a.jsonl").touch()
    before = of(tmp_path, *sources)
    assert before.keys() == {str(tmp_path / "one.tsv"), str(tmp_path / "wmt" / "train" / "a.jsonl")}
    (tmp_path / "two.tsv").touch()
    assert of(tmp_path, *sources).items() > before.items()


def test_a_file_behind_a_uri_is_looked_at_too(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/sources/de.tsv", b"eins\tone\n")
    before = of(tmp_path, "memory://sources/{language}.tsv")
    memory.pipe_file("/sources/de.tsv", b"eins\tone\nzwei\ttwo\n")
    assert before.keys() == {"memory://sources/de.tsv"}
    assert of(tmp_path, "memory://sources/{language}.tsv") != before


def test_what_cannot_be_found_is_left_to_its_reader(tmp_path: Path) -> None:
    sources = ("{data}/missing.tsv", "{data}/none*.tsv", "{data}/{lang}.tsv", "nosuch://a.tsv")
    assert of(tmp_path, *sources) == dict.fromkeys(sources)
    assert of(tmp_path, HubSource(id="wmt/wmt16")) == {}
