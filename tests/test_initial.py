"""What a drafter's weights are before training: random, a checkpoint's, or some of the target's layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import tiny_tokenizer
import torch
from transformers import PreTrainedTokenizerFast

from common.models import ModelError, fingerprint, load_config, load_model, load_tokenizer, mismatch
from train.initial import save_initial_drafter
from train.pruning import keep_layers, spread_layers
from train.shapes import DrafterInit, ModelShape

TINY = ModelShape(hidden_size=32, num_layers=2, num_heads=4, intermediate_size=48)
TOKENS = torch.tensor([[5, 6, 7, 8]])


def shallower(num_layers: int) -> ModelShape:
    return ModelShape(hidden_size=32, num_layers=num_layers, num_heads=4, intermediate_size=48)


def save(folder: Path, tokenizer: PreTrainedTokenizerFast, *, seed: int = 0) -> Path:
    model = tiny.model(seed=seed)
    model.config.bos_token_id, model.config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    model.resize_token_embeddings(400)
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("target"), tiny_tokenizer.byte_level())


def fits(target: Path, drafter: Path) -> bool:
    identities = [fingerprint(load_tokenizer(path), load_config(path)) for path in (target, drafter)]
    return mismatch(*identities) is None


@pytest.mark.parametrize("start", ["random", "prune"])
def test_what_training_begins_with_fits_the_target_and_is_float32(target: Path, tmp_path: Path, start: str) -> None:
    save_initial_drafter(tmp_path, DrafterInit(start=start), shallower(1), target, seed=0)  # type: ignore[arg-type]
    assert fits(target, tmp_path)
    assert load_config(tmp_path).dtype == torch.float32
    assert load_config(tmp_path).num_hidden_layers == 1


def test_random_weights_depend_on_the_seed_alone(target: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        save_initial_drafter(tmp_path / name, DrafterInit(), TINY, target, seed=seed)
    a, b, c = (load_model(tmp_path / name).lm_head.weight for name in "abc")
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_a_target_pruned_of_nothing_is_the_target(target: Path, tmp_path: Path) -> None:
    save_initial_drafter(tmp_path, DrafterInit(start="prune"), TINY, target, seed=0)
    pruned = load_model(tmp_path).state_dict()
    assert pruned.keys() == load_model(target).state_dict().keys()
    for name, tensor in load_model(target).state_dict().items():
        assert torch.equal(pruned[name], tensor), name


def test_a_pruned_target_has_the_layers_asked_for_and_all_the_rest(target: Path, tmp_path: Path) -> None:
    save_initial_drafter(tmp_path, DrafterInit(start="prune", layers=(1,)), shallower(1), target, seed=0)
    whole, pruned = load_model(target).model, load_model(tmp_path)
    assert torch.equal(pruned.model.layers[0].mlp.up_proj.weight, whole.layers[1].mlp.up_proj.weight)
    assert torch.equal(pruned.model.embed_tokens.weight, whole.embed_tokens.weight)
    assert torch.equal(pruned.lm_head.weight, load_model(target).lm_head.weight)
    assert torch.equal(pruned.model.norm.weight, whole.norm.weight)


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_every_shape_can_be_pruned_saved_and_cached(shape: str, tmp_path: Path) -> None:
    model = tiny.model(shape)
    keep_layers(model, (1,))
    expected = model(TOKENS, use_cache=False).logits
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, dtype="float64")
    # Some scale their embeddings by a number that is rounded to the dtype they are loaded in.
    torch.testing.assert_close(loaded(TOKENS, use_cache=False).logits, expected, atol=1e-5, rtol=1e-4)
    cached = loaded(TOKENS[:, :-1], use_cache=True)
    last = loaded(TOKENS[:, -1:], past_key_values=cached.past_key_values).logits
    torch.testing.assert_close(last[:, -1], expected[:, -1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("count", "depth", "layers"),
    [(1, 6, (0,)), (2, 6, (0, 5)), (3, 6, (0, 2, 5)), (4, 12, (0, 4, 7, 11)), (6, 6, (0, 1, 2, 3, 4, 5))],
)
def test_layers_are_spread_evenly(count: int, depth: int, layers: tuple[int, ...]) -> None:
    assert spread_layers(count, depth) == layers


@pytest.mark.parametrize("depth", range(1, 40))
def test_spread_layers_are_distinct(depth: int) -> None:
    for count in range(1, depth + 1):
        assert len({*spread_layers(count, depth)}) == count


def test_a_checkpoint_keeps_its_weights(target: Path, tmp_path: Path) -> None:
    checkpoint = save(tmp_path / "checkpoint", tiny_tokenizer.byte_level(), seed=5)
    init = DrafterInit(start="checkpoint", checkpoint=str(checkpoint))
    save_initial_drafter(tmp_path / "initial", init, TINY, target, seed=0)
    assert fits(target, tmp_path / "initial")
    initial = load_model(tmp_path / "initial")
    assert torch.equal(initial.lm_head.weight, load_model(checkpoint).lm_head.weight)
    assert initial.dtype == load_config(tmp_path / "initial").dtype == torch.float32


def test_a_checkpoint_with_another_tokenizer_is_refused_naming_both(target: Path, tmp_path: Path) -> None:
    other = save(tmp_path / "other", tiny_tokenizer.byte_level(vocab_size=300))
    init = DrafterInit(start="checkpoint", checkpoint=str(other))
    with pytest.raises(ModelError, match=f"checkpoint {other} cannot draft for target {target}: token ids mean other"):
        save_initial_drafter(tmp_path / "initial", init, TINY, target, seed=0)
    assert not (tmp_path / "initial").exists()


@pytest.mark.parametrize(
    ("layers", "shape", "message"),
    [
        ((0, 1), shallower(1), "drafter.num_layers is 1, but what it begins with has 2"),
        (None, shallower(3), "num_layers is 3, must be between 1 and the target's 2"),
        ((0, 7), TINY, "layers are .0, 7., but the target has 2"),
        (
            None,
            ModelShape(hidden_size=64, num_layers=2, num_heads=4, intermediate_size=48),
            "drafter.hidden_size is 64, but what it begins with has 32",
        ),
    ],
)
def test_a_shape_that_cannot_come_out_is_refused(
    target: Path, tmp_path: Path, layers: tuple[int, ...] | None, shape: ModelShape, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        save_initial_drafter(tmp_path, DrafterInit(start="prune", layers=layers), shape, target, seed=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"start": "checkpoint"}, "checkpoint"),
        ({"checkpoint": "some/model"}, "checkpoint"),
        ({"layers": (0,)}, "layers belong to"),
        ({"start": "prune", "layers": (1, 0)}, "must be ascending"),
        ({"start": "prune", "layers": ()}, "must be ascending"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DrafterInit(**values)  # type: ignore[arg-type]
