"""Weights in the order in which a CPU's kernels read them, so that a few tokens cost little more than one.

Verification lives on products of few rows. PyTorch's, of 2 to 24 rows, takes up to five times as long as that of one
(see docs/log.md), for it puts the weights in another order each time. oneDNN can do that once and for all.
"""

from __future__ import annotations

import time
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.engine.opaque_linear import ModelT, OpaqueLinear, replace_linear

_SMALL = 2**18
"""A layer of fewer weights has computed its product before oneDNN's has begun."""
_FEW = 4
_TRIED_WIDTH, _TRIALS = 4096, 5


class PrepackedLinear(OpaqueLinear):
    """Computes what `linear` does. Of four rows and more, each is computed the same whatever the others are; fewer are
    computed as four where that is faster, see `lone_rows_cost_more`."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.bias = linear.bias
        self._fewest = _FEW if lone_rows_cost_more() else 1

    def compute(self, input: Tensor) -> Tensor:
        """See `OpaqueLinear.compute`."""
        rows_TI = input.flatten(0, -2)
        missing = self._fewest - len(rows_TI)
        if missing > 0:
            rows_TI = functional.pad(rows_TI, (0, 0, 0, missing))
        output_TO = product_of(rows_TI, self._packed, self.bias)
        return output_TO[: len(output_TO) - max(missing, 0)].view(*input.shape[:-1], self.out_features)


def product_of(rows_TI: Tensor, packed: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """[T, O]: rows times prepacked weights, plus the bias."""
    output_TO: Tensor = torch.ops.mkldnn._linear_pointwise(rows_TI, packed, bias_O, "none", [], "")
    return output_TO


@cache
def lone_rows_cost_more() -> bool:
    """Whether this CPU takes longer for one row than for four.

    oneDNN's kernels of AVX-512 read the weights a quarter faster for four rows on an AMD of the Zen 4 kind, its kernels
    of AVX2 do not; so it is tried, with more weights than caches hold, which takes a tenth of a second.
    """
    packed = torch.ops.mkldnn._reorder_linear_weight(torch.zeros(_TRIED_WIDTH, _TRIED_WIDTH))
    rows = {count: torch.ones(count, _TRIED_WIDTH) for count in (1, _FEW)}
    least = {count: min(_seconds_of_product(each, packed) for _ in range(_TRIALS)) for count, each in rows.items()}
    return least[_FEW] < least[1]


def _seconds_of_product(rows_TI: Tensor, packed: Tensor) -> float:
    began = time.perf_counter()
    product_of(rows_TI, packed)
    return time.perf_counter() - began


def prepack(model: ModelT) -> ModelT:
    """Prepack the large linear layers of `model` that are on a CPU in float32; returns it."""
    if not torch.backends.mkldnn.is_available():
        return model
    return replace_linear(model, PrepackedLinear, lambda linear: linear.weight.numel() >= _SMALL)
