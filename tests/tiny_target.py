"""A target in a folder, as the training side takes one: random weights and a tiny tokenizer that fits them."""

from __future__ import annotations

from pathlib import Path

import tiny_tokenizer
import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 320


def save_target(folder: Path) -> Path:
    """Its law is neither flat nor certain; it holds 64 tokens."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer.byte_level(vocab_size=VOCABULARY)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
