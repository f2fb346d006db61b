"""Prompt lookup in the place of a drafter's engine: drafts from the text itself, no model; see `common.ngram`."""

from __future__ import annotations

from common.engine.session import Key
from common.messages import Close, Draft, Open, Propose, Reply, Request
from common.ngram import NgramLookup


class LookupEngine:
    """Answers to `Propose` as an engine would, at the next step."""

    def __init__(self, *, max_ngram: int = 4, min_ngram: int = 2) -> None:
        self._texts: dict[Key, NgramLookup] = {}
        self._replies: list[tuple[Key, Reply]] = []
        self._sizes = {"max_ngram": max_ngram, "min_ngram": min_ngram}

    def handle(self, key: Key, request: Request) -> None:
        match request:
            case Open():
                self._texts[key] = NgramLookup(request.committed, **self._sizes)
            case Propose():
                text = self._texts[key]
                text.extend(request.committed)
                tokens = text.propose(request.count)
                self._replies.append((key, Draft(session=request.session, base=len(text), tokens=tokens)))
            case Close():
                del self._texts[key]

    def step(self) -> list[tuple[Key, Reply]]:
        replies, self._replies = self._replies, []
        return replies
