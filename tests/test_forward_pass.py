"""A step is made and computed on the model's device, whatever that is. Here it is one that only knows shapes."""

from __future__ import annotations

import tiny
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from common.engine.batch import Span, pack
from common.engine.forward_pass import ForwardPass

META = torch.device("meta")
TEXTS = [Span(0, (3, 4, 5), 2, [1]), Span(5, (6,), 1, [2]), Span(0, range(3, 40), 1, [3, 4, 5])]


def test_the_logits_are_where_the_model_is_and_of_its_dtype() -> None:
    with META:
        model = AutoModelForCausalLM.from_config(tiny.model("gemma2").config, dtype=torch.bfloat16)
    logits = ForwardPass(model, num_blocks=16).run(TEXTS)
    assert (logits.device, logits.dtype, logits.shape) == (META, torch.bfloat16, (4, tiny.VOCABULARY))


def test_nothing_of_a_step_is_left_elsewhere() -> None:
    batch = pack(TEXTS, META, max_blocks=16)
    tensors = [batch.input_ids, batch.position_ids, batch.write_slots, batch.logit_rows]
    for group in batch.groups:
        made = (group.positions_BN, group.blocks_BK, group.padded_BN, group.real_Q, group.mask(None), group.mask(8))
        tensors += [tensor for tensor in made if isinstance(tensor, Tensor)]
    assert {tensor.device for tensor in tensors} == {META}
