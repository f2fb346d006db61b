"""A drafter's trimmed vocabulary: chosen, kept, and obeyed."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.engine.batch import Feed
from common.engine.drafters import load_drafter
from common.engine.runner import ModelRunner
from common.engine.trimming import TrimmedOutput, trim_output
from common.models import ModelError
from common.vocabulary import VOCABULARY_FILE, read_vocabulary, write_vocabulary
from train.packing import Document
from train.shapes import VocabularySettings
from train.vocabulary import choose_vocabulary

IDS = torch.tensor([2, 5, 7, 31, 60])


def logits(model, tokens: list[int]) -> torch.Tensor:  # type: ignore[no-untyped-def]
    runner = ModelRunner(model, kv_tokens=64)
    sequence = runner.begin()
    assert sequence.grow(len(tokens))
    [rows] = runner.forward([Feed(sequence, tokens, wanted=2)])
    return rows


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_logits_are_the_models_own_for_its_ids_and_minus_infinity_for_all_others(shape: str) -> None:
    trimmed = tiny.model(shape)
    trim_output(trimmed, IDS)
    whole_RV, trimmed_RV = logits(tiny.model(shape), [4, 9, 11]), logits(trimmed, [4, 9, 11])
    torch.testing.assert_close(trimmed_RV[:, IDS], whole_RV[:, IDS])
    others = torch.ones(tiny.VOCABULARY, dtype=torch.bool)
    others[IDS] = False
    assert bool((trimmed_RV[:, others] == float("-inf")).all())


def test_a_folder_with_a_vocabulary_is_loaded_trimmed(tmp_path: Path) -> None:
    tiny.model().save_pretrained(tmp_path)
    assert read_vocabulary(tmp_path) is None
    assert not isinstance(load_drafter(tmp_path).get_output_embeddings(), TrimmedOutput)
    write_vocabulary(tmp_path, IDS)
    assert torch.equal(read_vocabulary(tmp_path), IDS)  # type: ignore[arg-type]
    head = load_drafter(tmp_path).get_output_embeddings()
    assert isinstance(head, TrimmedOutput)
    assert head.linear.weight.shape == (len(IDS), 32)


@pytest.mark.parametrize("ids", [[], [3, 3], [5, 4], [-1, 2]])
def test_ids_that_do_not_ascend_are_refused(tmp_path: Path, ids: list[int]) -> None:
    with pytest.raises(ValueError, match="draft vocabulary"):
        write_vocabulary(tmp_path, torch.tensor(ids, dtype=torch.int64))
    assert not list(tmp_path.iterdir())


def test_a_broken_vocabulary_file_is_named(tmp_path: Path) -> None:
    tiny.model().save_pretrained(tmp_path)
    (tmp_path / VOCABULARY_FILE).write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match=VOCABULARY_FILE):
        load_drafter(tmp_path)
    write_vocabulary(tmp_path, torch.tensor([2, tiny.VOCABULARY]))
    with pytest.raises(ModelError, match="holds id 61, but the model has 61 ids"):
        load_drafter(tmp_path)


DOCUMENTS = [Document([9, 9, 9, 1, 1, 1, 2, 2, 4], loss_from=3), Document([1, 5, 2, 6], loss_from=1)]
"""Tokens with a loss: 1 three times, 2 three times, 4, 5 and 6 once."""


def test_the_most_frequent_tokens_are_chosen_and_always_the_end() -> None:
    choice = choose_vocabulary(DOCUMENTS, VocabularySettings(size=3), stop_token_ids=frozenset({8}))
    assert choice.ids.tolist() == [1, 2, 8]
    assert choice.report.size == 3
    assert choice.report.tokens == 9
    assert choice.report.coverage == pytest.approx(6 / 9)


def test_a_coverage_is_reached_with_the_fewest_tokens() -> None:
    choice = choose_vocabulary(DOCUMENTS, VocabularySettings(coverage=0.75), stop_token_ids=frozenset({8}))
    assert choice.ids.tolist() == [1, 2, 4, 8]
    assert choice.report.coverage == pytest.approx(7 / 9)
    least = choose_vocabulary(DOCUMENTS, VocabularySettings(coverage=1e-9), stop_token_ids=frozenset({1, 8}))
    assert least.ids.tolist() == [1, 8]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=30),
    st.integers(2, 12),
    st.frozensets(st.integers(0, 9), max_size=2),
)
def test_any_size_gives_that_many_ids_at_most(tokens: list[int], size: int, ends: frozenset[int]) -> None:
    choice = choose_vocabulary([Document(tokens)], VocabularySettings(size=size), stop_token_ids=ends)
    assert len(choice.ids) == min(size, len({*tokens[1:], *ends}))
    assert ends <= set(choice.ids.tolist())
    assert bool((choice.ids.diff() > 0).all())


@pytest.mark.parametrize(
    "values", [{}, {"size": 5, "coverage": 0.5}, {"size": 0}, {"coverage": 0.0}, {"coverage": 1.5}]
)
def test_settings_must_say_one_thing(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="vocabulary"):
        VocabularySettings(**values)  # type: ignore[arg-type]
