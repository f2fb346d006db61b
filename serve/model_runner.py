"""A loaded model as its replica's settings want it run."""

from __future__ import annotations

from common.engine.drafters import DraftModel, make_runner
from common.engine.int8 import quantize
from common.engine.prepacked import prepack
from common.engine.runner import Runner
from common.ngram_model import NgramModel
from serve.settings import ReplicaSettings


def model_runner(model: DraftModel, settings: ReplicaSettings) -> Runner:
    """The model becomes the runner's: it moves to its device, and its layers are replaced.

    Raises ModelError if it cannot be quantized here.
    """
    if not isinstance(model, NgramModel):
        if settings.num_gpus:
            model.to("cuda")
        if settings.quantization == "int8":
            quantize(model)
        if settings.prepacked:
            prepack(model)
    return make_runner(model, kv_tokens=settings.kv_tokens, compiled=settings.compiled)
