"""Models that the engine would compute wrongly are refused when they are loaded, not served."""

from __future__ import annotations

from copy import deepcopy

import pytest
import tiny
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    FalconConfig,
    FalconH1Config,
    JambaConfig,
    Lfm2Config,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    MixtralConfig,
    Phi3Config,
    PreTrainedConfig,
    RwkvConfig,
)

from common.engine.batch import Feed
from common.engine.runner import ModelRunner
from common.models import ModelError

_COMMON = tiny.COMMON
_SMALL = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2}
_ROPE = {"rope_theta": 1e4, "original_max_position_embeddings": 128}
_LONGROPE = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, **_ROPE}


def _runner(config: PreTrainedConfig, kv_tokens: int = 64, dtype: torch.dtype = torch.float32) -> ModelRunner:
    torch.manual_seed(0)
    return ModelRunner(AutoModelForCausalLM.from_config(deepcopy(config)).to(dtype), kv_tokens=kv_tokens)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (Llama4TextConfig(**_COMMON, num_local_experts=2), "layer_types has chunked_attention"),
        (Lfm2Config(**_COMMON, layer_types=["conv", "full_attention"]), "layer_types has conv"),
        (FalconH1Config(**_COMMON, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8), "layer_types has hybrid"),
        (JambaConfig(**_COMMON, num_experts=2), "layer_types has linear_attention"),
        (MambaConfig(**_SMALL), "layer_types has linear_attention"),
        (Phi3Config(**_COMMON, rope_parameters=_LONGROPE), "rope_parameters has the rope_type longrope"),
        (
            LlamaConfig(**_COMMON, rope_parameters={"rope_type": "dynamic", "factor": 2.0, **_ROPE}),
            "rope_parameters has the rope_type dynamic",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_configuration_that_asks_for_more_is_refused_by_its_field(config: PreTrainedConfig, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        _runner(config)


@pytest.mark.parametrize(
    "config",
    [RwkvConfig(**_SMALL), FalconConfig(**_SMALL, num_attention_heads=4, bos_token_id=1, eos_token_id=2)],
    ids=["a state of its own", "attention of its own"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_whose_texts_change_each_other_is_refused(config: PreTrainedConfig, dtype: torch.dtype) -> None:
    """Nothing in these configurations says so."""
    config.max_position_embeddings = 64
    with pytest.raises(ModelError, match="texts change each other"):
        _runner(config, dtype=dtype)


_TEXTS = ([5, 9, 13, 20, 33, 7, 8], [11, 3, 60])


def _plain(config: PreTrainedConfig) -> list[Tensor]:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.inference_mode():
        return [model(input_ids=torch.tensor([text]), use_cache=False).logits[0] for text in _TEXTS]


@pytest.mark.parametrize(
    "config",
    [
        Phi3Config(**_COMMON),
        MixtralConfig(**_COMMON, num_local_experts=4),
        LlamaConfig(**_COMMON, rope_parameters={"rope_type": "yarn", "factor": 2.0, **_ROPE}),
        DeepseekV3Config(
            **_COMMON | {"num_key_value_heads": 4},
            q_lora_rank=8,
            kv_lora_rank=8,
            qk_rope_head_dim=8,
            qk_nope_head_dim=8,
            v_head_dim=4,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_group=1,
            topk_group=1,
        ),
    ],
    ids=["short context", "experts", "yarn", "values narrower than keys"],
)
def test_others_are_not(config: PreTrainedConfig) -> None:
    runner = _runner(config)
    sequences = [runner.begin() for _ in _TEXTS]
    assert all(sequence.grow(len(text)) for sequence, text in zip(sequences, _TEXTS, strict=True))
    logits = runner.forward([Feed(s, text, len(text)) for s, text in zip(sequences, _TEXTS, strict=True)])
    for ours, plain in zip(logits, _plain(config), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_tokens", [16, 64])
def test_nothing_is_held_after_loading(dtype: torch.dtype, kv_tokens: int) -> None:
    pool = _runner(LlamaConfig(**_COMMON), kv_tokens, dtype).pool
    assert pool.held_blocks == pool.cached_blocks == 0
