"""The verifier's role: check drafts under the coupled rule. Plain decoding is verifying an empty draft."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from common import logprobs
from common.acceptance import accept_coupled
from common.engine.drawing import draw_for
from common.engine.sessions import Session
from common.messages import Question, Verdict, Verify
from common.types import TokenLogprob


class Verification:
    """Implements `engine.Role`."""

    def take(self, session: Session, question: Question, vocabulary: int) -> None:
        if not isinstance(question, Verify):
            raise ValueError(f"{type(question).__name__}: a verifier takes Open, Verify and Close")
        if question.base < len(session.tokens) or (session.work is not None and question.base == session.work.base):
            return  # stale, or asked again: it has been answered, or is being answered
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
        drafts = [self.extra_tokens(s) for s in sessions]
        draws = draw_for(sessions, drafts, logits)
        # Accepted tokens are draws too, and so is the one that follows them.
        outputs = [d[: accept_coupled(draft, d).accepted + 1] for draft, d in zip(drafts, draws, strict=True)]
        reports = logprobs.report(logits, outputs, [s.sampling.logprobs for s in sessions])
        return [_commit(s, output, r) for s, output, r in zip(sessions, outputs, reports, strict=True)]


def _commit(session: Session, output: list[int], report: tuple[TokenLogprob, ...]) -> Verdict:
    assert isinstance(session.work, Verify)
    question, session.work = session.work, None
    session.tokens += output
    accepted = len(output) - 1
    session.cached.rollback(question.base + accepted)
    return Verdict(
        session=question.session, base=question.base, accepted=accepted, next_token=output[-1], logprobs=report
    )


def _usable(draft: Sequence[int], room: int, vocabulary: int) -> tuple[int, ...]:
    """The part of a draft that can be run: a drafter may send anything, the text must not suffer."""
    usable = tuple(draft[: max(0, room)])
    bad = next((i for i, token in enumerate(usable) if not 0 <= token < vocabulary), len(usable))
    return usable[:bad]
