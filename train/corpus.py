"""The text of one language on disk: cleaned, split, and free of what its drafter will be judged by.

Everything streams: memory holds 8 bytes a pair, however long the corpus is, and the hashes of held-out text.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import compress
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from common.settings import Settings
from train.cleaning import Cleaner, CleaningReport, CleaningSettings
from train.decontamination import HeldOut
from train.pair import CorpusError, Pair
from train.sources import Source, read_evaluation_sets, read_sources
from train.splitting import Part, Splitter, lowest, rank
from train.writing import writing

PARTS: tuple[Part, ...] = ("train", "valid", "test")


class CorpusSettings(Settings, frozen=True, kw_only=True):
    """Where a language's text is, and how much of it to use.

    Without `valid` or `test`, that share of the text is taken from `train`, whole documents at a time where the
    pairs name their documents, and else by their English sides.
    """

    train: tuple[Source, ...]
    """Files, with ``{language}``, ``{data}`` and ``*`` in their names, URIs or datasets of the hub."""
    valid: tuple[Source, ...] = ()
    """The same, for judging checkpoints; none takes `valid_share` of `train`."""
    test: tuple[Source, ...] = ()
    """The same, for judging drafters; none takes `test_share` of `train`."""
    decontaminate: tuple[Source, ...] = ()
    """Further evaluation sets: parallel text, or questions (JSON lines with ``turns``)."""
    cleaning: CleaningSettings = CleaningSettings()
    valid_share: float = 0.02
    """Share of `train`, where `valid` is empty."""
    test_share: float = 0.02
    """Share of `train`, where `test` is empty."""
    max_pairs: int | None = None
    """Most training pairs to keep; which ones is decided by a hash of their English side."""
    min_pairs: int = 1
    """Fewer training pairs than this after cleaning are an error."""
    seed: int = 0
    """Of what is held out, of what `max_pairs` keeps and of which pairs become prompts."""

    @property
    def sources(self) -> tuple[Source, ...]:
        """All that there are."""
        return (*self.train, *self.valid, *self.test, *self.decontaminate)


class CorpusReport(msgspec.Struct, frozen=True, kw_only=True):
    pairs: dict[Part, int]
    cleaning: dict[Part, CleaningReport]
    """Of each part that has sources. What was kept of the training sources is, now, the training pairs, the parts
    without sources of their own, `contaminated` and `left_out`."""
    contaminated: dict[str, int]
    """Training pairs dropped because a side of them occurs in this set: ``valid``, ``test``, or a file or dataset of
    `decontaminate`; a pair that is in several counts for the first."""
    tested: int
    """Validation pairs dropped because a side of them is in the test part."""
    left_out: int
    """Training pairs beyond `max_pairs`."""


def write_corpus(settings: CorpusSettings, language: str, data: str, folder: Path) -> CorpusReport:
    """Write ``train.jsonl``, ``valid.jsonl`` and ``test.jsonl`` to `folder`; `data` fills ``{data}`` in the sources.

    Raises CorpusError naming the file (and line), or the language if fewer than `min_pairs` are left.
    """
    with writing(folder), TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        cleaning, pairs = _write_parts(settings, language, data, scratch)
        pairs["valid"], tested = _leave_out_tests(scratch)
        held_out = HeldOut()
        for part in PARTS[1:]:
            held_out.add(part, _sides(scratch, part))
        for set_name, texts in read_evaluation_sets(settings.decontaminate, language, data):
            held_out.add(set_name, texts)
        unseen = _write(scratch / "unseen.jsonl", held_out.unseen(read_part(scratch, "train")))
        if unseen < settings.min_pairs:
            raise CorpusError(f"{language}: {unseen} training pairs are left, min_pairs is {settings.min_pairs}")
        pairs["train"] = _write(
            scratch / "train.jsonl", _sample(scratch / "unseen.jsonl", settings.max_pairs, settings.seed)
        )
        held_out.save(folder)
        for part in PARTS:
            os.replace(_path(scratch, part), _path(folder, part))
    return CorpusReport(
        pairs=pairs,
        cleaning=cleaning,
        contaminated=held_out.found,
        tested=tested,
        left_out=unseen - pairs["train"],
    )


def read_part(folder: Path, part: Part) -> Iterator[Pair]:
    """The pairs of one part of a written corpus."""
    return _read(_path(folder, part))


def read_training(folders: Sequence[Path]) -> Iterator[Iterator[Pair]]:
    """The training pairs of each corpus: where there are several, without what any of them holds out.

    Languages share their English, so a sentence that one is judged by may be trained on in another.
    """
    held_out = HeldOut()
    for folder in folders:
        held_out.load(str(folder), folder)
    for folder in folders:
        pairs = read_part(folder, "train")
        yield held_out.unseen(pairs) if len(folders) > 1 else pairs


def sample_part(folder: Path, part: Part, count: int, seed: int) -> Iterator[Pair]:
    """At most `count` pairs of a part, in their order: the first ones would all be from the first source.

    A hash of the English side decides, so a larger sample holds every smaller one of the same seed.
    """
    return _sample(_path(folder, part), count, seed)


def read_test(settings: CorpusSettings, language: str, data: str) -> list[Pair]:
    """The test part, as `write_corpus` would write it, without writing anything. Raises CorpusError."""
    pairs = Cleaner(settings.cleaning, language).clean(read_sources(settings.test or settings.train, language, data))
    split = _splitter(settings)
    return [pair for pair in pairs if settings.test or split.part(pair) == "test"]


def _leave_out_tests(folder: Path) -> tuple[int, int]:
    """Drop from the validation part what is in the test part; returns how many pairs stay, and how many went."""
    tests = HeldOut()
    tests.add("test", _sides(folder, "test"))
    kept = _write(folder / "kept.jsonl", tests.unseen(read_part(folder, "valid")))
    os.replace(folder / "kept.jsonl", _path(folder, "valid"))
    return kept, tests.found["test"]


def _sides(folder: Path, part: Part) -> Iterator[str]:
    return (side for pair in read_part(folder, part) for side in (pair.source, pair.english))


def _write_parts(
    settings: CorpusSettings, language: str, data: str, folder: Path
) -> tuple[dict[Part, CleaningReport], dict[Part, int]]:
    """Clean and split; the training part is not yet decontaminated. Returns what was dropped, and the parts' sizes."""
    split = _splitter(settings)
    encoder = msgspec.json.Encoder()
    reports: dict[Part, CleaningReport] = {}
    sizes: dict[Part, int] = dict.fromkeys(PARTS, 0)
    sources: dict[Part, tuple[Source, ...]] = {"train": settings.train, "valid": settings.valid, "test": settings.test}
    with ExitStack() as stack:
        files = {part: stack.enter_context(_path(folder, part).open("wb")) for part in PARTS}
        for origin in (part for part in PARTS if sources[part]):
            cleaner = Cleaner(settings.cleaning, language)
            for pair in cleaner.clean(read_sources(sources[origin], language, data)):
                part = split.part(pair) if origin == "train" else origin
                files[part].write(encoder.encode(pair) + b"\n")
                sizes[part] += 1
            reports[origin] = cleaner.report
    return reports, sizes


def _splitter(settings: CorpusSettings) -> Splitter:
    return Splitter(
        valid=0.0 if settings.valid else settings.valid_share,
        test=0.0 if settings.test else settings.test_share,
        seed=settings.seed,
    )


def _sample(path: Path, count: int | None, seed: int) -> Iterator[Pair]:
    if count is None:
        return _read(path)
    ranks = np.fromiter((rank(pair, seed) for pair in _read(path)), np.float64)
    return compress(_read(path), lowest(ranks, count))


def _path(folder: Path, part: Part) -> Path:
    return folder / f"{part}.jsonl"


def _read(path: Path) -> Iterator[Pair]:
    decoder = msgspec.json.Decoder(Pair)
    with path.open("rb") as file:
        yield from map(decoder.decode, file)


def _write(path: Path, pairs: Iterable[Pair]) -> int:
    encoder = msgspec.json.Encoder()
    count = 0
    with path.open("wb") as file:
        for pair in pairs:
            file.write(encoder.encode(pair) + b"\n")
            count += 1
    return count
