"""One step of a model: its tokens packed, run beside the keys and values of what was run before them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from common.engine import attention
from common.engine.batch import Span, pack
from common.engine.cache import BLOCK_SIZE
from common.engine.compatibility import check_config
from common.engine.store import KVStore
from common.engine.trimming import TrimmedOutput


class ForwardPass:
    """Not thread-safe: one thread runs it.

    Args:
        model: any Hugging Face causal LM whose attention goes through `AttentionInterface` (Llama, Qwen, Gemma,
            Mistral …), on its device, in its dtype; or a rank's part of one. Its attention implementation is switched
            to polydraft's. Its output may be trimmed.
        num_blocks: of the memory for keys and values, `BlockPool.num_blocks`.
        compiled: whether to have PyTorch compile the layers, which takes some tens of seconds here and a C++ compiler.
    """

    def __init__(self, model: PreTrainedModel, *, num_blocks: int, compiled: bool = False) -> None:
        check_config(model.config)
        model.eval()
        model.set_attn_implementation(attention.NAME)
        if compiled:
            # Nobody changes the model: looking each time whether it is as it was takes longer than many a layer.
            # But then only isolation keeps what was compiled for one model from being taken for another of its class.
            options = {"guard_filter_fn": torch.compiler.skip_guard_on_all_nn_modules_unsafe}
            model.get_decoder().compile(dynamic=True, fullgraph=True, isolate_recompiles=True, options=options)
        self._model = model
        self._output = model.get_output_embeddings()
        self._vocabulary: int = model.config.get_text_config().vocab_size
        self._num_blocks = num_blocks
        self._store = KVStore(num_blocks, BLOCK_SIZE)
        self.device: torch.device = model.device

    @torch.inference_mode()
    def run(self, spans: Sequence[Span]) -> Tensor:
        """The wanted logits [rows, V], span after span; afterwards the spans' keys and values are stored."""
        batch = pack(spans, self.device, max_blocks=self._num_blocks)
        with attention.running(attention.Step(batch, self._store)):
            logits: Tensor = self._model(
                input_ids=batch.input_ids,
                position_ids=batch.position_ids,
                attention_mask=None,
                use_cache=False,
                logits_to_keep=batch.logit_rows,
            ).logits[0]
        if isinstance(self._output, TrimmedOutput):
            return self._output.spread(logits, self._vocabulary)
        return logits
