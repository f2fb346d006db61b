import resource
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from train.packing import IGNORED, Document, PackedRows, pack, pack_to

ROW = 12


def lists_of(longest: int) -> st.SearchStrategy[list[Document]]:
    """Documents of at most so many tokens, the loss anywhere, in some of them on no token."""
    tokens = st.lists(st.integers(0, 60), min_size=1, max_size=longest)
    return st.lists(st.builds(Document, tokens=tokens, loss_from=st.integers(0, longest)), max_size=40)


def usable(document: Document) -> bool:
    return max(1, document.loss_from) < len(document.tokens)


short, documents = lists_of(ROW), lists_of(5 * ROW)


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


@given(short.filter(lambda found: any(map(usable, found))), st.integers(0, 3))
def test_every_document_that_fits_is_packed_once_with_its_labels(found: list[Document], seed: int) -> None:
    packed = pack(found, ROW, seed)
    expected = []
    for document in filter(usable, found):
        tokens, first = document.tokens, max(1, document.loss_from)
        expected.append((tokens, [IGNORED] * first + tokens[first:]))
    pieces = [piece for row in unpack(packed) for piece in row]
    padding = [tokens for tokens, labels in pieces if is_padding((tokens, labels))]
    assert sorted(piece for piece in pieces if not is_padding(piece)) == sorted(expected)
    assert all(set(tokens) == {0} for tokens in padding)
    report = packed.report
    assert report.documents + report.without_loss == len(found)
    assert report.split == 0
    assert report.loss_tokens == packed.loss_tokens.sum() == (packed.labels != IGNORED).sum()
    assert (packed.loss_tokens > 0).all()
    assert report.padding_share == pytest.approx(sum(map(len, padding)) / packed.input_ids.size)


@given(documents.filter(lambda found: any(map(usable, found))), st.integers(0, 3))
def test_every_token_with_a_loss_is_a_label_once_and_follows_the_token_before_it(
    found: list[Document], seed: int
) -> None:
    # Every token says where it stands.
    placed = [
        Document(list(range(1000 * number, 1000 * number + len(d.tokens))), d.loss_from)
        for number, d in enumerate(found, start=1)
    ]
    packed = pack(placed, ROW, seed)
    segments = [piece for row in unpack(packed) for piece in row if not is_padding(piece)]
    for tokens, labels in segments:
        assert tokens == list(range(tokens[0], tokens[0] + len(tokens)))
        assert labels[0] == IGNORED and all(
            label in (IGNORED, token) for token, label in zip(tokens, labels, strict=True)
        )
    learned = sorted(label for _, labels in segments for label in labels if label != IGNORED)
    assert learned == [token for d in placed for token in d.tokens[max(1, d.loss_from) :]]
    report = packed.report
    assert report.documents == sum(map(usable, found)) == len(found) - report.without_loss
    assert report.split == sum(usable(document) and len(document.tokens) > ROW for document in found)
    assert report.tokens == sum(len(tokens) for tokens, _ in segments)


def test_segments_overlap_by_the_token_that_the_next_one_is_predicted_from() -> None:
    text = pack([Document([1, 2, 3, 4, 5, 6, 7])], 4, seed=0)
    assert sorted(text.input_ids.tolist()) == [[1, 2, 3, 4], [4, 5, 6, 7]]
    assert sorted(text.labels.tolist()) == [[IGNORED, 2, 3, 4], [IGNORED, 5, 6, 7]]
    assert text.position_ids.tolist() == [[0, 1, 2, 3]] * 2
    answer = pack([Document([1, 2, 3, 4, 5, 6, 7, 8, 9], loss_from=5)], 4, seed=0, answers_only=True)
    assert sorted(answer.input_ids.tolist()) == [[4, 5, 6, 7], [7, 8, 9, 0]], "nothing to learn in the first four"
    assert sorted(answer.labels.tolist()) == [[IGNORED, IGNORED, 6, 7], [IGNORED, 8, 9, IGNORED]]
    assert (answer.report.documents, answer.report.split, answer.report.unmasked) == (1, 1, 0)


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


@given(documents.filter(lambda found: any(map(usable, found))), st.integers(1, 60))
def test_packing_portion_by_portion_loses_nothing(found: list[Document], portion: int) -> None:
    with TemporaryDirectory() as folder:
        report = pack_to(Path(folder) / "rows", iter(found), ROW, seed=0, portion=portion)
        packed = PackedRows.load(Path(folder) / "rows")
        whole = pack(found, ROW, seed=0)
        assert packed.report == report
        for name in ("documents", "without_loss", "unmasked", "split", "tokens", "loss_tokens"):
            assert getattr(report, name) == getattr(whole.report, name)
        assert report.rows == len(packed.input_ids) and report.padding_share == pytest.approx(
            1 - report.tokens / packed.input_ids.size
        )
        assert sorted(documents_of(packed)) == sorted(documents_of(whole))


