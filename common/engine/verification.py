"""The verifier's role: check drafts under the coupled rule. Plain decoding is verifying an empty draft."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.acceptance import accept_coupled
from common.engine.sessions import Session
from common.messages import Propose, Verdict, Verify
from common.sampling import draw


class Verification:
    """Implements `engine.Role`."""

    def take(self, session: Session, request: Verify | Propose, vocabulary: int) -> None:
        if not isinstance(request, Verify):
            raise ValueError(f"{type(request).__name__}: a verifier takes Open, Verify and Close")
        if request.base != len(session.tokens) or session.work is not None:
            raise ValueError(f"base: {request.base}, but {len(session.tokens)} tokens are committed")
        session.work = Verify(
            session=request.session,
            base=request.base,
            draft=_usable(request.draft, session.max_length - request.base - 1, vocabulary),
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
    request, session.work = session.work, None
    accepted, next_token = accept_coupled(request.draft, draws)
    session.tokens += [*request.draft[:accepted], next_token]
    session.cached.rollback(request.base + accepted)
    return Verdict(session=request.session, base=request.base, accepted=accepted, next_token=next_token)


def _usable(draft: Sequence[int], room: int, vocabulary: int) -> tuple[int, ...]:
    """The part of a draft that can be run: a drafter may send anything, the text must not suffer."""
    usable = tuple(draft[: max(0, room)])
    bad = next((i for i, token in enumerate(usable) if not 0 <= token < vocabulary), len(usable))
    return usable[:bad]
