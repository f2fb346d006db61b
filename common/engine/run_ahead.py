"""Running ahead: while a draft is being verified, what may be asked next is drafted already.

    told        t7 t8 t9                            the text, as far as it is committed
    answered    t7 t8 t9 d10 d11 d12                with the draft that is being verified
    the session t7 t8 t9 d10 d11 d12 d13 | d14 d15  drafts on: all is accepted, and the bonus is what it draws itself
    branches    t7 t8 t9 r10 | e11 e12 e13          nothing is accepted; what is recovered is its runner-up
                t7 t8 t9 d10 r11 | e12 e13 …        one token is, and so on; as likely, when tokens are as good as each
                t7 t8 t9 d10 d11 d12 r13 | e14 …    other, as they come first

Left of the bar is what the text then is, right of it the next draft. When the text has gone on in one of these ways its
draft is at hand; the other ways end. All that a way has drafted is what would have been drafted without running ahead.

A branch is a session that nobody opened. It shares the memory of what is committed and runs the few other tokens anew,
in its first step. Running ahead takes only memory that nobody else wants, and gives it up when somebody does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest

from common.engine.batch import Feed
from common.engine.session import Session
from common.types import TokenIds


def guess(session: Session) -> None:
    """Note what the target may draw in the place of the tokens before `expected`, as far as they are drafted."""
    if not session.depth:
        return
    first = max(session.guessed, len(session.tokens) - len(session.runner_ups))
    for place in range(first, min(len(session.tokens), session.expected)):
        runner_up = session.runner_ups[place - len(session.tokens)]
        if runner_up != session.tokens[place]:
            session.guesses.append((place, runner_up))
        session.guessed = place + 1


def settle(session: Session, base: int, committed: TokenIds) -> int:
    """Go on in the way that the text has gone: its first `base` tokens, then `committed`.

    Returns how many tokens are drafted on top of that already.
    """
    told = base + len(committed)
    ways = [session, *(session.branches if base <= session.committed else ())] if session.depth else []
    way = next((way for way in ways if _leads(way, base, committed)), None)
    if way is None:
        session.tokens[base:] = committed
    elif way is not session:
        _take_over(session, way)
    session.end_branches()
    session.guessed = told
    at_hand = len(session.tokens) - told
    del session.runner_ups[: len(session.runner_ups) - at_hand]
    return at_hand


def _leads(way: Session, base: int, committed: TokenIds) -> bool:
    """Whether that has gone this way. What was committed earlier, and is taken back, is no draft."""
    told = base + len(committed)
    return tuple(way.tokens[base:told]) == committed and len(way.tokens) - told <= len(way.runner_ups)


def _take_over(session: Session, branch: Session) -> None:
    """Memory and all."""
    session.branches.remove(branch)
    session.release()
    session.tokens, session.runner_ups, session.sequence = branch.tokens, branch.runner_ups, branch.sequence


def plan(sessions: Sequence[Session], room: int) -> list[tuple[Session, Feed]]:
    """The next token of as many ways as `room` tokens of a step allow, the likeliest first.

    Args:
        sessions: all that have memory. Each is left a block to go on with.
    """
    planned: list[tuple[Session, Feed]] = []
    left = room
    # What was committed is run before anything is drafted on top of it.
    resting = [session for session in sessions if session.depth and session.work is None and session.uncached == 1]
    for session, way in chain(_begun(resting), _begin(resting)):
        tokens = way.tokens[way.cached.length :]
        if len(tokens) > room or not way.cached.grow(len(tokens), spare=len(sessions)):
            _end(session, way)  # it would be tried for ever
        elif len(tokens) > left:
            break
        else:
            left -= len(tokens)
            planned.append((way, Feed(way.cached, tokens, wanted=1)))
    return planned


def _begun(sessions: Sequence[Session]) -> Iterator[tuple[Session, Session]]:
    """The sessions themselves, then everybody's first branch, and so on, each with the session that it may become."""
    ways = [[(session, way) for way in (session, *session.branches) if way.running_ahead] for session in sessions]
    yield from (pair for rank in zip_longest(*ways) for pair in rank if pair is not None)


def _begin(sessions: Sequence[Session]) -> Iterator[tuple[Session, Session]]:
    """A branch for everybody's first guess, then for the second, and so on: one begins only when there is room."""
    while sessions := [session for session in sessions if session.guesses]:
        for session in sessions:
            branch = _branch(session, *session.guesses.popleft())
            session.branches.append(branch)
            if branch.running_ahead:
                yield session, branch


def _branch(session: Session, place: int, token: int) -> Session:
    return Session(
        key=session.key,
        tokens=[*session.tokens[:place], token],
        prompt_length=session.prompt_length,
        sampling=session.sampling,
        max_length=session.max_length,
        committed=session.committed,
        sequence=session.cached.fork(),
        depth=session.depth,
        expected=place + 1,
    )


def _end(session: Session, way: Session) -> None:
    if way is session:
        session.depth = 0
    else:
        session.branches.remove(way)
        way.release()
