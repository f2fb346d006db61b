"""One text being written, round by round: the token log and what may still be asked for.

The log is the only truth about a request. It is written by `commit` alone; drafts never touch it. The same class
drives the in-process loop and the router's, so that both end a text in the same way.
"""

from __future__ import annotations

from common.messages import Open, Prefill, Prefilled, Propose, Score, Verdict, Verify
from common.types import GenerationRequest, Progress, SpeculationStats, Timings, TokenIds

PREFILL_WINDOW = 512
"""Most tokens of a prompt whose log-probabilities are asked for at once: an engine runs few more in a step, and with 20
alternatives each the answer has some 150 KB."""

_NO_TIME = Timings()


class TokenLog:
    """Prompt and output of one request.

    Example, prompt (1, 2), draft (3, 4, 5) on top of it, verdict "2 accepted, then 9": `commit` appends 3, 4, 9.
    """

    def __init__(self, request: GenerationRequest) -> None:
        self.request = request
        self._max_length = request.max_length
        # A prompt whose log-probabilities are wanted is taken in as they come.
        self.tokens: list[int] = list(request.prompt[:1] if request.prompt_logprobs else request.prompt)
        self.begun = False
        """Whether there is anything that a client may have been told."""
        self.stats = SpeculationStats()
        self.timings = _NO_TIME
        self.finish_reason: str | None = "length" if self._complete else None

    @property
    def output(self) -> TokenIds:
        return tuple(self.tokens[len(self.request.prompt) :])

    @property
    def prefilling(self) -> bool:
        """Whether log-probabilities of the prompt are still to come."""
        return len(self.tokens) < len(self.request.prompt)

    @property
    def room(self) -> int:
        """Most tokens worth drafting: the last token of a text never is, verification always adds one of its own."""
        return max(0, self._max_length - len(self.tokens) - 1)

    def open(self, session: int, token: str) -> Open:
        """Begin, or on a replay go on, at a replica."""
        return Open(
            session=session,
            token=token,
            committed=tuple(self.tokens),
            prompt_length=len(self.request.prompt),
            max_length=self._max_length,
            sampling=self.request.sampling,
        )

    def propose(self, session: int, known: int, count: int, ahead: int = 0) -> Propose:
        """Ask a drafter that knows the first `known` tokens for `count` more, or fewer if the text ends before.

        `ahead` is how many are of use if they are drafted already.
        """
        committed, room = tuple(self.tokens[known:]), self.room
        return Propose(session=session, base=known, committed=committed, count=min(count, room), ahead=min(ahead, room))

    def score(self, session: int, window: int) -> Score:
        """Ask a drafter about the last `window` tokens, or fewer: the first token of a text follows nothing."""
        base = max(1, len(self.tokens) - window)
        return Score(session=session, base=base, committed=tuple(self.tokens[base:]))

    def prefill(self, session: int) -> Prefill:
        base = len(self.tokens)
        return Prefill(session=session, base=base, committed=self.request.prompt[base : base + PREFILL_WINDOW])

    def verify(self, session: int, draft: TokenIds) -> Verify:
        return Verify(session=session, base=len(self.tokens), draft=draft)

    def commit_prompt(self, prefilled: Prefilled, timings: Timings = _NO_TIME) -> Progress:
        """Take in the part of the prompt whose log-probabilities have come.

        Raises ValueError if they are not about its next tokens.
        """
        count = len(prefilled.logprobs)
        known = len(self.tokens)
        if prefilled.base != known or not 1 <= count <= len(self.request.prompt) - known:
            raise ValueError(
                f"{count} log-probabilities from {prefilled.base} on, of the prompt {known} tokens are known"
            )
        self.tokens += self.request.prompt[known : known + count]
        self.begun = True
        self.timings += timings
        self.finish_reason = "length" if self._complete else None
        return Progress(
            tokens=(),
            prompt_logprobs=prefilled.logprobs,
            stats=self.stats,
            timings=self.timings,
            finish_reason=self.finish_reason,
        )

    def commit(
        self,
        draft: TokenIds,
        verdict: Verdict,
        drafter: str | None = None,
        timings: Timings = _NO_TIME,
        *,
        ahead: int = 0,
    ) -> Progress:
        """Append what the verdict keeps; ends the text at a stop token or at max_tokens.

        `ahead` tokens of the draft were drafted before they were asked for.

        Raises ValueError if the verdict is not about this log's end: it is stale, or not for this draft.
        """
        if verdict.base != len(self.tokens) or verdict.accepted > len(draft):
            raise ValueError(
                f"verdict accepts {verdict.accepted} of {len(draft)} drafted tokens at {verdict.base}, "
                f"the log holds {len(self.tokens)}"
            )
        kept = self._until_end((*draft[: verdict.accepted], verdict.next_token))
        self.tokens.extend(kept)
        self.begun = True
        self.timings += timings
        accepted = min(verdict.accepted, len(kept))
        self.stats += SpeculationStats(
            rounds=1,
            drafted_tokens=len(draft),
            accepted_tokens=accepted,
            output_tokens=len(kept),
            ahead_drafts=int(ahead > 0),
            ahead_tokens=ahead,
        )
        return Progress(
            tokens=kept,
            logprobs=verdict.logprobs[: len(kept)],
            stats=self.stats,
            timings=self.timings,
            drafter=drafter,
            finish_reason=self.finish_reason,
        )

    @property
    def _complete(self) -> bool:
        return len(self.tokens) == self._max_length

    def _until_end(self, tokens: TokenIds) -> TokenIds:
        room = self._max_length - len(self.tokens)
        for index, token in enumerate(tokens[:room]):
            if token in self.request.stop_token_ids:
                self.finish_reason = "stop"
                return tokens[: index + 1]
        if len(tokens) >= room:
            self.finish_reason = "length"
        return tokens[:room]
