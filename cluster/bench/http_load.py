"""A load generator: closed-loop streams of completions over HTTP, in a process of its own.

As many streams as asked for are open all the time; each asks its next question when its last is answered. The process
shares no event loop and no interpreter with anything else, and tells what it used of the processor itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import cycle, takewhile
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from typing import Any

import aiohttp
import msgspec

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=300)


Speculation = str | dict[str, Any]
"""A request's `speculation` field."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where completions are to be had."""

    url: str
    """Up to and including ``/v1``."""
    model: str


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One completion to ask for."""

    prompt: str
    language: str
    temperature: float
    seed: int
    max_tokens: int
    store: bool | None = None
    """Whether the server may keep the prompt; None leaves it to the server."""


class Reply(msgspec.Struct, kw_only=True):
    """What came back, and when. Times are seconds of the monotonic clock, which all processes of a machine share."""

    started_s: float
    ended_s: float = 0.0
    piece_times_s: list[float] = []
    """Arrivals of the pieces of the text; a piece holds all tokens of a round."""
    text: str = ""
    tokens: int = 0
    rounds: int = 0
    drafter: str | None = None
    error: str | None = None


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    replies: list[Reply]
    """In the order of the questions."""
    seconds: float
    """From the first question to the last answer."""
    cpu_seconds: float
    """Processor time of the load generator's process."""


class _Choice(msgspec.Struct):
    text: str = ""


class _Usage(msgspec.Struct):
    completion_tokens: int


class _Speculation(msgspec.Struct):
    rounds: int
    drafter: str | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    polydraft: _Speculation | None = None
    error: dict[str, Any] | None = None


_decode_event = msgspec.json.Decoder(_Event).decode
_stop: Event
"""Of the load generator's process."""


class LoadGenerator:
    """The process that makes the load; use as a context manager, or call `close`."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self._stop = context.Event()
        self._process = ProcessPoolExecutor(1, context, initializer=_be_told_to_stop, initargs=(self._stop,))

    def start(
        self,
        endpoint: Endpoint,
        questions: Sequence[Question],
        concurrency: int,
        *,
        speculation: Speculation = "auto",
        repeat: bool = False,
    ) -> Future[LoadResult]:
        """Ask every question once, or over and over until `stop`; one load at a time."""
        self._stop.clear()
        return self._process.submit(_run, endpoint, questions, concurrency, speculation, repeat)

    def stop(self) -> None:
        """Ask nothing more; what was asked is still answered."""
        self._stop.set()

    def close(self) -> None:
        self.stop()
        self._process.shutdown(cancel_futures=True)

    def __enter__(self) -> LoadGenerator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def read_reply(lines: AsyncIterable[bytes], reply: Reply) -> None:
    """Read a stream of server-sent events into `reply`, up to its end mark."""
    text = []
    async for line in lines:
        if not line.startswith(b"data: "):
            continue
        data = line[len(b"data: ") :].strip()
        if data == b"[DONE]":
            break
        event = _decode_event(data)
        if event.error is not None:
            reply.error = str(event.error.get("message"))
        if event.choices and event.choices[0].text:
            text.append(event.choices[0].text)
            reply.piece_times_s.append(time.monotonic())
        if event.usage is not None:
            reply.tokens = event.usage.completion_tokens
        if event.polydraft is not None:
            reply.rounds, reply.drafter = event.polydraft.rounds, event.polydraft.drafter
    else:
        reply.error = reply.error or "the stream ended before its end mark"
    reply.text = "".join(text)


async def stream_all(
    endpoint: Endpoint, questions: Iterator[Question], concurrency: int, speculation: Speculation
) -> list[Reply]:
    """The replies in the order of the questions; a failed one says so in `error`."""
    replies: dict[int, Reply] = {}
    numbered = enumerate(questions)
    connector = aiohttp.TCPConnector(limit=0)

    async def one_stream() -> None:
        for number, question in numbered:
            replies[number] = await _ask(session, endpoint, question, speculation)

    async with aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as session, asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(one_stream())
    return [replies[number] for number in sorted(replies)]


async def _ask(
    session: aiohttp.ClientSession, endpoint: Endpoint, question: Question, speculation: Speculation
) -> Reply:
    body = msgspec.to_builtins(question) | {
        "model": endpoint.model,
        "speculation": speculation,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    reply = Reply(started_s=time.monotonic())
    try:
        async with session.post(f"{endpoint.url}/completions", json=body) as response:
            if response.status == 200:
                await read_reply(response.content, reply)
            else:
                reply.error = f"{response.status}: {await response.text()}"
    except (aiohttp.ClientError, TimeoutError) as error:
        reply.error = repr(error)
    reply.ended_s = time.monotonic()
    return reply


def _run(
    endpoint: Endpoint, questions: Sequence[Question], concurrency: int, speculation: Speculation, repeat: bool
) -> LoadResult:
    supply = _until_stopped(questions) if repeat else iter(questions)
    started, cpu_started = time.monotonic(), time.process_time()
    replies = asyncio.run(stream_all(endpoint, supply, concurrency, speculation))
    return LoadResult(
        replies=replies, seconds=time.monotonic() - started, cpu_seconds=time.process_time() - cpu_started
    )


def _until_stopped(questions: Sequence[Question]) -> Iterator[Question]:
    return takewhile(lambda _: not _stop.is_set(), cycle(questions))


def _be_told_to_stop(stop: Event) -> None:
    """The load generator's process begins with this."""
    global _stop
    _stop = stop
