"""Tiny models of the supported shapes, with random weights, in float64 so that equality can be exact."""

from __future__ import annotations

from copy import deepcopy

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from common.engine.drafting import Drafting
from common.engine.engine import Engine
from common.engine.runner import ModelRunner
from common.engine.verification import Verification
from common.types import GenerationRequest, SamplingParams

VOCABULARY = 61

COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

SHAPES: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**COMMON),
    "qwen2": Qwen2Config(**COMMON),
    "qwen3": Qwen3Config(**COMMON),
    "mistral": MistralConfig(**COMMON, sliding_window=8),
    "gemma": GemmaConfig(**COMMON),
    "gemma2": Gemma2Config(**COMMON, sliding_window=8, query_pre_attn_scalar=8),
    "gemma3": Gemma3TextConfig(**COMMON, sliding_window=8, query_pre_attn_scalar=8),
}


def model(shape: str = "llama", seed: int = 0, vocabulary: int = VOCABULARY) -> PreTrainedModel:
    """Random weights, scaled so that the law is neither flat nor certain."""
    torch.manual_seed(seed)
    config = deepcopy(SHAPES[shape])
    config.vocab_size = vocabulary
    made = AutoModelForCausalLM.from_config(config).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
    return made


def perturbed(original: PreTrainedModel, amount: float, seed: int = 1) -> PreTrainedModel:
    """A drafter that mostly agrees with `original`."""
    made = AutoModelForCausalLM.from_config(deepcopy(original.config)).double().eval()
    made.load_state_dict(original.state_dict())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(amount * parameter.std() * noise if parameter.dim() > 1 else 0.0)
    return made


def verifier(target: PreTrainedModel, *, kv_tokens: int = 4096, prefill_chunk: int = 512) -> Engine:
    return Engine(ModelRunner(target, kv_tokens=kv_tokens), Verification(), prefill_chunk=prefill_chunk)


def drafter(model: PreTrainedModel, *, kv_tokens: int = 4096) -> Engine:
    return Engine(ModelRunner(model, kv_tokens=kv_tokens), Drafting())


def requests(count: int, *, temperature: float, max_tokens: int = 12, seed: int = 0) -> list[GenerationRequest]:
    """Different prompts of different lengths, with top-k and top-p when sampled."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number in range(count):
        length = int(torch.randint(1, 24, (1,), generator=generator))
        prompt = torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()
        sampling = SamplingParams(temperature=temperature, top_k=20, top_p=0.95, seed=1000 + number)
        made.append(
            GenerationRequest(
                prompt=tuple(prompt),
                max_tokens=max_tokens + number % 3,
                sampling=sampling,
                stop_token_ids=frozenset({2}),
            )
        )
    return made
