"""The drafter's role: write short continuations, one token a step, and tell how well it would have written others.

It draws with the same parameters, penalties included, and the same keyed noise as the target will, which is what makes
its tokens likely to be the target's. While the target verifies, it may draft on; see `run_ahead`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from common.engine.drawing import draw_for, draw_two_for
from common.engine.run_ahead import guess, settle
from common.engine.session import Session
from common.messages import Draft, Propose, Question, Score, Scored


class Drafting:
    """Implements `engine.Role`.

    Args:
        run_ahead: most tokens that a step drafts for what may be asked next, 0 for none.
    """

    def __init__(self, run_ahead: int = 0) -> None:
        self.run_ahead = run_ahead

    def take(self, session: Session, question: Question, vocabulary: int) -> Draft | None:
        """Take over the committed tokens; what was drafted and not accepted is rolled back."""
        if not isinstance(question, Propose | Score):
            raise ValueError(f"{type(question).__name__}: a drafter takes Open, Propose, Score and Close")
        _check(session, question, vocabulary)
        # The tokens to be scored join the session when they are: their logits are wanted.
        committed = question.committed if isinstance(question, Propose) else ()
        session.depth = question.ahead if isinstance(question, Propose) and self.run_ahead else 0
        session.at_hand = settle(session, question.base, committed)
        session.committed = question.base + len(committed)
        if session.sequence is not None:
            session.sequence.keep_common_prefix(session.tokens, question.base)
        session.work = question
        return _draft(session, question) if isinstance(question, Propose) else None

    def extra_tokens(self, session: Session, room: int) -> Sequence[int]:
        return session.work.committed if isinstance(session.work, Score) else ()

    def advance(self, sessions: Sequence[Session], logits: Sequence[Tensor]) -> list[Draft | Scored | None]:
        """One draw for all rows of all sessions."""
        drafts = [s.work.committed if isinstance(s.work, Score) else () for s in sessions]
        if not any(s.depth for s in sessions):
            return [_use(s, d) for s, d in zip(sessions, draw_for(sessions, drafts, logits), strict=True)]
        pairs = [tuple(zip(*rows, strict=True)) for rows in draw_two_for(sessions, drafts, logits)]
        return [_use(s, *draws) for s, draws in zip(sessions, pairs, strict=True)]


def _check(session: Session, question: Propose | Score, vocabulary: int) -> None:
    if not 1 <= question.base <= len(session.tokens):
        raise ValueError(f"base: {question.base}, but {len(session.tokens)} tokens are known")
    count, ahead = (question.count, question.ahead) if isinstance(question, Propose) else (0, 0)
    if min(count, ahead) < 0:
        raise ValueError(f"count and ahead must not be negative, not {count} and {ahead}")
    if question.base + len(question.committed) + max(count, ahead) > session.max_length:
        raise ValueError(f"count or ahead: the text would exceed {session.max_length} tokens")
    if not all(0 <= token < vocabulary for token in question.committed):
        raise ValueError(f"committed: token ids must be below {vocabulary}")


def _use(session: Session, draws: Sequence[int], runner_ups: Sequence[int] = ()) -> Draft | Scored | None:
    question = session.work
    if isinstance(question, Score):
        return _scored(session, question, draws)
    session.tokens += draws
    session.runner_ups += runner_ups if session.depth else ()
    if isinstance(question, Propose):
        return _draft(session, question)
    guess(session)
    return None


def _draft(session: Session, question: Propose) -> Draft | None:
    """The draft, if it is complete."""
    base = question.base + len(question.committed)
    if len(session.tokens) < base + question.count:
        return None
    session.work = None
    # Of what is at hand as much as may be of use.
    end = base + max(question.count, min(session.at_hand, question.ahead))
    session.expected = end + 1
    guess(session)
    tokens = tuple(session.tokens[base:end])
    return Draft(session=question.session, base=base, tokens=tokens, ahead=min(session.at_hand, len(tokens)))


def _scored(session: Session, question: Score, draws: Sequence[int]) -> Scored:
    """Each token against the drafter's own draw at its place; the last draw is about the token after them."""
    session.work = None
    session.tokens += question.committed
    agreed = sum(drawn == token for drawn, token in zip(draws, question.committed, strict=False))
    return Scored(session=question.session, base=question.base, agreed=agreed)
