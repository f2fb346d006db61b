"""The engine's thread tells what it has answered, and what of that was a step."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
import tiny

from common.engine.session import Key
from common.messages import Close, Draft, Failure, Open, Propose, Reply
from common.types import SamplingParams
from serve.stream import engine_thread
from serve.stream.engine_thread import EngineThread, Replies
from serve.stream.gathering import Gathering


class Recording(Gathering):
    def __init__(self) -> None:
        super().__init__()
        self.steps: list[list[Key]] = []
        self.gone: list[Key] = []

    def answered(self, keys: Iterable[Key], step_s: float) -> None:
        self.steps.append(list(keys))
        super().answered(self.steps[-1], step_s)

    def ended(self, key: Key) -> None:
        self.gone.append(key)
        super().ended(key)


async def test_an_answer_that_needed_no_pass_is_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes microseconds: as the cheapest step known it would keep texts from being waited for."""
    recording, replies = Recording(), asyncio.Queue[tuple[Key, Reply]]()
    monkeypatch.setattr(engine_thread, "Gathering", lambda: recording)

    def deliver(answered: Replies) -> None:
        for each in answered:
            replies.put_nowait(each)

    async def ask(key: int, count: int) -> Reply:
        thread.submit(key, Propose(session=key, base=3, committed=(), count=count))
        answered, reply = await replies.get()
        assert answered == key
        return reply

    thread = EngineThread(tiny.drafter(tiny.model()), deliver, lambda error: pytest.fail(str(error)))
    greedy = SamplingParams(temperature=0.0)
    opened = Open(session=1, token="", committed=(3, 4, 5), prompt_length=3, max_length=32, sampling=greedy)
    thread.submit(1, opened)
    drafted = await ask(1, 2)
    assert isinstance(drafted, Draft) and len(drafted.tokens) == 2
    assert isinstance(await ask(1, 0), Draft)
    assert isinstance(await ask(2, 1), Failure), "it was never opened"
    assert recording.steps == [[1]]
    thread.submit(1, Close(session=1))
    await thread.stop()
    assert recording.gone == [1]
