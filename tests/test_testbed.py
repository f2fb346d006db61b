"""The engine on a real small model, where one is at hand; skipped elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

from common.engine.decoding import build_decoder
from common.models import load_model, load_tokenizer
from common.types import GenerationRequest, SamplingParams
from train.documents import Prompter
from train.sources import read_pairs

SHARED = Path(__file__).parent.parent.parent / "shared"
TARGET = SHARED / "testbed" / "target"

pytestmark = pytest.mark.skipif(not TARGET.exists(), reason="no testbed target beside the project")


@pytest.mark.parametrize("language", ["de", "ja", "ru"])
def test_speculative_text_equals_transformers_generate(language: str) -> None:
    tokenizer = load_tokenizer(TARGET)
    pairs = list(read_pairs(str(SHARED / "data" / language / "test.tsv")))[:6]
    prompter = Prompter(tokenizer, "Translate {language} to English:{source}\n", language)
    requests = [
        GenerationRequest(
            prompt=prompt,
            max_tokens=40,
            sampling=SamplingParams(temperature=0),
            stop_token_ids=frozenset({tokenizer.eos_token_id}),
        )
        for prompt in prompter.prompts([pair.source for pair in pairs])
    ]
    target = load_model(TARGET, dtype="float64")
    drafter = tiny.perturbed(target, 0.05)
    plain = load_model(TARGET, dtype="float64")
    generations = build_decoder(target, drafter, max_length=200, concurrency=3).generate(requests)
    for request, generation in zip(requests, generations, strict=True):
        expected = plain.generate(torch.tensor([request.prompt]), do_sample=False, max_new_tokens=40)
        assert generation.output == tuple(expected[0, len(request.prompt) :].tolist())
    assert sum(g.stats.accepted_tokens for g in generations) > 0
