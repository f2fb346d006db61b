"""A model that is divided among two processes writes what it writes in one, and the loss of one ends the other."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import rank_process
import tiny
from hypothesis import given
from hypothesis import strategies as st
from transformers import PretrainedConfig

from common.engine import ranks, reference
from common.engine.batch import Span
from common.engine.compatibility import check_ranks
from common.engine.ranks import RankLost
from common.models import ModelError, load_model
from serve.ranks import unless_lost

WAIT_S = 60
SHAPES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3")
"""Bias, norms of heads, scaled embeddings that are also the output, sliding windows, soft caps: all that is divided."""


class RankProcess:
    def __init__(self, rank: int) -> None:
        command = [sys.executable, rank_process.__file__, str(rank)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def tell(self, line: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hear(self) -> object:
        """A line; it fails if the process has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        return json.loads(line)

    def end(self) -> str:
        """What it wrote on standard error, once it has ended by itself."""
        return self.process.communicate(timeout=WAIT_S)[1]


@contextmanager
def two_ranks() -> Iterator[tuple[RankProcess, RankProcess]]:
    both = RankProcess(0), RankProcess(1)
    try:
        both[1].tell(both[0].hear())
        yield both
    finally:
        for each in both:
            each.process.kill()
            each.process.communicate()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {shape: tmp_path_factory.mktemp("models") / shape for shape in SHAPES}
    for shape, folder in made.items():
        tiny.model(shape).save_pretrained(folder)
    return made


def plain(folder: Path, temperature: float) -> list[list[int]]:
    """What the reference writes in one process: transformers' own attention, no cache, one text at a time."""
    logits_of = reference.logits_of(load_model(folder, dtype="float64"))
    requests = tiny.requests(rank_process.TEXTS, temperature=temperature, max_tokens=rank_process.MAX_TOKENS)
    return [list(reference.generate_plain(logits_of, request)) for request in requests]


def test_two_ranks_write_the_texts_of_one(folders: dict[str, Path]) -> None:
    """With drafts and without, at temperature 0 and 1, with less memory than all texts need."""
    preempted = 0
    with two_ranks() as (first, second):
        for shape, folder in folders.items():
            first.tell(folder)
            second.tell(folder)
            first.tell("write")
            (greedy, greedy_speculative, sampled, sampled_speculative), preemptions = first.hear()  # type: ignore[misc]
            assert greedy == greedy_speculative == plain(folder, 0.0), shape
            assert sampled == sampled_speculative == plain(folder, 1.0), shape
            preempted += preemptions
        for each in (first, second):
            each.end()
            assert each.process.returncode == 0, "dismissed, it ends by itself"
    assert preempted, "there was memory for all texts at once"


def test_a_rank_that_is_killed_ends_the_other(folders: dict[str, Path]) -> None:
    with two_ranks() as (first, second):
        for each in (first, second):
            each.tell(folders["llama"])
        first.tell("write")
        first.hear()
        second.process.kill()
        second.process.wait(WAIT_S)
        first.tell("write")
        assert "RankLost: a rank of the model was lost" in first.end()
        assert first.process.returncode == 1


def test_a_rank_that_nobody_joins_gives_up() -> None:
    code = (
        "from datetime import timedelta; from common.engine import ranks; ranks._MEETING = timedelta(seconds=1);"
        "ranks.join(ranks.invite('127.0.0.1'), rank=0, ranks=2, gpu=False)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert "RankLost: a rank of the model was lost before all had come together" in ended.stderr


def test_a_rank_that_waits_ends_when_rank_0_is_killed(folders: dict[str, Path]) -> None:
    with two_ranks() as (first, second):
        for each in (first, second):
            each.tell(folders["llama"])
        first.tell("write")
        first.hear()
        first.process.kill()
        assert "RankLost: a rank of the model was lost between two passes" in second.end()
        assert second.process.returncode == 1


NUMBERS = st.lists(st.integers(0, 2**31), max_size=5)
SPANS = st.builds(Span, st.integers(0, 9), NUMBERS, st.integers(0, 9), NUMBERS)


@given(st.lists(SPANS, max_size=5))
def test_what_is_told_is_what_is_heard(spans: list[Span]) -> None:
    heard = ranks._decode(ranks._encode(spans))
    assert [(s.start, s.tokens, s.wanted, s.blocks) for s in heard] == [
        (s.start, s.tokens, s.wanted, s.blocks) for s in spans
    ]


def test_a_model_that_cannot_be_divided_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=r"llama: num_key_value_heads is 2, which 4 ranks cannot share"):
        ranks.load_part(folders["llama"], ranks=4, dtype="float64")
    with pytest.raises(ModelError, match="no plan for dividing"):
        check_ranks(PretrainedConfig(), 2)


async def test_a_rank_that_is_lost_at_the_start_ends_the_waiting_for_the_others() -> None:
    never = asyncio.Event()

    async def ends() -> RankLost:
        return RankLost("gone")

    with pytest.raises(RankLost, match="gone"):
        await unless_lost(never.wait(), asyncio.create_task(ends()))


async def test_work_is_done_while_no_rank_is_lost() -> None:
    async def works() -> int:
        return 3

    async def waits() -> RankLost:
        await asyncio.Event().wait()
        raise AssertionError

    lost = asyncio.create_task(waits())
    assert await unless_lost(works(), lost) == 3
    lost.cancel()
