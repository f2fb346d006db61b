"""Weights and activations of 8 bits on a CPU: another model, somewhat less exact, in a quarter of the memory.

Weights are scaled by output channel, once; activations by token, in each pass (W8A8, symmetric; as the activations of
LLM.int8(), Dettmers et al. 2022, arXiv 2208.07339, without its exceptions for outliers):

    y[t, o] = s[t] s[o] sum over i of q(x[t, i] / s[t]) q(w[o, i] / s[o])        s = largest magnitude / 127

The sum is one of integers, hence exact, and a token's scale is its own: what is computed of a token depends on no
other, so that drafts change nothing here either. The output layer, whose errors would go straight into the law, stays
as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from common.engine.opaque_linear import OpaqueLinear, replace_linear
from common.models import ModelError

_LARGEST = 127
_ZERO = 128
"""What a zero is as a byte without a sign, which activations are to the kernel: VNNI multiplies no others, and without
it oneDNN has a kernel on some CPUs (AMX), on the rest but a loop that takes a thousand times as long."""


class Int8Linear(OpaqueLinear):
    """A linear layer of about the same weights.

    Raises ModelError where the CPU's sums overflow: without instructions for it (VNNI) some add up in 16 bits.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        quantized_OI, scales_O1 = quantize_rows(linear.weight.detach())
        self._packed = torch.ops.onednn.qlinear_prepack(quantized_OI, None)
        self._scales_O = scales_O1.squeeze(1)
        self._zeros_O = torch.zeros(self.out_features, dtype=torch.int32)
        self.bias = linear.bias
        self._check_sums(quantized_OI)

    def compute(self, input: Tensor) -> Tensor:
        """See `OpaqueLinear.compute`."""
        quantized_TI, scales_T1 = quantize_rows(input.flatten(0, -2))
        output = (self._sums(quantized_TI) * scales_T1).view(*input.shape[:-1], self.out_features)
        return output if self.bias is None else output + self.bias

    def _sums(self, quantized_TI: Tensor) -> Tensor:
        """Scaled by output channel already."""
        weights = self._packed, self._scales_O, self._zeros_O
        unsigned_TI = quantized_TI.view(torch.uint8) + _ZERO  # modulo 256
        sums_TO: Tensor = torch.ops.onednn.qlinear_pointwise(
            unsigned_TI, 1.0, _ZERO, *weights, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return sums_TO

    def _check_sums(self, quantized_OI: Tensor) -> None:
        largest = quantized_OI.int().abs().sum(1).argmax()
        signs_I = quantized_OI[largest].sign()
        rows_2I = _LARGEST * torch.stack((signs_I, -signs_I))
        expected_2O = rows_2I.double() @ quantized_OI.double().T * self._scales_O
        if not torch.allclose(self._sums(rows_2I).double(), expected_2O, rtol=1e-4):
            raise ModelError("quantization: this CPU adds up products of 8 bits in 16, which overflows")


def quantize_rows(rows_TI: Tensor) -> tuple[Tensor, Tensor]:
    """Int8 values [T, I] and the scales [T, 1] that make them about `rows_TI`."""
    largest_T1 = rows_TI.abs().amax(-1, keepdim=True)
    scales_T1 = largest_T1.clamp_min(torch.finfo(rows_TI.dtype).tiny) / _LARGEST
    return (rows_TI / scales_T1).round_().to(torch.int8), scales_T1


def quantize(model: PreTrainedModel) -> PreTrainedModel:
    """Have every `nn.Linear` of `model`, on a CPU in float32, computed in int8, but the output layer; returns it.

    Raises ModelError, see `Int8Linear`, or if this PyTorch has no such kernels.
    """
    if not torch.backends.mkldnn.is_available():
        raise ModelError("quantization: int8 needs a PyTorch with oneDNN")
    output = set(model.get_output_embeddings().modules())  # a trimmed one has its layer inside
    return replace_linear(model, Int8Linear, lambda linear: linear not in output)
