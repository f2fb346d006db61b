"""What a step costs on this machine's CPU or GPU: a token, a verification, a draft; and what share that is of what the
memory could do.

The models have random weights, as steps take the same time whatever is written. Every step reads all weights once, so a
token can take no less than their bytes over the memory's bandwidth, and a verification hardly more: that is what all
speculation lives on.
"""

from __future__ import annotations

import time
from itertools import product
from statistics import median
from typing import Any

import msgspec
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from cluster.bench.report import report
from cluster.capacity.steps import TimedEngine
from common.engine.drafting import Drafting
from common.engine.verification import Verification
from common.settings import SettingsError
from serve.settings import ReplicaSettings

_FAMILY = {"vocab_size": 32_000, "max_position_embeddings": 2048}
SHAPES = {
    "llama-68m": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 2, "num_attention_heads": 12},
    "llama-160m": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "vicuna-7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
}
"""Of models that papers on speculative decoding use."""
WAYS: dict[str, dict[str, Any]] = {
    "plain": {"prepacked": False},
    "prepacked": {},
    "int8": {"quantization": "int8"},
    "compiled": {"compiled": True},
}
"""Settings of a replica, by name."""
ELSEWHERE = ("plain", "compiled")
"""Those that there are on a GPU, or in another dtype than float32."""
VERIFIED = {"decode_1": (1, 0), "verify_3": (1, 2), "verify_6": (1, 5), "decode_8_texts": (8, 0), "verify_8x3": (8, 2)}
"""Texts in a step, and tokens drafted of each."""
DRAFTED = {"draft_5": (1, 5)}
"""As many steps as tokens."""
_BYTES = 2**30
"""That are read to measure the memory."""


def main(target: str, drafter: str, device: str, dtype: str, threads: int, ways: tuple[str, ...], turns: int) -> None:
    """Time all ways, in turns, and report the medians. Raises SettingsError for a way that the device does not have."""
    gpu = device == "cuda"
    settings = ReplicaSettings(threads=threads, dtype=dtype, num_gpus=float(gpu))
    there_are = WAYS if dtype == "float32" and not gpu else ELSEWHERE
    for way in ways:
        if way not in there_are:
            raise SettingsError(f"--way {way}: on {device} in {dtype} there are {', '.join(there_are)}")
    torch.set_num_threads(threads)
    bandwidth = _bandwidth(torch.device(device))
    timed = {
        way: Way(target, drafter, device, msgspec.structs.replace(settings, **WAYS[way]), bandwidth)
        for way in ways or there_are
    }
    for _, each in product(range(turns), timed.values()):
        each.time()
    figures = {name: each.figures() for name, each in timed.items()}
    names = list(next(iter(figures.values())))
    report(
        f"{target}, drafter {drafter}, {device}, {dtype}, {threads} threads; memory {bandwidth / 1e9:.1f} GB/s; ms",
        ("way", *names),
        [[way, *(f"{figures[way][name]:.3g}" for name in names)] for way in figures],
        {"gb_per_s": round(bandwidth / 1e9, 2), "ways": figures},
    )


class Way:
    """Two engines with the same settings."""

    def __init__(self, target: str, drafter: str, device: str, settings: ReplicaSettings, bandwidth: float) -> None:
        model = _model(target, device, settings.dtype)
        self._least_ms = 1e3 * _bytes_read(model, settings) / bandwidth
        self._verifier = TimedEngine(model, Verification(), settings, list(VERIFIED.values()))
        model = _model(drafter, device, settings.dtype)
        self._drafter = TimedEngine(model, Drafting(), settings, list(DRAFTED.values()))
        self._times: dict[str, list[float]] = {name: [] for name in VERIFIED | DRAFTED}

    def time(self) -> None:
        """Once more."""
        found = self._verifier.time() + self._drafter.time()
        for times, (_, taken) in zip(self._times.values(), found, strict=True):
            times.append(taken)

    def figures(self) -> dict[str, float]:
        """Milliseconds, and what they mean."""
        found = {name: median(times) for name, times in self._times.items()}
        ratio = round(found["verify_6"] / found["decode_1"], 3)
        return found | {
            "verify_6_over_decode_1": ratio,
            "bandwidth_share": round(self._least_ms / found["decode_1"], 3),
        }


def _model(shape: str, device: str, dtype: str) -> PreTrainedModel:
    """Made on its device, where alone there may be room for it."""
    torch.manual_seed(0)
    with torch.device(device):
        config = LlamaConfig(**_FAMILY, **SHAPES[shape], tie_word_embeddings=False)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    return model.eval().requires_grad_(False)


def _bytes_read(model: PreTrainedModel, settings: ReplicaSettings) -> int:
    """Of weights, in a step; of the embeddings next to none."""
    embeddings, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    layers = [p for p in model.parameters() if p is not embeddings and p is not output]
    in_layers = sum(p.numel() * (1 if settings.quantization else p.element_size()) for p in layers)
    return in_layers + output.numel() * output.element_size()


def _bandwidth(device: torch.device) -> float:
    """Bytes a second that the device reads, summing up a long vector."""
    numbers = torch.zeros(_BYTES // 4, device=device)
    return _BYTES / median(_seconds_of_sum(numbers) for _ in range(7))


def _seconds_of_sum(numbers: torch.Tensor) -> float:
    began = time.perf_counter()
    numbers.sum().item()  # which waits for the device
    return time.perf_counter() - began