def documents_of(packed: PackedRows) -> list[tuple[list[int], list[int]]]:
    return [
        (packed.input_ids[row, span].tolist()[: len(found)], found)
        for row in range(len(packed.input_ids))
        for span in packed.document_spans(row)
        for found in [packed.labels[row, span].tolist()]
    ]


def test_a_corpus_of_one_portion_is_packed_on_disk_as_in_memory(tmp_path: Path) -> None:
    found = [Document([number, *range(number % 5 + 1)]) for number in range(50)]
    pack_to(tmp_path / "rows", found, ROW, seed=3)
    on_disk, in_memory = PackedRows.load(tmp_path / "rows"), pack(found, ROW, seed=3)
    assert (on_disk.input_ids == in_memory.input_ids).all() and (on_disk.labels == in_memory.labels).all()


def test_no_more_than_a_portion_is_held_in_memory(tmp_path: Path) -> None:
    alive: set[int] = set()
    most = 0

    class Tracked(list[int]):
        def __del__(self) -> None:
            alive.discard(id(self))

    def stream() -> Iterator[Document]:
        nonlocal most
        for _ in range(2000):
            tokens = Tracked([1] * 10)
            alive.add(id(tokens))
            most = max(most, len(alive))
            yield Document(tokens)

    report = pack_to(tmp_path / "rows", stream(), 20, seed=0, portion=1000)
    assert report.documents == 2000 and most <= 300


def test_a_portion_without_any_loss_does_not_matter_while_another_has_one(tmp_path: Path) -> None:
    found = [Document([1, 2, 3], loss_from=3), Document([4, 5])]
    report = pack_to(tmp_path / "rows", found, ROW, seed=0, portion=1)
    assert (report.documents, report.without_loss) == (1, 1)


@pytest.mark.parametrize("stream", [False, True])
def test_learning_answers_only_is_refused_where_every_prompt_is_empty(tmp_path: Path, stream: bool) -> None:
    def packed(found: list[Document]) -> object:
        if stream:
            return pack_to(tmp_path / "rows", found, ROW, 0, answers_only=True, portion=1)
        return pack(found, ROW, 0, answers_only=True)

    with pytest.raises(ValueError, match=r"every token has a loss in all 2 documents.*the prompts are empty"):
        packed([Document([1, 2, 3]), Document([1, 2], loss_from=1)])
    assert not list(tmp_path.iterdir())
    packed([Document([1, 2, 3]), Document([1, 2, 3], loss_from=2)])


@pytest.mark.parametrize("found", [[], [Document([5])], [Document([1, 2, 3], loss_from=3)]])
def test_rows_without_any_loss_are_refused(tmp_path: Path, found: list[Document]) -> None:
    with pytest.raises(ValueError, match="no token has a loss"):
        pack(found, 8, seed=0)
    with pytest.raises(ValueError, match="/rows: no token has a loss"):
        pack_to(tmp_path / "rows", found, 8, seed=0)
    assert not list(tmp_path.iterdir())


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


def teacher(tokens: list[int], loss_from: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and weights that tell which token they are the law of."""
    ids = np.array(tokens[loss_from:], np.int32)[:, None] * 10 + np.arange(size, dtype=np.int32)
    return ids, (ids / 1000).astype(np.float16)


@given(documents.filter(lambda found: any(map(usable, found))), st.integers(1, 3), st.integers(1, 60))
def test_a_stored_teacher_lies_at_the_token_that_it_is_the_law_of(
    found: list[Document], size: int, portion: int
) -> None:
    taught = [Document(d.tokens, d.loss_from, teacher(d.tokens, d.loss_from, size)) for d in found]
    with TemporaryDirectory() as folder:
        pack_to(Path(folder) / "rows", taught, ROW, seed=0, portion=portion)
        packed = PackedRows.load(Path(folder) / "rows")
        ids, weights = np.array(packed.teacher_ids), np.array(packed.teacher_weights)
        assert ids.dtype == np.int32 and weights.dtype == np.float16
        learned = packed.labels != IGNORED
        expected = packed.labels[learned][:, None] * 10 + np.arange(size)
        assert (ids[learned] == expected).all() and (weights[learned] == (expected / 1000).astype(np.float16)).all()
        assert (weights[~learned] == 0).all()
    assert pack(found, ROW, seed=0).teacher_ids is None


def test_teachers_of_different_sizes_are_refused(tmp_path: Path) -> None:
    small, large, none = (Document([1, 2], 0, teacher([1, 2], 0, k) if k else None) for k in (1, 2, 0))
    for other in (large, none):
        with pytest.raises(ValueError, match="teachers of different K"):
            pack([small, other], ROW, seed=0)
        with pytest.raises(ValueError, match="teachers of different K"):
            pack_to(tmp_path / "rows", [small, other], ROW, seed=0, portion=1)


@pytest.mark.parametrize("limit", [0, 100, 1000])
def test_rows_that_do_not_fit_on_the_disk_are_an_error_that_names_them(tmp_path: Path, limit: int) -> None:
    rows = pack([Document([1] * 10)] * 100, ROW, seed=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match=r"'.*/rows'$"):
            rows.save(tmp_path / "rows")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


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
