"""Models are loaded safely or refused with a reason; fingerprints tell whether a drafter fits its target."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_tokenizer
import torch
from msgspec.structs import replace
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from common.models import (
    Fingerprint,
    ModelError,
    fingerprint,
    load_config,
    load_model,
    load_tokenizer,
    mismatch,
    stop_token_ids,
    token_bytes,
)

CONFIG = LlamaConfig(
    vocab_size=400,
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=64,
)


def of(tokenizer: PreTrainedTokenizerFast) -> Fingerprint:
    return fingerprint(tokenizer, CONFIG)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(CONFIG).save_pretrained(folder)
    tiny_tokenizer.byte_level().save_pretrained(folder)
    return folder


@pytest.fixture
def broken(saved: Path, tmp_path: Path) -> Path:
    """A copy to take something away from."""
    for file in saved.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def permuted(tokenizer: PreTrainedTokenizerFast, first: str, second: str) -> PreTrainedTokenizerFast:
    """The same tokens, but two of them have changed ids."""
    serialized = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = serialized["model"]["vocab"]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    return tiny_tokenizer.wrap(Tokenizer.from_str(json.dumps(serialized)))


def test_a_saved_model_is_loaded_in_the_dtype_asked_for(saved: Path) -> None:
    model = load_model(saved, dtype="float64", attention="eager")
    assert model.dtype == torch.float64
    assert not model.training
    assert load_model(str(saved)).dtype == torch.float32
    assert fingerprint(load_tokenizer(saved), load_config(saved)) == of(tiny_tokenizer.byte_level())


@pytest.mark.parametrize("name", ["/no/such/model", "./missing", "~/no-such-model", "runs/a/target", "tests/missing"])
def test_a_missing_folder_is_told_without_asking_a_hub(name: str) -> None:
    for load in (load_model, load_tokenizer, load_config):
        with pytest.raises(ModelError, match=f"^{name}: no such folder$"):
            load(name)


def test_a_hub_that_cannot_be_reached_is_a_model_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for load in (load_model, load_tokenizer):
        with pytest.raises(ModelError, match=r"^some-org/some-model: "):
            load("some-org/some-model")


def test_a_folder_without_configuration_is_refused(broken: Path) -> None:
    (broken / "config.json").unlink()
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        load_model(broken)


def test_a_folder_without_tokenizer_is_refused(broken: Path) -> None:
    (broken / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="holds no tokenizer"):
        load_tokenizer(broken)


def test_pickled_weights_are_refused(broken: Path) -> None:
    (broken / "model.safetensors").unlink()
    torch.save({}, broken / "pytorch_model.bin")
    with pytest.raises(ModelError, match="holds no weights in safetensors format"):
        load_model(broken)


def test_weights_that_are_cut_short_are_refused(broken: Path) -> None:
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=str(broken)):
        load_model(broken)


def test_weights_that_lack_a_layer_are_refused(broken: Path) -> None:
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2, "layer_types": None}))
    with pytest.raises(ModelError, match=r"weights lack model\.layers\.1\."):
        load_model(broken)


def test_code_from_the_model_folder_is_never_run(broken: Path) -> None:
    config = json.loads((broken / "config.json").read_text())
    custom = {"model_type": "custom", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (broken / "config.json").write_text(json.dumps(config | custom))
    (broken / "code.py").write_text("raise SystemExit('was run')")
    with pytest.raises(ModelError, match="custom code"):
        load_model(broken)


@pytest.mark.parametrize("kind", [tiny_tokenizer.byte_level, tiny_tokenizer.byte_fallback])
def test_token_bytes_spell_the_text(kind: Callable[[], PreTrainedTokenizerFast]) -> None:
    tokenizer = kind()
    table = token_bytes(tokenizer)
    text = " the theme: 東京 — schön\n\t🙂"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    spelled = b"".join(table[index] or b"?" for index in ids).decode()
    assert spelled.removeprefix(" ") == text.removeprefix(" ")


def test_a_special_token_differs_from_a_text_that_looks_like_it() -> None:
    tokenizer = tiny_tokenizer.byte_level()
    tokenizer.add_tokens(["<tool>"])
    table = token_bytes(tokenizer)
    assert table[tokenizer.eos_token_id] == b"\0</s>"
    assert table[tokenizer.convert_tokens_to_ids("<tool>")] == b"<tool>"


def test_the_same_tokenizer_fits() -> None:
    assert of(tiny_tokenizer.byte_level()) == of(tiny_tokenizer.byte_level())
    assert mismatch(of(tiny_tokenizer.byte_level()), of(tiny_tokenizer.byte_level())) is None


def test_permuted_ids_do_not_fit() -> None:
    target = tiny_tokenizer.byte_level()
    assert "other bytes" in str(mismatch(of(target), of(permuted(target, "a", "b"))))


def test_another_end_of_text_does_not_fit() -> None:
    target, drafter = of(tiny_tokenizer.byte_level()), of(tiny_tokenizer.byte_level(eos="<pad>"))
    assert mismatch(target, drafter) == "the drafter's eos token is 2, the target's 1"


def test_a_smaller_vocabulary_does_not_fit() -> None:
    target, drafter = of(tiny_tokenizer.byte_level()), of(tiny_tokenizer.byte_level(vocab_size=380))
    assert "other bytes" in str(mismatch(target, drafter))


def test_padding_rows_of_the_target_alone_do_not_matter() -> None:
    drafter = of(tiny_tokenizer.byte_level())
    target = replace(drafter, vocab_size=drafter.vocab_size + 64)
    assert mismatch(target, drafter) is None
    assert mismatch(drafter, target) == "the drafter's vocabulary has 464 ids, the target's 400"


def test_the_drafter_must_reach_as_far_as_the_texts_that_are_served() -> None:
    target = of(tiny_tokenizer.byte_level())
    drafter = replace(target, context_length=32)
    assert mismatch(target, drafter) == "the drafter's context is 32 tokens, needed are 64"
    assert mismatch(target, drafter, context_length=32) is None


@pytest.mark.parametrize(
    ("generation", "config", "stops"),
    [
        ({"eos_token_id": [7, 9]}, 8, {1, 7, 9}),
        ({"eos_token_id": 7}, 8, {1, 7}),
        ({"temperature": 0.5}, 8, {1, 8}),
        (None, [1, 8], {1, 8}),
        (None, 8, {1, 8}),
        (None, None, {1}),
    ],
)
def test_a_text_ends_where_the_tokenizer_and_the_models_makers_say(
    broken: Path, generation: dict[str, object] | None, config: int | list[int] | None, stops: set[int]
) -> None:
    """Gemma's <end_of_turn>, Llama's <|eot_id|>: the end of an answer is not the end of a document."""
    changed = json.loads((broken / "config.json").read_text()) | {"eos_token_id": config}
    (broken / "config.json").write_text(json.dumps(changed))
    if generation is None:
        (broken / "generation_config.json").unlink()
    else:
        (broken / "generation_config.json").write_text(json.dumps(generation))
    assert stop_token_ids(broken, load_tokenizer(broken)) == stops


def test_a_broken_generation_config_is_told(broken: Path) -> None:
    (broken / "generation_config.json").write_text("{")
    with pytest.raises(ModelError, match=str(broken)):
        stop_token_ids(broken, tiny_tokenizer.byte_level())
