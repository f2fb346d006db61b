"""The stored law is the target's: its likeliest tokens as they are, or draws that are right on average."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from test_distillation import SETTINGS, work_of
from tiny_target import VOCABULARY, save_target

from common.models import load_model
from train.distillation import teacher
from train.distillation.distill import distill
from train.distillation.store import read_answers, read_taught_documents
from train.distillation.teacher import thin


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_target(tmp_path_factory.mktemp("target"))


def law_by_transformers(target: Path, prompt: tuple[int, ...], output: tuple[int, ...]) -> torch.Tensor:
    """Probabilities [output tokens, V], one plain forward pass a text."""
    with torch.inference_mode():
        logits = load_model(target)(torch.tensor([[*prompt, *output]])).logits[0].double()
    return logits[len(prompt) - 1 : -1].softmax(-1)


@pytest.mark.parametrize("max_logits", [2**26, 20 * VOCABULARY, 1])
def test_top_k_are_the_targets_probabilities_however_it_is_batched(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_logits: int
) -> None:
    monkeypatch.setattr(teacher, "MAX_LOGITS", max_logits)
    list(distill(work_of(target, tmp_path, teacher="top_k", teacher_k=5)))
    answers, documents = list(read_answers(tmp_path)), list(read_taught_documents(tmp_path))
    assert len(answers) == len(documents) == 20
    for answer, document in zip(answers, documents, strict=True):
        assert document.teacher is not None
        ids, weights = document.teacher
        assert ids.shape == weights.shape == (len(document.tokens) - document.loss_from, 5)
        assert ids.dtype == np.int32 and weights.dtype == np.float16
        law = law_by_transformers(target, answer.prompt, answer.output)
        stored = torch.from_numpy(weights).double()
        assert torch.allclose(stored, law.gather(-1, torch.from_numpy(ids).long()), rtol=2e-3, atol=1e-6)
        assert torch.allclose(stored, law.topk(5).values, rtol=2e-3, atol=1e-6), "and they are the likeliest"


def test_draws_are_unbiased_and_top_k_is_not() -> None:
    """Chi-square of 40 draws at each of 2,000 positions with one law; at 19 degrees of freedom a right sampler
    exceeds 55 with probability 2e-5."""
    logits = torch.randn(20, generator=torch.Generator().manual_seed(0)).mul(2).expand(2000, -1)
    settings = msgspec.structs.replace(SETTINGS, teacher="sampled", teacher_k=40)
    law = logits[0].double().softmax(-1).numpy()
    sampled = thin(logits, settings, number=3)
    assert np.allclose(sampled.weights, 1 / 40, rtol=1e-3)
    counts = np.bincount(sampled.ids.ravel(), minlength=20)
    expected = law * counts.sum()
    assert ((counts - expected) ** 2 / expected).sum() < 55

    values = np.log(np.random.default_rng(1).dirichlet(np.ones(20)))
    exact = law @ values
    estimates = (sampled.weights.astype(float) * values[sampled.ids]).sum(-1)
    error = estimates.std() / len(estimates) ** 0.5
    assert abs(estimates.mean() - exact) < 4 * error + 1e-3 * abs(exact), "of sum p log q, as the loss takes it"
    top = thin(logits[:1], msgspec.structs.replace(settings, teacher="top_k", teacher_k=3), number=3)
    assert abs((top.weights.astype(float) * values[top.ids]).sum() - exact) > 0.05


def test_draws_of_an_answer_depend_on_its_number_alone(target: Path, tmp_path: Path) -> None:
    logits = torch.randn(7, 50, generator=torch.Generator().manual_seed(0))
    settings = msgspec.structs.replace(SETTINGS, teacher="sampled")
    first, again, other = (thin(logits, settings, number).ids for number in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    for shard_answers, name in ((6, "six"), (4, "four")):
        list(distill(work_of(target, tmp_path / name, teacher="sampled", shard_answers=shard_answers)))
    six, four = (list(read_taught_documents(tmp_path / name)) for name in ("six", "four"))
    for a, b in zip(six, four, strict=True):
        assert a.teacher is not None and b.teacher is not None
        assert a.tokens == b.tokens and np.array_equal(a.teacher[0], b.teacher[0])


def test_more_tokens_than_the_target_has_are_refused(target: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="teacher_k is 999, but the target has 320 tokens"):
        list(distill(work_of(target, tmp_path, teacher="top_k", teacher_k=999)))
