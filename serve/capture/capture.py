"""Keeping prompts beside the requests: an event loop that offers them, and one thread that redacts and writes.

Between the two is a short queue. When the disk is slow, or gone, prompts are dropped and counted; no request waits.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Callable, Iterator, Sequence

import msgspec

from common.traffic import ServedPrompt
from serve.capture.files import FILE_S, CaptureFiles
from serve.capture.redaction import Redactor
from serve.capture.settings import CaptureSettings
from serve.http.choices import Choice
from serve.http.generation_requests import Body
from serve.http.openai import ChatCompletionRequest
from serve.http.text import TextCodec

QUEUE = 64
"""Requests that may wait to be written."""
MAX_CHARACTERS = 32_768
"""Longer prompts are dropped, which bounds the time of redaction."""

Offered = tuple[Body, list[str | None]]
"""A request, and the languages of its prompts."""

logger = logging.getLogger(__name__)


class Capture:
    """Of one router. Close it to have written what was offered.

    Args:
        count: told of each prompt what became of it: `stored`, or `dropped`.
        draw: uniform in [0, 1), for `share`.

    Raises SettingsError if nothing can be written to the folder.
    """

    def __init__(
        self,
        settings: CaptureSettings,
        codec: TextCodec,
        count: Callable[[str], object],
        draw: Callable[[], float] = random.random,
    ) -> None:
        settings.check()
        self._settings = settings
        self._codec = codec
        self._count = count
        self._draw = draw
        self._redactor = Redactor(settings.redact)
        self._files = CaptureFiles(settings)
        self._failing = False
        self._queue: queue.Queue[Offered | None] = queue.Queue(QUEUE)
        self._writer = threading.Thread(target=self._write_all, name="capture", daemon=True)
        self._writer.start()

    def offer(self, body: Body, choices: Sequence[Choice]) -> None:
        """Keep the prompts of a request, if it is to be; returns at once."""
        if body.store is False or not (body.store or self._draw() < self._settings.share):
            return
        languages = [choice.request.language for choice in choices[:: body.n]]
        if not any(map(self._wanted, languages)):
            return
        try:
            self._queue.put_nowait((body, languages))
        except queue.Full:
            for _ in filter(self._wanted, languages):
                self._count("dropped")

    def close(self) -> None:
        """Returns when all is written."""
        self._queue.put(None)
        self._writer.join()

    def _wanted(self, language: str | None) -> bool:
        return language is not None and language in (self._settings.languages or (language,))

    def _write_all(self) -> None:
        while True:
            try:
                offered = self._queue.get(timeout=FILE_S)
            except queue.Empty:
                self._attempt(self._files.prune)
                continue
            if offered is None:
                break
            for served in self._prompts(*offered):
                self._count("stored" if self._store(served) else "dropped")
        self._files.close()

    def _prompts(self, body: Body, languages: Sequence[str | None]) -> Iterator[ServedPrompt]:
        texts = self._texts(body)
        for language, text in zip(languages, texts, strict=True):
            if language is not None and self._wanted(language):
                yield ServedPrompt(language=language, prompt=text, rendered=isinstance(body, ChatCompletionRequest))

    def _texts(self, body: Body) -> list[str]:
        if isinstance(body, ChatCompletionRequest):
            return [self._codec.conversation(**body.conversation)]
        return [prompt if isinstance(prompt, str) else self._codec.decode(prompt) for prompt in body.prompts]

    def _store(self, served: ServedPrompt) -> bool:
        text = self._redactor.redact(served.prompt) if len(served.prompt) <= MAX_CHARACTERS else None
        if text is None:
            return False
        line = msgspec.json.encode(msgspec.structs.replace(served, prompt=text))
        return self._attempt(lambda: self._files.append(line))

    def _attempt(self, work: Callable[[], None]) -> bool:
        """Whether it could be done; what fails is told when it begins to fail."""
        try:
            work()
        except OSError as error:
            if not self._failing:
                logger.error("prompts cannot be kept, they are dropped: %s", error)
            self._failing = True
            return False
        self._failing = False
        return True
