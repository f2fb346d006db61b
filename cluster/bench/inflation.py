"""A small target made dearer without changing what it writes: the cost of a real model with the text of one at hand.

Twice the layers, and wider ones: the added layers add zero to their input, for the projections that write to it are
zero, and so are the added columns of the others' last projection. All of it is computed nevertheless. The widths of the
attention and of the output layer stay, since text passes through them.
"""

from __future__ import annotations

from copy import deepcopy

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from common.models import ModelError

_WRITING = ("o_proj.weight", "down_proj.weight")
"""What adds to a layer's input, in Llama's family."""
_MULTIPLE = 64
"""Of which widths are, so that kernels find them usual."""


@torch.no_grad()
def inflate(model: PreTrainedModel, parameters: int, *, seed: int = 0) -> PreTrainedModel:
    """A model of about so many parameters whose logits differ from those of `model` by rounding alone.

    Raises ModelError if the model has other layers than Llama's, or as many parameters already.
    """
    weights = model.state_dict()
    name = model.config.name_or_path
    if not all(any(key.endswith(end) for key in weights) for end in _WRITING):
        raise ModelError(f"{name}: only models with {' and '.join(_WRITING)} can be inflated")
    config = deepcopy(model.config)
    config.num_hidden_layers *= 2
    config.intermediate_size = _width(model, parameters)
    if config.intermediate_size < model.config.intermediate_size:
        raise ModelError(f"{name}: twice its layers have more than {parameters:,} parameters as they are")
    torch.manual_seed(seed)
    inflated = AutoModelForCausalLM.from_config(config).to(model.dtype).eval()
    for key, larger in inflated.state_dict().items():
        if key.endswith(_WRITING):
            larger.zero_()
        if key in weights:
            larger[tuple(slice(size) for size in weights[key].shape)] = weights[key]
    return inflated


def _width(model: PreTrainedModel, parameters: int) -> int:
    """Of a layer's inner part, so that twice the layers have so many parameters in all."""
    config = model.config
    layers = sum(p.numel() for name, p in model.named_parameters() if ".layers." in name)
    others = sum(p.numel() for p in model.parameters()) - layers
    inner = 3 * config.hidden_size  # parameters for each of its columns: gate, up and down
    outer = layers // config.num_hidden_layers - inner * config.intermediate_size
    width = ((parameters - others) / (2 * config.num_hidden_layers) - outer) / inner
    return round(width / _MULTIPLE) * _MULTIPLE
