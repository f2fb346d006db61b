"""Which sentences drafters are judged by: of all languages in turns, and only those that leave room for an answer."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tiny_recipe import tiny_recipe
from tiny_target import save_target

from common.models import load_tokenizer
from train.pair import CorpusError, Pair
from train.prompts import sample_prompts

CONTEXT = 64
LONG = "sehr " * 20


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_target(tmp_path_factory.mktemp("asked") / "target")


def corpus(folder: Path, *sources: str) -> Path:
    folder.mkdir()
    pairs = [Pair(source, f"Sentence {number}.") for number, source in enumerate(sources)]
    (folder / "test.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(pairs))
    return folder


def test_the_first_prompts_are_of_all_languages(target: Path, tmp_path: Path) -> None:
    recipe = msgspec.structs.replace(tiny_recipe(), prompt="{language}:{source}")
    corpora = {
        "de": corpus(tmp_path / "de", "eins", "zwei", "drei"),
        "fr": corpus(tmp_path / "fr", "un"),
        "ja": corpus(tmp_path / "ja", "一", "二"),
    }
    asked = sample_prompts(recipe, corpora, target, "test", 9, max_tokens=8).tokens
    languages = [load_tokenizer(target).decode(prompt).partition(":")[0] for prompt in asked]
    assert languages == ["German", "French", "Japanese", "German", "Japanese", "German"]


def test_prompts_without_room_for_an_answer_are_left_out_and_counted(target: Path, tmp_path: Path) -> None:
    recipe = msgspec.structs.replace(tiny_recipe(), prompt="{source}")
    corpora = {"de": corpus(tmp_path / "de", "eins", LONG, "eins zwei drei")}
    found = sample_prompts(recipe, corpora, target, "test", 3, max_tokens=8)
    assert (found.report.prompts, found.report.too_long) == (2, 1)
    longest = max(map(len, found.tokens))
    for max_tokens, left in ((CONTEXT - longest, 2), (CONTEXT - longest + 1, 1)):
        assert len(sample_prompts(recipe, corpora, target, "test", 3, max_tokens=max_tokens).tokens) == left
    with pytest.raises(CorpusError, match="de: no sentence for test makes a prompt of at most 1 tokens"):
        sample_prompts(recipe, corpora, target, "test", 3, max_tokens=CONTEXT - 1)
