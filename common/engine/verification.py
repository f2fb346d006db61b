"""The verifier's role: check drafts under the coupled rule, and tell how likely the tokens of a prompt are.

Plain decoding is verifying an empty draft.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from common import logprobs
from common.acceptance import accept_coupled
from common.engine.drawing import draw_for
from common.engine.session import Session
from common.messages import Prefill, Prefilled, Question, Verdict, Verify
from common.types import TokenLogprob


class Verification:
    """Implements `engine.Role`."""

    run_ahead = 0

    def take(self, session: Session, question: Question, vocabulary: int) -> None:
        if not isinstance(question, Prefill | Verify):
            raise ValueError(f"{type(question).__name__}: a verifier takes Open, Prefill, Verify and Close")
        session.committed = question.base
        if question.base < len(session.tokens) or (session.work is not None and question.base == session.work.base):
            return  # stale, or asked again: it has been answered, or is being answered
        if question.base != len(session.tokens) or session.work is not None:
            raise ValueError(f"base: {question.base}, but {len(session.tokens)} tokens are committed")
        if isinstance(question, Prefill):
            _check(question, session, vocabulary)
            session.work = question
        elif question.base < session.prompt_length:
            raise ValueError(f"base: {question.base}, but the prompt has {session.prompt_length} tokens")
        else:
            draft = _usable(question.draft, session.max_length - question.base - 1, vocabulary)
            session.work = Verify(session=question.session, base=question.base, draft=draft)

    def extra_tokens(self, session: Session, room: int) -> Sequence[int]:
        """The draft, or of the prompt's tokens at most `room`, but one at least."""
        if isinstance(session.work, Prefill):
            return session.work.committed[: max(1, room)]
        assert isinstance(session.work, Verify)
        return session.work.draft

    def advance(self, sessions: Sequence[Session], logits: Sequence[Tensor]) -> list[Verdict | Prefilled]:
        """What is added to each text: output, or those tokens of its prompt that were run."""
        verifying = [i for i, s in enumerate(sessions) if isinstance(s.work, Verify)]
        outputs = _outputs([sessions[i] for i in verifying], [logits[i] for i in verifying])
        added = [self.extra_tokens(s, len(rows) - 1) for s, rows in zip(sessions, logits, strict=True)]
        for i, output in zip(verifying, outputs, strict=True):
            added[i] = output
        reports = logprobs.report(logits, added, [s.sampling.logprobs for s in sessions])
        return [_commit(s, tokens, r) for s, tokens, r in zip(sessions, added, reports, strict=True)]


def _outputs(sessions: Sequence[Session], logits: Sequence[Tensor]) -> list[list[int]]:
    """One draw for all rows of all sessions, then the accept rule for each draft."""
    if not sessions:
        return []
    drafts = [s.work.draft for s in sessions if isinstance(s.work, Verify)]
    draws = draw_for(sessions, drafts, logits)
    # Accepted tokens are draws too, and so is the one that follows them.
    return [d[: accept_coupled(draft, d).accepted + 1] for draft, d in zip(drafts, draws, strict=True)]


def _commit(session: Session, added: Sequence[int], report: tuple[TokenLogprob, ...]) -> Verdict | Prefilled:
    question, session.work = session.work, None
    session.tokens += added
    # Of a draft what was not accepted, and in any case the last token, whose logits are wanted next.
    session.cached.rollback(len(session.tokens) - 1)
    if isinstance(question, Prefill):
        return Prefilled(session=question.session, base=question.base, logprobs=report)
    assert isinstance(question, Verify)
    return Verdict(
        session=question.session, base=question.base, accepted=len(added) - 1, next_token=added[-1], logprobs=report
    )


def _check(question: Prefill, session: Session, vocabulary: int) -> None:
    if session.sampling.logprobs is None:
        raise ValueError("logprobs: a prompt is taken in with Prefill only for them")
    if not 1 <= len(question.committed) <= session.max_length - question.base:
        raise ValueError(f"committed: {len(question.committed)} tokens do not go on a text of {session.max_length}")
    if not all(0 <= token < vocabulary for token in question.committed):
        raise ValueError(f"committed: token ids must be below {vocabulary}")


def _usable(draft: Sequence[int], room: int, vocabulary: int) -> tuple[int, ...]:
    """The part of a draft that can be run: a drafter may send anything, the text must not suffer."""
    usable = tuple(draft[: max(0, room)])
    bad = next((i for i, token in enumerate(usable) if not 0 <= token < vocabulary), len(usable))
    return usable[:bad]
