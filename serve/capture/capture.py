"""Keeping prompts beside the requests: an event loop that offers them, and one thread that redacts and writes.

Between the two is a short queue. When the disk is slow, or gone, prompts are dropped and counted; no request waits.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Callable, Sequence

import msgspec

from common.traffic import ServedPrompt
from serve.capture.files import FILE_S, CaptureFiles
from serve.capture.prompts import PromptReader
from serve.capture.redaction import Redactor
from serve.capture.settings import CaptureSettings
from serve.http.choices import Choice
from serve.http.generation_requests import Body
from serve.http.text import TextCodec

QUEUE = 64
"""Requests that may wait to be written."""

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
        self._count = count
        self._draw = draw
        self._reader = PromptReader(codec, Redactor(settings.redact))
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
            self._write(*offered)
        self._files.close()

    def _write(self, body: Body, languages: Sequence[str | None]) -> None:
        for language, kept in zip(languages, self._reader.read(body), strict=True):
            if language is not None and self._wanted(language):
                stored = kept is not None and self._store(ServedPrompt(language=language, **kept._asdict()))
                self._count("stored" if stored else "dropped")

    def _store(self, served: ServedPrompt) -> bool:
        line = msgspec.json.encode(served)
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
