"""What 8 bits change, by hand and on a model."""

from __future__ import annotations

import json
import math

import pytest
import tiny
import torch

from cluster.bench import quantization
from cluster.bench.quantization import Answer, Compared
from train.evaluation.paired import Timed


def test_laws_are_compared_row_by_row() -> None:
    exact = torch.tensor([[0.5, 0.5], [0.25, 0.75], [1.0, 1.0]]).log()
    other = torch.tensor([[0.5, 0.5], [0.75, 0.25], [3.0, 1.0]]).log()
    same, tv, kl = quantization._differences(exact, other)
    assert same == [1.0, 0.0, 1.0]
    assert tv == pytest.approx([0.0, 0.5, 0.25])
    assert kl == pytest.approx([0.0, 0.5 * math.log(3), 0.5 * math.log(4 / 3)], abs=1e-6)


def test_every_answer_is_written_both_ways_and_compared_at_its_tokens() -> None:
    requests = tiny.requests(3, temperature=0.0)
    compared = quantization._compare(tiny.model().float(), requests)
    assert [len(each.tv) for each in compared] == [len(each.exact.output) for each in compared]
    assert all(0.0 < mean < 0.3 for mean in (sum(each.tv) / len(each.tv) for each in compared)), "near, but not equal"
    for each in compared:
        if each.exact.output != each.quantized.output:
            assert 0.0 in each.same_token, "where they part, float32's token is not the likeliest in 8 bits"


def test_figures_are_over_all_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    fast, slow = (Timed(tokens=4, seconds=seconds) for seconds in (1.0, 2.0))
    same = Compared(Answer((1,), slow), Answer((1,), fast), [1.0], [0.0], [0.0])
    other = Compared(Answer((1, 2, 3), slow), Answer((1, 2, 4), fast), [1.0, 1.0, 0.0], [0.0, 0.2, 0.2], [0.1] * 3)
    quantization._report([same, other], 1)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["speed"]["value"] == 2.0
    assert (figures["same_text"], figures["same_token"], figures["tv"], figures["kl"]) == (0.5, 0.75, 0.1, 0.075)
