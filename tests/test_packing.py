from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from train.packing import IGNORED, Document, PackedRows, pack

ROW = 12
documents = st.lists(
    st.builds(
        Document, tokens=st.lists(st.integers(0, 60), min_size=1, max_size=2 * ROW), loss_from=st.integers(0, ROW)
    ),
    max_size=40,
)


def usable(document: Document) -> bool:
    return max(1, document.loss_from) < min(len(document.tokens), ROW)


def unpack(packed: PackedRows) -> list[list[tuple[list[int], list[int]]]]:
    """Per row, (tokens, labels) of everything between two restarts of the positions, the padding included."""
    rows = []
    for ids, positions, labels in zip(packed.input_ids, packed.position_ids, packed.labels, strict=True):
        ends = [*np.flatnonzero(positions == 0).tolist(), ROW]
        for start, end in pairwise(ends):
            assert positions[start:end].tolist() == list(range(end - start))
        rows.append([(ids[start:end].tolist(), labels[start:end].tolist()) for start, end in pairwise(ends)])
    return rows


def is_padding(piece: tuple[list[int], list[int]]) -> bool:
    return set(piece[1]) == {IGNORED}


@given(documents.filter(lambda found: any(map(usable, found))), st.integers(0, 3))
def test_every_document_is_packed_once_with_its_labels(found: list[Document], seed: int) -> None:
    packed = pack(found, ROW, seed)
    expected = []
    for document in filter(usable, found):
        tokens, first = document.tokens[:ROW], max(1, document.loss_from)
        expected.append((tokens, [IGNORED] * first + tokens[first:]))
    pieces = [piece for row in unpack(packed) for piece in row]
    padding = [tokens for tokens, labels in pieces if is_padding((tokens, labels))]
    assert sorted(piece for piece in pieces if not is_padding(piece)) == sorted(expected)
    assert all(set(tokens) == {0} for tokens in padding)
    report = packed.report
    assert report.documents + report.without_loss == len(found)
    assert report.truncated == sum(usable(document) and len(document.tokens) > ROW for document in found)
    assert report.loss_tokens == packed.loss_tokens.sum() == (packed.labels != IGNORED).sum()
    assert (packed.loss_tokens > 0).all()
    assert report.padding_share == pytest.approx(sum(map(len, padding)) / packed.input_ids.size)


@given(documents.filter(lambda found: any(map(usable, found))))
def test_no_two_rows_could_be_one(found: list[Document]) -> None:
    packed = pack(found, ROW, seed=0)
    used = sorted(sum(len(piece[0]) for piece in row if not is_padding(piece)) for row in unpack(packed))
    assert len(used) < 2 or used[0] + used[1] > ROW


def test_sentences_are_packed_with_little_padding() -> None:
    lengths = np.random.default_rng(0).geometric(1 / 20, size=3000) + 2
    packed = pack([Document([1] * length) for length in lengths.tolist()], 256, seed=0)
    assert packed.report.padding_share < 0.01


def test_packing_is_a_function_of_its_seed() -> None:
    found = [Document([number, number + 1]) for number in range(50)]
    assert (pack(found, 8, 1).input_ids == pack(found, 8, 1).input_ids).all()
    assert (pack(found, 8, 1).input_ids != pack(found, 8, 2).input_ids).any()


@pytest.mark.parametrize("found", [[], [Document([5])], [Document([1, 2, 3], loss_from=3)]])
def test_rows_without_any_loss_are_refused(found: list[Document]) -> None:
    with pytest.raises(ValueError, match="no token has a loss"):
        pack(found, 8, seed=0)


def test_saved_rows_are_loaded_as_they_were_and_replace_older_ones(tmp_path: Path) -> None:
    for tokens in ([1, 2, 3], [4, 5]):
        packed = pack([Document(tokens)], 8, seed=0)
        packed.save(tmp_path / "rows")
    loaded = PackedRows.load(tmp_path / "rows")
    assert isinstance(loaded.input_ids, np.memmap)
    assert loaded.report == packed.report
    for name in ("input_ids", "position_ids", "labels", "loss_tokens"):
        assert (getattr(loaded, name) == getattr(packed, name)).all()
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_a_folder_without_rows_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing: no packed rows"):
        PackedRows.load(tmp_path / "nothing")


@settings(deadline=None, max_examples=10)
@given(st.lists(st.lists(st.integers(0, 60), min_size=2, max_size=ROW), min_size=1, max_size=8))
def test_a_packed_document_has_the_logits_that_it_has_alone(token_lists: list[list[int]]) -> None:
    torch.manual_seed(0)
    shape = LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    model = LlamaForCausalLM(shape).double().eval()
    packed = pack([Document(tokens) for tokens in token_lists], ROW, seed=0)
    with torch.no_grad():
        logits = model(
            input_ids=torch.from_numpy(packed.input_ids).long(),
            position_ids=torch.from_numpy(packed.position_ids).long(),
            attention_mask=None,
            use_cache=False,
        ).logits
        for row, start in np.argwhere(packed.position_ids == 0).tolist():
            after = np.flatnonzero(packed.position_ids[row, start + 1 :] == 0)
            end = start + 1 + int(after[0]) if len(after) else ROW
            alone = model(input_ids=torch.from_numpy(packed.input_ids[row, start:end]).long()[None]).logits[0]
            torch.testing.assert_close(logits[row, start:end], alone, rtol=0, atol=1e-9)
