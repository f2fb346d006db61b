"""The drafter's role: write short continuations, one token a step, and tell how well it would have written others.

It draws with the same parameters, penalties included, and the same keyed noise as the target will, which is what makes
its tokens likely to be the target's.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from common.engine.drawing import draw_for
from common.engine.sessions import Session
from common.messages import Draft, Propose, Question, Score, Scored


class Drafting:
    """Implements `engine.Role`."""

    def take(self, session: Session, question: Question, vocabulary: int) -> Draft | None:
        """Take over the committed tokens; what was drafted and not accepted is rolled back."""
        if not isinstance(question, Propose | Score):
            raise ValueError(f"{type(question).__name__}: a drafter takes Open, Propose, Score and Close")
        _check(session, question, vocabulary)
        # The tokens to be scored join the session when they are: their logits are wanted.
        session.tokens[question.base :] = question.committed if isinstance(question, Propose) else ()
        if session.sequence is not None:
            session.sequence.keep_common_prefix(session.tokens)
        session.work = question
        return _draft(session, question) if isinstance(question, Propose) else None

    def extra_tokens(self, session: Session, room: int) -> Sequence[int]:
        return session.work.committed if isinstance(session.work, Score) else ()

    def advance(self, sessions: Sequence[Session], logits: Sequence[Tensor]) -> list[Draft | Scored | None]:
        """One draw for all rows of all sessions."""
        drafts = [s.work.committed if isinstance(s.work, Score) else () for s in sessions]
        draws = draw_for(sessions, drafts, logits)
        return [_use(s, d) for s, d in zip(sessions, draws, strict=True)]


def _check(session: Session, question: Propose | Score, vocabulary: int) -> None:
    if not 1 <= question.base <= len(session.tokens):
        raise ValueError(f"base: {question.base}, but {len(session.tokens)} tokens are known")
    count = question.count if isinstance(question, Propose) else 0
    if question.base + len(question.committed) + count > session.max_length:
        raise ValueError(f"count: the text would exceed {session.max_length} tokens")
    if not all(0 <= token < vocabulary for token in question.committed):
        raise ValueError(f"committed: token ids must be below {vocabulary}")


def _use(session: Session, draws: list[int]) -> Draft | Scored | None:
    question = session.work
    if isinstance(question, Score):
        return _scored(session, question, draws)
    assert isinstance(question, Propose)
    session.tokens += draws
    return _draft(session, question)


def _draft(session: Session, question: Propose) -> Draft | None:
    """The draft, if it is complete."""
    base = question.base + len(question.committed)
    if len(session.tokens) < base + question.count:
        return None
    session.work = None
    return Draft(session=question.session, base=base, tokens=tuple(session.tokens[base:]))


def _scored(session: Session, question: Score, draws: list[int]) -> Scored:
    """Each token against the drafter's own draw at its place; the last draw is about the token after them."""
    session.work = None
    session.tokens += question.committed
    agreed = sum(drawn == token for drawn, token in zip(draws, question.committed, strict=False))
    return Scored(session=question.session, base=question.base, agreed=agreed)
