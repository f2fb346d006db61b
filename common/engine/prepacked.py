"""Weights in the order in which a CPU's kernels read them, so that a few tokens cost little more than one.

Verification lives on products of few rows. PyTorch's, of 2 to 24 rows, takes two to three times as long as that of one
(see docs/log.md), for it puts the weights in another order each time. oneDNN can do that once and for all.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.engine.opaque_linear import ModelT, OpaqueLinear, replace_linear

_SMALL = 2**18
"""A layer of fewer weights has computed its product before oneDNN's has begun."""
_FEWEST_ROWS = 4 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 1
"""Fewer are computed as so many. oneDNN's kernels for AVX-512 add up a lone row in an order of its own, and (on AMD's
Zen 4) take a quarter longer to read weights for one or two rows than for four; those for AVX2 do neither."""


class PrepackedLinear(OpaqueLinear):
    """Computes what `linear` does, and each row the same whatever the others are."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = linear.bias

    def compute(self, input: Tensor) -> Tensor:
        """See `OpaqueLinear.compute`."""
        rows_TI = input.flatten(0, -2)
        count = len(rows_TI)
        if count < _FEWEST_ROWS:
            rows_TI = functional.pad(rows_TI, (0, 0, 0, _FEWEST_ROWS - count))
        output_TO: Tensor = torch.ops.mkldnn._linear_pointwise(rows_TI, self._packed, self.bias, "none", [], "")
        return output_TO[:count].view(*input.shape[:-1], self.out_features)


def prepack(model: ModelT) -> ModelT:
    """Prepack the large linear layers of `model` that are on a CPU in float32; returns it."""
    if not torch.backends.mkldnn.is_available():
        return model
    return replace_linear(model, PrepackedLinear, lambda linear: linear.weight.numel() >= _SMALL)
