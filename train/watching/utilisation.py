"""What a worker asks of its machine: floating-point operations, and memory."""

from __future__ import annotations

import resource
import sys

import torch
from transformers import PreTrainedModel


def flops_per_token(model: PreTrainedModel, row_length: int) -> float:
    """Floating-point operations of training on one token, forward and backward: 6 N + 12 L W T.

    N are the parameters that a token is multiplied with (all, except a look-up table of embeddings that is not the
    output projection, too), L the layers, W the width of all heads together, T the row length. The formula of
    Chowdhery et al. 2022 (PaLM, arXiv 2204.02311, appendix B). It counts full attention over the row, and a
    projection to the vocabulary at every position; less is done where documents are short and few positions have
    a loss.
    """
    config = model.config.get_text_config()
    embedding, projection = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    parameters = sum(p.numel() for p in model.parameters())
    if embedding is not projection:
        parameters -= embedding.numel()
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return 6.0 * parameters + 12.0 * config.num_hidden_layers * width * row_length


def peak_memory_bytes(device: torch.device) -> int:
    """The most that this process has held: of the GPU's memory if it computes on one, of the machine's otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
