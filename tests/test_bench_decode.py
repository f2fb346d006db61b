"""The decoding benchmark: the target that it inflates, and its figures by hand."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, GPT2Config

from cluster.bench import decode
from cluster.bench.decoding_ways import ASSISTED, ENGINE, PLAIN, STATIC, Answer
from cluster.bench.http_load import Question
from cluster.bench.inflation import inflate
from common.models import ModelError
from train.evaluation.equality import Equality
from train.evaluation.paired import Timed


def test_an_inflated_model_is_as_dear_as_wanted_and_says_the_same() -> None:
    small = tiny.model()
    large = inflate(small, 1_000_000)
    assert sum(p.numel() for p in large.parameters()) == pytest.approx(1_000_000, rel=0.05)
    assert large.config.num_hidden_layers == 2 * small.config.num_hidden_layers
    ids = torch.arange(3, 60).unsqueeze(0)
    with torch.inference_mode():
        torch.testing.assert_close(large(ids).logits, small(ids).logits, rtol=1e-9, atol=1e-9)
        # What was added is computed: it would tell if it were let.
        next(p for name, p in large.named_parameters() if name.endswith("layers.3.mlp.down_proj.weight")).fill_(0.1)
        assert not torch.allclose(large(ids).logits, small(ids).logits, atol=1e-3)


@pytest.mark.parametrize("parameters, problem", [(1000, "more than 1,000 parameters"), (10**6, "can be inflated")])
def test_what_cannot_be_inflated_is_refused(parameters: int, problem: str) -> None:
    other = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2))
    with pytest.raises(ModelError, match=problem):
        inflate(tiny.model() if parameters == 1000 else other, parameters)


def _answer(seconds: float) -> Answer:
    return Answer("text", Timed(tokens=60, seconds=seconds))


def test_figures_are_ratios_of_speeds_and_assisted_generation_is_taken_at_its_best(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seconds = {
        decode.ON: 1.0,
        decode.OFF: 2.0,
        ENGINE: 1.8,
        PLAIN: 3.0,
        STATIC: 2.7,
        ASSISTED: 2.0,
        f"{ASSISTED}, 2": 1.5,
    }
    rows = [{name: _answer(each) for name, each in seconds.items()} for _ in range(3)]
    questions = [
        Question(prompt="", language=language, temperature=0.0, seed=0, max_tokens=60)
        for language in ("de", "fr", "de")
    ]
    several = [decode.Several(Timed(tokens=600, seconds=3.0), Timed(tokens=80, seconds=2.0))] * 3
    decode._report(questions, rows, several, Equality(texts=3), streams=8)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert {language: each["value"] for language, each in figures["speedup"].items()} == {"de": 2.0, "fr": 2.0}
    assert figures["vs_assisted"]["value"] == 1.5
    assert figures["vs_assisted_8_streams"]["value"] == 5.0
    assert figures["plain_vs_static_cache"]["value"] == 1.5
    assert figures["tokens_per_s"][PLAIN] == 20.0
