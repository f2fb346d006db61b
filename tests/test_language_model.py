"""The model as the training loop sees it: what it is taught at which position, and by whom."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import GraniteConfig, GraniteForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from common.vocabulary import write_vocabulary
from tests import tiny_tokenizer
from train.language_model import (
    OnlineTeacher,
    PackedLanguageModel,
    check_teacher,
    exact_buffers,
    load_language_model,
    load_model,
)
from train.objectives.objective import Objective
from train.objectives.settings import ObjectiveSettings
from train.packing import IGNORED, Document, pack

SHAPE = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
}
DOCUMENTS = [Document([1, 2, 3, 4, 5], loss_from=3), Document([6, 7, 8]), Document([9, 10], loss_from=1)]
FORWARD_KL = ObjectiveSettings(terms={"forward_kl": 1.0}, teacher="online")


def llama(seed: int = 0, **changes: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{**SHAPE, **changes})).double()


def rows(documents: list[Document] = DOCUMENTS) -> dict[str, Tensor]:
    packed = pack(documents, 12, seed=0)
    names = ("input_ids", "position_ids", "labels")
    return {name: torch.from_numpy(getattr(packed, name)).long() for name in names}


def log_laws(model: PreTrainedModel) -> Tensor:
    """[labelled tokens, vocabulary] of all documents, one document at a time."""
    found = []
    for document in DOCUMENTS:
        law = model(input_ids=torch.tensor([document.tokens])).logits[0].log_softmax(-1)
        found.append(law[max(1, document.loss_from) - 1 : -1])
    return torch.cat(found)


def labels() -> Tensor:
    return torch.tensor([token for d in DOCUMENTS for token in d.tokens[max(1, d.loss_from) :]])


def test_the_loss_of_packed_rows_is_the_sum_over_their_documents() -> None:
    model = llama()
    loss, sums = PackedLanguageModel(model)(**rows())
    expected = -log_laws(model).gather(-1, labels()[:, None]).sum()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
    assert sums.keys() == {"ce"} and sums["ce"].item() == loss.item()


def test_an_online_teacher_sees_the_same_documents_and_is_not_trained() -> None:
    student, model = llama(0), llama(1, hidden_size=32, vocab_size=70)
    module = PackedLanguageModel(student, Objective(FORWARD_KL), teacher=OnlineTeacher(model))
    loss, sums = module(**rows())
    log_p, log_q = log_laws(model)[:, :64], log_laws(student)
    kept = log_p.exp().sum(-1)
    expected = (log_p.exp() * (log_p - log_q)).sum() - (kept * kept.log()).sum()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-9)
    assert sums["acceptance"].item() == pytest.approx(torch.minimum(log_p.exp(), log_q.exp()).sum().item(), abs=1e-9)
    loss.backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())
    assert {id(p) for p in module.parameters()} == {id(p) for p in student.parameters()}


def test_a_stored_law_teaches_the_token_that_it_stands_at() -> None:
    """One that is certain of the labels is cross-entropy; weights elsewhere are not looked at."""
    model, batch = llama(), rows()
    ids = batch["labels"].clamp(min=0)[..., None].expand(-1, -1, 2).int()
    weights = torch.where(batch["labels"] == IGNORED, torch.nan, 0.5)[..., None].expand(-1, -1, 2).half()
    stored = ObjectiveSettings(terms={"forward_kl": 1.0}, teacher="stored")
    loss, _ = PackedLanguageModel(model, Objective(stored))(**batch, stored=(ids, weights))
    assert loss.item() == pytest.approx(PackedLanguageModel(model)(**batch)[0].item(), abs=1e-9)


@settings(deadline=None, max_examples=20)
@given(st.sets(st.integers(0, 63), min_size=1))
def test_a_trimmed_vocabulary_shares_the_probability_among_its_ids(ids: set[int]) -> None:
    vocabulary = torch.tensor(sorted(ids))
    model = llama()
    loss, _ = PackedLanguageModel(model, vocabulary=vocabulary)(**rows())
    known = torch.isin(labels(), vocabulary)
    law = log_laws(model)
    losses = law[:, vocabulary].logsumexp(-1) - law.gather(-1, labels()[:, None])[:, 0]
    assert loss.item() == pytest.approx(losses[known].sum().item(), abs=1e-9)


def test_positions_without_a_label_are_not_projected(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_where_wanted(model: PreTrainedModel, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        states = torch.full((*input_ids.shape, 16), torch.nan, dtype=torch.float64)
        states[:, :-1][batch["labels"][:, 1:] != IGNORED] = 1.0
        return states.requires_grad_()

    monkeypatch.setattr("train.language_model.final_states", only_where_wanted)
    batch, model = rows(), llama()
    loss, _ = PackedLanguageModel(model)(**batch)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(model.lm_head.weight.grad).all()


def save(model: PreTrainedModel, folder: Path, **tokenizer: int) -> str:
    model.save_pretrained(folder)
    tiny_tokenizer.byte_level(**tokenizer).save_pretrained(folder)
    return str(folder)


def test_a_model_is_loaded_with_its_vocabulary_its_objective_and_its_teacher(tmp_path: Path) -> None:
    shape = {"vocab_size": 400, "bos_token_id": 0, "eos_token_id": 1}
    student = save(llama(0, **shape), tmp_path / "student")
    teacher = save(llama(1, **shape, max_position_embeddings=64), tmp_path / "teacher")
    write_vocabulary(Path(student), torch.arange(1, 20))
    module = load_language_model(student, FORWARD_KL, steps=3, row_length=12, teacher=teacher)
    assert module.training and module.names == ("forward_kl", "acceptance")
    loss, sums = module(**rows(), step=2)
    assert 0 < sums["acceptance"].item() < 1 and loss.dtype == torch.float32
    assert "_vocabulary" not in module.state_dict()
    with pytest.raises(ValueError, match="no teacher is named"):
        load_language_model(student, FORWARD_KL, steps=3, row_length=12)


def test_a_teacher_that_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    shape = {"vocab_size": 400, "bos_token_id": 0, "eos_token_id": 1}
    student = save(llama(0, **shape), tmp_path / "student")
    other = save(llama(1, **shape), tmp_path / "other", vocab_size=300)
    with pytest.raises(ValueError, match=r"other cannot teach .*student: token ids mean other bytes"):
        check_teacher(other, student, 12)
    short = save(llama(1, **shape, max_position_embeddings=16), tmp_path / "short")
    with pytest.raises(ValueError, match=r"short cannot teach .*: the teacher's context is 16 tokens, rows have 32"):
        check_teacher(short, student, 32)
    check_teacher(short, student, 16)


def test_a_model_that_scales_its_logits_is_refused(tmp_path: Path) -> None:
    GraniteForCausalLM(GraniteConfig(**SHAPE, logits_scaling=8.0)).save_pretrained(tmp_path / "granite")
    with pytest.raises(ValueError, match="granite: its output layer is more than a projection"):
        load_model(str(tmp_path / "granite"))
    llama().save_pretrained(tmp_path / "llama")
    load_model(str(tmp_path / "llama"))


def test_a_teacher_in_bfloat16_turns_its_positions_as_the_target_does(tmp_path: Path) -> None:
    """Cast to it, it would not: frequencies rounded to 8 bits are off by a whole turn after some hundred tokens."""
    shape = {"vocab_size": 400, "bos_token_id": 0, "eos_token_id": 1}
    student, teacher = (save(llama(seed, **shape).float(), tmp_path / f"{seed}") for seed in (0, 1))
    module = load_language_model(
        student, FORWARD_KL, steps=3, row_length=12, teacher=teacher, teacher_dtype=torch.bfloat16
    )
    law = module._teacher._model  # type: ignore[union-attr]
    assert {p.dtype for p in law.parameters()} == {torch.bfloat16} and not law.training
    exact = dict(load_model(teacher).named_buffers())
    assert exact and all(torch.equal(buffer, exact[name]) for name, buffer in law.named_buffers())
    assert any(not torch.equal(buffer, buffer.bfloat16().float()) for buffer in exact.values())


def test_a_student_that_is_cast_keeps_what_is_no_weight() -> None:
    module = PackedLanguageModel(llama().float(), vocabulary=torch.tensor([3, 5]))
    exact = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with exact_buffers(module):
        module.bfloat16()
    assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
    found = dict(module.named_buffers())
    assert found.keys() == exact.keys() and all(torch.equal(found[name], exact[name]) for name in exact)
