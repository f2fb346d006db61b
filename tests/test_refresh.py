from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from common.vocabulary import write_vocabulary
from tests import tiny_tokenizer
from train.recipe import RefreshSettings
from train.refresh import refresh_documents

PROMPTS = [(3, 4, 5), (6, 7), (8,), (9, 10, 11, 12)]
END = 1


@pytest.fixture
def drafter(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=400, max_position_embeddings=64, bos_token_id=0, eos_token_id=END, **shape)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tiny_tokenizer.byte_level().save_pretrained(tmp_path)
    return tmp_path


def test_the_drafter_answers_every_prompt_and_the_loss_is_on_its_answers(drafter: Path) -> None:
    documents = list(refresh_documents(drafter, PROMPTS, RefreshSettings(prompts=3, max_tokens=6), frozenset({END})))
    assert len(documents) == 3
    for document, prompt in zip(documents, PROMPTS, strict=False):
        answer = document.tokens[document.loss_from :]
        assert tuple(document.tokens[: document.loss_from]) == prompt
        assert 1 <= len(answer) <= 6 and END not in answer[:-1]


def test_the_same_seed_writes_the_same_answers_whatever_the_concurrency(drafter: Path) -> None:
    def answers(seed: int, concurrency: int) -> list[list[int]]:
        settings = RefreshSettings(prompts=10, max_tokens=6, seed=seed, concurrency=concurrency)
        return [document.tokens for document in refresh_documents(drafter, PROMPTS * 3, settings, frozenset({END}))]

    assert answers(0, 1) == answers(0, 4) != answers(1, 4)


def test_a_trimmed_drafter_writes_only_what_it_can_propose(drafter: Path) -> None:
    write_vocabulary(drafter, torch.tensor([END, 5, 17]))
    for document in refresh_documents(drafter, PROMPTS, RefreshSettings(prompts=4, max_tokens=20), frozenset({END})):
        assert set(document.tokens[document.loss_from :]) <= {END, 5, 17}


@pytest.mark.parametrize("change", [{"prompts": 0}, {"max_tokens": 0}, {"concurrency": 0}, {"temperature": -1.0}])
def test_settings_out_of_range_are_named(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        RefreshSettings(**{"prompts": 1, **change})
