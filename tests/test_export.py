"""A drafter folder is a plain model for others: transformers' assisted generation, and what vLLM reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_tokenizer
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from common.engine.drafters import load_drafter
from common.engine.trimming import TrimmedOutput
from common.models import load_model
from common.vocabulary import VOCABULARY_FILE, write_vocabulary
from train.export import save
from train.initial import save_initial_drafter
from train.job import LoopSettings, TrainingJob
from train.shapes import DrafterInit, ModelShape

SHAPE = ModelShape(hidden_size=32, num_layers=1, num_heads=4, intermediate_size=48)
KEPT = torch.arange(1, 400, 2)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the drafters' shape but twice as deep, and sharp enough that it does not write one token forever."""
    folder, tokenizer = tmp_path_factory.mktemp("target"), tiny_tokenizer.byte_level()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=400,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    for parameter in model.parameters():
        parameter.data.mul_(6.0 if parameter.dim() > 1 else 1.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=["whole", "trimmed"])
def drafter(request: pytest.FixtureRequest, target: Path, tmp_path: Path) -> Path:
    """Exported the way training does it: from the trained model, and what lay beside the initial one."""
    initial, trained = tmp_path / "initial", tmp_path / "model"
    save_initial_drafter(initial, DrafterInit(start="prune"), SHAPE, target, seed=0)
    if request.param == "trimmed":
        write_vocabulary(initial, KEPT)
    model = load_model(initial)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(0.9)
    settings = LoopSettings(steps=1, rows_per_step=1, learning_rate=0.1, row_length=16)
    job = TrainingJob(name="de", init=str(initial), data="", output=str(trained), settings=settings)
    trained.mkdir()
    save(model, job, 0, trained)
    return trained


def test_assisted_generation_writes_the_targets_own_greedy_text(target: Path, drafter: Path) -> None:
    model, assistant = (AutoModelForCausalLM.from_pretrained(folder) for folder in (target, drafter))
    calls = []
    assistant.register_forward_hook(lambda *_: calls.append(1))
    for prompt in ([5, 9, 13], [40, 41], [7]):
        ids = torch.tensor([prompt])
        greedy = {"attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": 24}
        plain = model.generate(ids, **greedy)
        assert torch.equal(model.generate(ids, assistant_model=assistant, **greedy), plain)
        assert len({*plain[0].tolist()}) > 3, "else any model would do"
    assert calls, "the assistant drafted"


def test_the_folder_is_a_plain_llama(target: Path, drafter: Path) -> None:
    """What vLLM's draft-model method asks for: an architecture it knows and the target's vocabulary size."""
    config, own = (json.loads((folder / "config.json").read_text()) for folder in (target, drafter))
    assert config["architectures"] == own["architectures"] == ["LlamaForCausalLM"]
    assert own["model_type"] == "llama"
    for key in ("vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id", "tie_word_embeddings"):
        assert own[key] == config[key], key
    assert own["num_hidden_layers"] == 1
    assert "auto_map" not in own
    assert (drafter / "tokenizer.json").read_bytes() == (target / "tokenizer.json").read_bytes()


def test_every_safetensors_file_holds_the_models_weights_and_nothing_else(drafter: Path) -> None:
    """Without an index vLLM reads all of them as weights, and refuses names that the architecture does not have."""
    names = set()
    for path in drafter.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            names |= {*file.keys()}
    plain = LlamaForCausalLM(LlamaConfig.from_pretrained(drafter))
    assert names == plain.state_dict().keys() - {"lm_head.weight"}


def test_our_engine_reads_the_vocabulary_that_others_ignore(drafter: Path) -> None:
    trimmed = isinstance(load_drafter(drafter).get_output_embeddings(), TrimmedOutput)
    assert trimmed == (drafter / VOCABULARY_FILE).is_file()
    assert load_model(drafter).get_output_embeddings().weight.shape == (400, 32)
