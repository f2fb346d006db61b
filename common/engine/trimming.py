"""Computing the logits of a part of the vocabulary only; see `common.vocabulary`.

Shape suffixes: R rows, D hidden size, V vocabulary, W ids of the trimmed one (V' in prose).
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PreTrainedModel

from common.models import ModelError


class TrimmedOutput(nn.Module):
    """A model's output layer, cut down to the rows of some ids.

    Args:
        whole: the layer over the whole vocabulary.
        ids_W: int64, ascending.
    """

    ids_W: Tensor

    def __init__(self, whole: nn.Linear, ids_W: Tensor) -> None:
        super().__init__()
        ids_W = ids_W.to(whole.weight.device)
        # A layer of its own, which may be prepacked as any other.
        self.linear = nn.Linear(whole.in_features, len(ids_W), bias=whole.bias is not None, device="meta")
        # A copy of these rows: one read of consecutive memory a step, which is where the time of this layer goes.
        self.linear.weight = nn.Parameter(whole.weight.detach()[ids_W], requires_grad=False)
        if whole.bias is not None:
            self.linear.bias = nn.Parameter(whole.bias.detach()[ids_W], requires_grad=False)
        self.register_buffer("ids_W", ids_W, persistent=False)

    def forward(self, states: Tensor) -> Tensor:
        """[.., D] to logits [.., W]"""
        logits: Tensor = self.linear(states)
        return logits

    def spread(self, logits_RW: Tensor, vocabulary: int) -> Tensor:
        """The logits [R, V] over the whole vocabulary: -inf, that is never drawn, for all other ids."""
        logits_RV = logits_RW.new_full((len(logits_RW), vocabulary), float("-inf"))
        return logits_RV.index_copy_(1, self.ids_W, logits_RW)


def trim_output(model: PreTrainedModel, ids_W: Tensor) -> None:
    """Let `model` compute the logits [.., V'] of these ids only. Raises ModelError if it has no such output layer."""
    whole = model.get_output_embeddings()
    if not isinstance(whole, nn.Linear):
        raise ModelError(f"{model.config.name_or_path}: no linear output layer whose vocabulary could be trimmed")
    if ids_W[-1] >= whole.out_features:
        name, last = model.config.name_or_path, int(ids_W[-1])
        raise ModelError(f"{name}: its draft vocabulary holds id {last}, but the model has {whole.out_features} ids")
    model.set_output_embeddings(TrimmedOutput(whole, ids_W))
