"""N-gram drafters: the law against its definition, pruning to a size, loading, and drafting like any other."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_tokenizer
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from common.engine.decoding import build_decoder
from common.engine.drafters import load_drafter, make_runner
from common.engine.drafting import Drafting
from common.engine.engine import Engine
from common.messages import Score, Scored
from common.models import ModelError, fingerprint, load_config, load_tokenizer, mismatch
from common.ngram_model import NGRAM_FILE, NOTHING, NgramConfig, NgramModel
from common.registry import Registry
from common.rounds import TokenLog
from common.types import GenerationRequest, SamplingParams
from train.ngram import count_ngrams, save_ngram_drafter
from train.packing import Document
from train.shapes import NgramSettings

VOCABULARY = 5
LARGE = 100.0

texts = st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=12), min_size=1, max_size=6)


def counted(documents: list[Document], *, order: int = 3, max_megabytes: float = LARGE) -> NgramModel:
    config = NgramConfig(order=order, vocab_size=VOCABULARY, max_position_embeddings=64)
    return count_ngrams(documents, NgramSettings(order=order, max_megabytes=max_megabytes), config)


def kneser_ney(documents: list[Document], order: int, context: tuple[int, ...]) -> list[float]:
    """The law after `context` (earliest token first), by the book: dictionaries and recursion."""
    grams = {order: Counter[tuple[int, ...]]()}
    for document in documents:
        tokens = [NOTHING] * (order - 1) + document.tokens
        for end in range(order - 1 + max(1, document.loss_from), len(tokens)):
            grams[order][tuple(tokens[end - order + 1 : end + 1])] += 1
    for length in range(order - 1, 0, -1):
        grams[length] = Counter(longer[1:] for longer in grams[length + 1])
    return _law(grams, context[-(order - 1) :] if order > 1 else ())


def _law(grams: dict[int, Counter[tuple[int, ...]]], context: tuple[int, ...]) -> list[float]:
    lower = _law(grams, context[1:]) if context else [1 / VOCABULARY] * VOCABULARY
    level = grams[len(context) + 1]
    frequencies = Counter(level.values())
    discount = frequencies[1] / (frequencies[1] + 2 * frequencies[2]) if frequencies[1] and frequencies[2] else 0.5
    following = {gram[-1]: count for gram, count in level.items() if gram[:-1] == context}
    if not following:
        return lower
    total, left = sum(following.values()), discount * len(following)
    return [
        (following[w] - discount if w in following else 0.0) / total + left / total * lower[w]
        for w in range(VOCABULARY)
    ]


@settings(max_examples=60, deadline=None)
@given(texts, st.lists(st.integers(0, VOCABULARY - 1), max_size=4), st.integers(2, 4), st.integers(0, 3))
def test_the_law_is_interpolated_kneser_ney(
    tokens: list[list[int]], context: list[int], order: int, loss_from: int
) -> None:
    documents = [Document(t, loss_from=min(loss_from, len(t) - 1)) for t in tokens]
    padded = ([NOTHING] * order + context)[-(order - 1) :]
    law_V = counted(documents, order=order)(torch.tensor([padded[::-1]])).exp()[0]
    assert law_V.sum() == pytest.approx(1.0, abs=1e-3)
    # Shares are kept in half precision.
    np.testing.assert_allclose(law_V, kneser_ney(documents, order, tuple(padded)), atol=2e-3)


@settings(max_examples=30, deadline=None)
@given(texts, st.floats(1e-5, 4e-4))
def test_a_pruned_model_keeps_to_its_size_and_stays_a_law(tokens: list[list[int]], max_megabytes: float) -> None:
    model = counted([Document(t) for t in tokens], max_megabytes=max_megabytes)
    table = 16 * len(model.keys) + 6 * len(model.tokens)
    assert table <= max_megabytes * 1e6
    contexts = torch.tensor([t[1::-1] for t in tokens])
    np.testing.assert_allclose(model(contexts).exp().sum(dim=1), 1.0, atol=1e-3)


def test_what_is_pruned_first_gains_least() -> None:
    """After 1 comes 2, always; after 3 comes anything: that context says no more than the empty one."""
    documents = [Document([1, 2, 3, w]) for w in (0, 1, 2, 3, 4)] * 20
    model = counted(documents, order=2, max_megabytes=30e-6)
    after_1, after_3 = model(torch.tensor([[1], [3]])).exp()
    assert after_1[2] > 0.9 > after_3.max()


def test_tokens_without_a_loss_are_context_but_are_not_learnt() -> None:
    model = counted([Document([4, 4, 4, 1, 2], loss_from=3)] * 50)
    law_V = model(torch.tensor([[4, 4]])).exp()[0]
    assert law_V[1] > 0.9
    assert model(torch.tensor([[NOTHING, NOTHING]])).exp()[0, 4] < 0.1
    with pytest.raises(ValueError, match="no token has a loss"):
        counted([Document([1])])


@pytest.mark.parametrize(
    ("values", "message"),
    [({"order": 1}, "order is 1"), ({"max_megabytes": 0.0}, "max_megabytes is 0")],
)
def test_settings_out_of_range_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NgramSettings(**values)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("target")
    model = tiny.model()
    model.config.bos_token_id, model.config.eos_token_id = 0, 1
    model.resize_token_embeddings(400)
    model.float().save_pretrained(folder)
    tiny_tokenizer.byte_level().save_pretrained(folder)
    return folder


@pytest.fixture
def drafter(target: Path, tmp_path: Path) -> Path:
    tokenizer = load_tokenizer(target)
    documents = [Document([*ids, 1]) for ids in tokenizer(list(tiny_tokenizer.TEXT))["input_ids"]]
    save_ngram_drafter(tmp_path / "ngram", documents, NgramSettings(order=3), target)
    return tmp_path / "ngram"


def test_a_drafter_folder_fits_its_target_and_is_published_like_any_other(
    target: Path, drafter: Path, tmp_path: Path
) -> None:
    own = fingerprint(load_tokenizer(drafter), load_config(drafter))
    assert mismatch(fingerprint(load_tokenizer(target), load_config(target)), own) is None
    registry = Registry(tmp_path / "registry")
    manifest = registry.publish("de", drafter, target="target", fingerprint=own, metrics={}, provenance={})
    fetched = load_drafter(registry.fetch(manifest, tmp_path / "cache"))
    contexts = torch.tensor([[5, 6], [NOTHING, NOTHING]])
    assert torch.equal(fetched(contexts), load_drafter(drafter)(contexts))


def test_it_drafts_the_text_that_it_was_made_of(target: Path, drafter: Path) -> None:
    """Whose next tokens are certain: a verifier that writes that text accepts all."""
    tokenizer = load_tokenizer(target)
    tokens = tokenizer(tiny_tokenizer.TEXT[0])["input_ids"]
    request = GenerationRequest(prompt=tuple(tokens[:4]), max_tokens=40, sampling=SamplingParams(temperature=0.0))
    engine = Engine(make_runner(load_drafter(drafter), kv_tokens=256), Drafting())
    log = TokenLog(request)
    engine.handle(0, log.open(0, ""))
    engine.handle(0, Score(session=0, base=4, committed=(*tokens[4:], 1, 7)))
    [(_, scored)] = engine.step()
    assert isinstance(scored, Scored)
    assert scored.agreed == len(tokens) - 4 + 1  # the end too; what comes after it is anyone's guess
    engine.handle(0, log.propose(0, 4, 3))
    replies = [reply for _ in range(3) for _, reply in engine.step()]
    assert replies[0].tokens == tuple(tokens[4:7])
    engine.check_integrity()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_speculation_with_it_leaves_the_text_as_it_is(target: Path, drafter: Path, temperature: float) -> None:
    requests = [
        GenerationRequest(prompt=(0, *range(20 + i, 24 + i)), max_tokens=16, sampling=SamplingParams(
            temperature=temperature, top_p=0.95, repetition_penalty=1.2, seed=i))
        for i in range(4)
    ]  # fmt: skip
    plain = build_decoder(load_drafter(target), max_length=64, concurrency=4).generate(requests)
    decoder = build_decoder(load_drafter(target), load_drafter(drafter), max_length=64, concurrency=3)
    assert [g.output for g in decoder.generate(requests)] == [g.output for g in plain]


def _put(name: str, value: torch.Tensor):  # type: ignore[no-untyped-def]
    return lambda tables: tables | {name: value}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_put("keys", torch.tensor([3, 1])), "`keys`"),
        (_put("starts", torch.zeros(1, dtype=torch.int32)), "`starts`"),
        (_put("tokens", torch.tensor([400], dtype=torch.int32)), "`tokens`"),
        (_put("unigram", torch.zeros(400)), "`unigram`"),
        (_put("shares", torch.zeros(3)), "`shares` must be torch.float16"),
        (lambda tables: {k: v for k, v in tables.items() if k != "backoff"}, "`backoff`"),
    ],
)
def test_broken_tables_are_refused_naming_the_file(drafter: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    path = drafter / NGRAM_FILE
    tables = change(load_file(path))
    save_file(tables, path)
    with pytest.raises(ModelError, match=rf"{NGRAM_FILE}: .*{message}"):
        load_drafter(drafter)
