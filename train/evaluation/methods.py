"""Ways to decode that are compared: plainly, by lookup, and with every drafter that a run has made."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch
from transformers import PreTrainedModel

from common.engine.decoding import Decoder, build_decoder
from common.engine.drafters import DraftModel, load_drafter
from common.engine.lookup import LookupEngine
from common.languages import GENERALIST
from train.plan import ALONE, GENERIC

PLAIN, LOOKUP, SPECIALIST = "plain", "lookup", "P+F"

FOLDERS = {
    "ngram": "{language}/ngram",
    GENERIC: f"{GENERIC}/pretrain",
    GENERALIST: f"{GENERALIST}/finetune",
    "P": "{language}/pretrain",
    "F": f"{{language}}/{ALONE}",
    SPECIALIST: "{language}/finetune",
}
"""Where a run has the drafters of the comparison: same shape, same steps, but for what they have seen."""


SCALING = "scaling_"
"""Begins the names of variants that are points of a line, not ways to compare."""


class Method(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    drafter: Path | None = None
    """None: no model drafts."""

    @property
    def size_bytes(self) -> int:
        """Of the drafter's weights on disk."""
        return 0 if self.drafter is None else sum(path.stat().st_size for path in self.drafter.glob("*.safetensors"))


def find_methods(run: Path, language: str) -> list[Method]:
    """Plain decoding, prompt lookup, and the drafters of FOLDERS that there are; then the recipe's variants of P+F."""
    found = {name: run / folder.format(language=language) / "model" for name, folder in FOLDERS.items()}
    for variant in sorted((run / language).glob("finetune-*")):
        name = variant.name.partition("-")[2]
        if variant.name != ALONE and not name.startswith(SCALING):
            found[f"P+F {name}"] = variant / "model"
    drafters = [Method(name=name, drafter=folder) for name, folder in found.items() if folder.exists()]
    return [Method(name=PLAIN), Method(name=LOOKUP), *drafters]


class Decoders:
    """One target and its decoders, each made once.

    Args:
        max_length: tokens of the longest prompt and its answer.
    """

    def __init__(self, target: PreTrainedModel, *, max_length: int, concurrency: int) -> None:
        self._target, self._max_length, self._concurrency = target, max_length, concurrency
        self._decoders: dict[tuple[Method, int], Decoder] = {}

    def decoder(self, method: Method, draft_length: int) -> Decoder:
        if (method, draft_length) not in self._decoders:
            self._decoders[method, draft_length] = build_decoder(
                self._target,
                self._drafter(method),
                max_length=self._max_length,
                concurrency=self._concurrency,
                draft_length=draft_length,
            )
        return self._decoders[method, draft_length]

    def _drafter(self, method: Method) -> DraftModel | LookupEngine | None:
        if method.drafter is None:
            return LookupEngine() if method.name == LOOKUP else None
        model = load_drafter(method.drafter)
        return model.to(self._target.device) if isinstance(model, torch.nn.Module) else model
