"""The drafter's role: write short continuations, one token a step.

It draws with the same parameters and the same keyed noise as the target will, which is what makes its tokens likely
to be the target's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.engine.sessions import Session
from common.messages import Draft, Propose, Verify
from common.sampling import draw


class Drafting:
    """Implements `engine.Role`."""

    def take(self, session: Session, request: Verify | Propose, vocabulary: int) -> Draft | None:
        """Take over the committed tokens; what was drafted and not accepted is rolled back."""
        if not isinstance(request, Propose):
            raise ValueError(f"{type(request).__name__}: a drafter takes Open, Propose and Close")
        if not 1 <= request.base <= len(session.tokens):
            raise ValueError(f"base: {request.base}, but {len(session.tokens)} tokens are known")
        if request.base + len(request.committed) + request.count > session.max_length:
            raise ValueError(f"count: the text would exceed {session.max_length} tokens")
        if not all(0 <= token < vocabulary for token in request.committed):
            raise ValueError(f"committed: token ids must be below {vocabulary}")
        session.tokens[request.base :] = request.committed
        if session.sequence is not None:
            session.sequence.keep_common_prefix(session.tokens)
        session.work = request
        return _reply(session)

    def extra_tokens(self, session: Session) -> Sequence[int]:
        return ()

    def advance(self, sessions: Sequence[Session], logits: Sequence[Tensor]) -> list[Draft | None]:
        positions = [len(s.tokens) for s in sessions]
        drawn = draw(torch.cat(list(logits)), [s.sampling for s in sessions], positions).tolist()
        for session, token in zip(sessions, drawn, strict=True):
            session.tokens.append(token)
        return [_reply(session) for session in sessions]


def _reply(session: Session) -> Draft | None:
    """The draft, if it is complete."""
    assert isinstance(session.work, Propose)
    request = session.work
    base = request.base + len(request.committed)
    if len(session.tokens) < base + request.count:
        return None
    session.work = None
    return Draft(session=request.session, base=base, tokens=tuple(session.tokens[base:]))
