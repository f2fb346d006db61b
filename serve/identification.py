"""The language of a text, among those that the server knows: more and more, as drafters are added while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from common.languages import NAMES, LanguageIdentifier


class Identification:
    """Made with the configured languages; `identify` may be called from any thread."""

    def __init__(self, languages: Collection[str]) -> None:
        self.languages = frozenset(languages)
        self._identifier = LanguageIdentifier(sorted(languages))
        self._learning: asyncio.Task[None] | None = None

    def identify(self, text: str) -> str | None:
        return self._identifier.identify(text)

    def learn(self, names: Collection[str]) -> None:
        """Tell these too, from a second or so later on. Names of no language are passed over; none is forgotten."""
        languages = self.languages.union(name for name in names if name in NAMES)
        if languages != self.languages and (self._learning is None or self._learning.done()):
            self._learning = asyncio.create_task(self._learn(languages))

    async def know(self, names: Collection[str]) -> None:
        """Tell these too from now on; returns once they are."""
        while self._learning is not None and not self._learning.done():
            await asyncio.wait([self._learning])
        self.learn(names)
        if self._learning is not None:
            await self._learning

    async def _learn(self, languages: frozenset[str]) -> None:
        # In a thread: models of languages are read.
        self._identifier = await asyncio.to_thread(LanguageIdentifier, sorted(languages))
        self.languages = languages
