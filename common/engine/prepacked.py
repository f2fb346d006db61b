"""Weights in the order in which a CPU's kernels read them, so that a few tokens cost little more than one.

Verification lives on products of few rows. PyTorch's, of 4 to 24 rows, takes about twice as long as that of one (see
docs/log.md), for it puts the weights in another order each time. oneDNN can do that once and for all. Of one to three
rows its kernels are slower, so both orders are kept, which takes twice the memory.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.engine.opaque_linear import ModelT, OpaqueLinear, replace_linear

_SMALL = 2**18
"""A layer of fewer weights has computed its product before oneDNN's has begun."""
_FEW_ROWS = 3
"""Up to so many PyTorch reads the weights once, as they are."""


class PrepackedLinear(OpaqueLinear):
    """Computes what `linear` does, and shares its weights. Of more than three rows, each is computed the same whatever
    the others are."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self.weight, self.bias = linear.weight, linear.bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())

    def compute(self, input: Tensor) -> Tensor:
        """See `OpaqueLinear.compute`."""
        if input.numel() <= _FEW_ROWS * self.in_features:
            return functional.linear(input, self.weight, self.bias)
        output: Tensor = torch.ops.mkldnn._linear_pointwise(input, self._packed, self.bias, "none", [], "")
        return output


def prepack(model: ModelT) -> ModelT:
    """Prepack the large linear layers of `model` that are on a CPU in float32; returns it."""
    if not torch.backends.mkldnn.is_available():
        return model
    return replace_linear(model, PrepackedLinear, lambda linear: linear.weight.numel() >= _SMALL)
