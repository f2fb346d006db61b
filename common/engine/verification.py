"""The verifier's role: check drafts under the coupled rule. Plain decoding is verifying an empty draft."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.acceptance import accept_coupled
from common.engine.sessions import Session
from common.messages import Question, Verdict, Verify
from common.sampling import draw


class Verification:
    """Implements `engine.Role`."""

    def take(self, session: Session, question: Question, vocabulary: int) -> None:
        if not isinstance(question, Verify):
            raise ValueError(f"{type(question).__name__}: a verifier takes Open, Verify and Close")
        if question.base != len(session.tokens) or session.work is not None:
            raise ValueError(f"base: {question.base}, but {len(session.tokens)} tokens are committed")
        session.work = Verify(
            session=question.session,
            base=question.base,
            draft=_usable(question.draft, session.max_length - question.base - 1, vocabulary),
        )

    def extra_tokens(self, session: Session) -> Sequence[int]:
        assert isinstance(session.work, Verify)
        return session.work.draft

    def advance(self, sessions: Sequence[Session], logits: Sequence[Tensor]) -> list[Verdict]:
        """One draw for all rows of all sessions, then the accept rule for each."""
        rows = [(s, i) for s, rows in zip(sessions, logits, strict=True) for i in range(len(rows))]
        drawn = draw(torch.cat(list(logits)), [s.sampling for s, _ in rows], [len(s.tokens) + i for s, i in rows])
        draws = drawn.split([len(rows) for rows in logits])
        return [_commit(s, d) for s, d in zip(sessions, (d.tolist() for d in draws), strict=True)]


def _commit(session: Session, draws: list[int]) -> Verdict:
    assert isinstance(session.work, Verify)
    question, session.work = session.work, None
    accepted, next_token = accept_coupled(question.draft, draws)
    session.tokens += [*question.draft[:accepted], next_token]
    session.cached.rollback(question.base + accepted)
    return Verdict(session=question.session, base=question.base, accepted=accepted, next_token=next_token)


def _usable(draft: Sequence[int], room: int, vocabulary: int) -> tuple[int, ...]:
    """The part of a draft that can be run: a drafter may send anything, the text must not suffer."""
    usable = tuple(draft[: max(0, room)])
    bad = next((i for i, token in enumerate(usable) if not 0 <= token < vocabulary), len(usable))
    return usable[:bad]
