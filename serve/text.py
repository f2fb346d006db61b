"""Text to tokens and back: prompts, chat templates, and text that grows token by token."""

from __future__ import annotations

from collections.abc import Sequence

import jinja2
from transformers import PreTrainedTokenizerFast

from common.types import TokenIds

REPLACEMENT = "\ufffd"
"""What decoders write for bytes that are not, or not yet, UTF-8."""

MAX_PENDING = 32
"""Tokens that may wait for a character to become complete. A character has at most four bytes, so that a model that
writes this many without completing one writes no text, and it is shown as it is."""


class TextCodec:
    """A target's tokenizer and chat template, the tokenizer's own if `chat_template` is None."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, chat_template: str | None = None) -> None:
        self._tokenizer = tokenizer
        self._chat_template = chat_template or tokenizer.chat_template
        self._special = frozenset(index for index, token in tokenizer.added_tokens_decoder.items() if token.special)
        self.vocab_size = len(tokenizer)

    def encode(self, prompt: str) -> TokenIds:
        """Tokens of a prompt, with those that the tokenizer puts around every text."""
        return tuple(self._tokenizer.encode(prompt))

    def render(self, messages: Sequence[dict[str, str]]) -> TokenIds:
        """Tokens of a conversation, up to where the assistant's answer begins.

        Each message has a `role` and a `content`. Raises ValueError if there is no chat template or if the template
        refuses the messages.
        """
        if self._chat_template is None:
            raise ValueError("the target has no chat template: set `serve.chat_template` or use /v1/completions")
        try:
            text = self._tokenizer.apply_chat_template(
                list(messages), chat_template=self._chat_template, add_generation_prompt=True, tokenize=False
            )
        except jinja2.TemplateError as error:
            raise ValueError(f"the chat template refuses these messages: {error}") from None
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of `tokens`, without special tokens."""
        return self._tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def detokenizer(self, stop: Sequence[str] = ()) -> IncrementalText:
        """For one text, which ends before the first of the strings in `stop`."""
        return IncrementalText(self, self._special, stop)


class IncrementalText:
    """Turns tokens into text as they come. What was given out never changes.

    A character whose bytes are not all there, and text that may be the beginning of a stop string, are held back.
    Tokens are decoded together with those of the piece of text before, since decoders write a token differently at
    the beginning of a text; a push costs the same however long the text is.

    Example, stop string "END": the tokens "go ", "E", "N", "ough" give out "go ", "", "", "ENough".
    """

    def __init__(self, codec: TextCodec, special: frozenset[int], stop: Sequence[str] = ()) -> None:
        self._codec = codec
        self._special = special
        self._stop = tuple(stop)
        self._window: list[int] = []  # tokens of the last piece of text, then those that are not shown yet
        self._shown = 0  # tokens of the window whose text was given out
        self._held = ""  # decoded, but perhaps the beginning of a stop string
        self.stopped = False
        """Whether a stop string was found; later tokens are ignored."""
        self.consumed = 0
        """Tokens taken, up to and including the one that completed a stop string."""

    def push(self, tokens: Sequence[int]) -> str:
        """The text that `tokens` complete."""
        pieces = []
        for token in tokens:
            if self.stopped:
                break
            self.consumed += 1
            if token not in self._special:
                self._window.append(token)
                pieces.append(self._release(self._decoded(final=False)))
        return "".join(pieces)

    def finish(self) -> str:
        """The rest of the text, when no more tokens come."""
        if self.stopped:
            return ""
        text = self._release(self._decoded(final=True))
        held, self._held = self._held, ""
        return text if self.stopped else text + held

    def _decoded(self, *, final: bool) -> str:
        """New text of the window; nothing while its last character is incomplete."""
        before = self._codec.decode(self._window[: self._shown])
        text = self._codec.decode(self._window)
        pending = len(self._window) - self._shown
        if text.endswith(REPLACEMENT) and pending < MAX_PENDING and not final:
            return ""
        self._window = self._window[self._shown :]
        self._shown = len(self._window)
        return text[len(before) :]

    def _release(self, text: str) -> str:
        """Adds `text` to what is held back and takes from that what cannot belong to a stop string."""
        self._held += text
        end = self._stop_end()
        if end is not None:
            self.stopped, self._held, shown = True, "", self._held[:end]
            return shown
        keep = self._stop_beginning()
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def _stop_end(self) -> int | None:
        """Where the text ends: before the stop string that is complete first, however the tokens were cut."""
        found = [(self._held.find(stop), stop) for stop in self._stop if stop in self._held]
        return min(found, key=lambda hit: (hit[0] + len(hit[1]), hit[0]))[0] if found else None

    def _stop_beginning(self) -> int:
        """Characters at the end of the held text that a stop string may begin with."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        for count in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-count:]) for stop in self._stop):
                return count
        return 0
