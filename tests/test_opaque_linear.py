"""Layers that a CPU library computes: prepacked weights change nothing; 8 bits make another model, as lossless."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from copy import deepcopy

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from common.engine.batch import Feed
from common.engine.decoding import build_decoder
from common.engine.int8 import Int8Linear, quantize, quantize_rows
from common.engine.opaque_linear import OpaqueLinear
from common.engine.prepacked import PrepackedLinear, prepack
from common.engine.runner import ModelRunner
from common.engine.trimming import trim_output
from common.models import ModelError
from serve.model_runner import model_runner
from serve.settings import ReplicaSettings

PROMPT = (3, 4, 5, 6, 7, 8, 9, 10, 11)


def linear(*, bias: bool, inputs: int = 64) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, 96, bias=bias).requires_grad_(False)


def wide_model(layers: int = 2, seed: int = 0) -> PreTrainedModel:
    """In float32, its feed-forward and output layers large enough to be prepacked."""
    config = deepcopy(tiny.model().config)
    config.num_hidden_layers, config.vocab_size = layers, 512
    config.hidden_size, config.intermediate_size = 512, 1024
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config).float().eval().requires_grad_(False)


def kinds(model: PreTrainedModel) -> dict[str, type[nn.Module]]:
    return {name: type(module) for name, module in model.named_modules() if "proj" in name or name == "lm_head"}


def logits_of(runner: ModelRunner, tokens: tuple[int, ...] = PROMPT) -> Tensor:
    sequence = runner.begin()
    assert sequence.grow(len(tokens))
    (logits,) = runner.forward([Feed(sequence, tokens, len(tokens))])
    sequence.release()
    return logits


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 4, 5, 24])
@pytest.mark.parametrize("fewest", [1, 4])
def test_prepacked_weights_give_the_same_product(
    fewest: int, rows: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.engine.prepacked._FEWEST_ROWS", fewest)
    plain = linear(bias=bias)
    x = torch.randn(1, rows, 64)
    torch.testing.assert_close(PrepackedLinear(plain)(x), plain(x), rtol=1e-5, atol=1e-5)


def test_prepacked_weights_are_kept_once() -> None:
    kept = weakref.ref((model := wide_model()).lm_head.weight)
    model.model.embed_tokens = nn.Embedding(1, 1)  # which may share them
    prepack(model)
    gc.collect()
    assert kept() is None


@pytest.mark.parametrize("bias", [False, True])
def test_8_bits_follow_the_formula(bias: bool) -> None:
    plain = linear(bias=bias)
    x = torch.randn(2, 5, 64)
    (q, s), (w, t) = quantize_rows(x), quantize_rows(plain.weight)
    expected = q.double() @ w.double().T * t.double().T * s.double() + (plain.bias if bias else 0.0)
    torch.testing.assert_close(Int8Linear(plain)(x).double(), expected, rtol=1e-5, atol=1e-6)
    assert (s * q - x).abs().max() <= s.max() / 2 * 1.001, "rounding is to the nearest"


def test_a_row_of_nothing_is_quantized_to_nothing() -> None:
    assert not Int8Linear(linear(bias=False))(torch.zeros(4, 64)).any()


@pytest.mark.parametrize("kind", [PrepackedLinear, Int8Linear])
@given(row=st.integers(0, 7), data=st.data())
def test_a_row_does_not_depend_on_the_others(
    kind: Callable[[nn.Linear], OpaqueLinear], row: int, data: st.DataObject
) -> None:
    """So drafts cannot change a text by rounding."""
    layer, x = kind(linear(bias=True, inputs=1030)), torch.randn(8, 1030)
    others = torch.randn(data.draw(st.integers(0, 30)), 1030) * 100.0
    assert torch.equal(layer(torch.cat([x[row : row + 1], others]))[0], layer(x)[row])


def test_only_large_layers_are_prepacked() -> None:
    model = prepack(wide_model())
    packed = {name.rpartition(".")[2] for name, kind in kinds(model).items() if kind is PrepackedLinear}
    assert packed == {"gate_proj", "up_proj", "down_proj", "lm_head"}
    small = prepack(tiny.model().float())
    assert set(kinds(small).values()) == {nn.Linear}


def test_double_precision_stays_as_it_is() -> None:
    assert set(kinds(prepack(wide_model().double())).values()) == {nn.Linear}


def test_all_layers_but_the_output_are_quantized() -> None:
    found = kinds(quantize(tiny.model().float()))
    assert found.pop("lm_head") is nn.Linear
    assert set(found.values()) == {Int8Linear}


def test_a_trimmed_output_is_an_output() -> None:
    """Prepacked as any other, and as exact in 8 bits."""
    for change, expected in ((prepack, PrepackedLinear), (quantize, nn.Linear)):
        model = wide_model()
        trim_output(model, torch.arange(512))
        assert type(change(model).lm_head.linear) is expected


def test_a_cpu_whose_sums_overflow_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Int8Linear._sums
    monkeypatch.setattr(Int8Linear, "_sums", lambda layer, rows: honest(layer, rows).clamp(max=2.0))
    plain = linear(bias=False)
    plain.weight[0] = 0.0  # as padding is
    with pytest.raises(ModelError, match="quantization: this CPU"):
        Int8Linear(plain)


@pytest.mark.parametrize(
    ("settings", "layer", "output"),
    [
        ({}, PrepackedLinear, PrepackedLinear),
        ({"prepacked": False}, nn.Linear, nn.Linear),
        ({"quantization": "int8"}, Int8Linear, PrepackedLinear),
        ({"quantization": "int8", "prepacked": False}, Int8Linear, nn.Linear),
    ],
)
def test_a_replicas_settings_say_how_layers_are_computed(settings: dict, layer: type, output: type) -> None:
    model = wide_model()
    model_runner(model, ReplicaSettings(kv_tokens=64, **settings))
    found = kinds(model)
    assert (found["model.layers.0.mlp.up_proj"], found["lm_head"]) == (layer, output)


@pytest.mark.parametrize("change", [prepack, quantize])
def test_drafts_do_not_change_the_text(change: Callable[[PreTrainedModel], PreTrainedModel]) -> None:
    """The oracle, of a target in 8 bits and of a prepacked one, its drafter being the target as it was."""
    target = change(wide_model())
    requests = [
        request for temperature in (0.0, 1.0) for request in tiny.requests(4, temperature=temperature, max_tokens=24)
    ]
    plain = build_decoder(target, max_length=64, concurrency=1).generate(requests)
    drafted = build_decoder(target, wide_model(), max_length=64, concurrency=3).generate(requests)
    assert [text.output for text in drafted] == [text.output for text in plain]
    assert sum(text.stats.accepted_tokens for text in drafted) > 0


def test_compiled_models_compute_the_same_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of one class but of other depth: what was compiled for one must not serve the other. What they are
    compiled to is of no account here, and C++ takes a minute."""
    to_cpp = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module, **options: to_cpp(module, backend="eager", **options))
    for layers in (1, 2):
        expected = logits_of(ModelRunner(prepack(wide_model(layers)), kv_tokens=64))
        compiled = ModelRunner(prepack(wide_model(layers)), kv_tokens=64, compiled=True)
        torch.testing.assert_close(logits_of(compiled), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("other", [{"num_gpus": 1.0}, {"tensor_parallel": 2}, {"dtype": "bfloat16"}])
def test_quantization_is_for_whole_models_on_a_cpu(other: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="quantization is for one process on a CPU"):
        ReplicaSettings(quantization="int8", **other)
