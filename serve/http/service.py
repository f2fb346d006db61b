"""What the HTTP surface needs from what is behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from typing import Protocol

from common.types import GenerationRequest, Progress
from serve.http.text import TextCodec


class GenerationService(Protocol):
    """Writes texts with one model. `identify` is called from other threads than the event loop's."""

    @property
    def model(self) -> str:
        """The name clients ask for."""

    @property
    def context_length(self) -> int:
        """Tokens of the longest text, prompt and output together."""

    @property
    def codec(self) -> TextCodec: ...

    @property
    def stop_token_ids(self) -> frozenset[int]:
        """Tokens that end a text by themselves."""

    @property
    def languages(self) -> Collection[str]:
        """Languages that have a drafter now."""

    @property
    def drafters(self) -> Collection[str]:
        """Names of drafters that a request may ask for."""

    async def refresh(self, wanted: str | None = None) -> None:
        """Bring `languages` and `drafters` up to date; a drafter that is `wanted` and not among them is looked for."""

    def identify(self, text: str) -> str | None:
        """The language of a text."""

    def generate(self, request: GenerationRequest) -> AsyncIterator[Progress]:
        """The rounds of one text, as an async generator that is closed when no more is wanted.

        Raises ServiceOverloaded or ServiceUnavailable.
        """

    async def healthy(self) -> bool:
        """Whether a request could be answered now."""
