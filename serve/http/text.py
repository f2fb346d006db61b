"""Text to tokens and back: prompts, chat templates, and text that grows token by token."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

import jinja2
from transformers import PreTrainedTokenizerFast

from common.models import token_bytes
from common.types import TokenIds

REPLACEMENT = "\ufffd"
"""What decoders write for bytes that are not, or not yet, UTF-8."""

MAX_PENDING = 32
"""Tokens that may wait for a character to become complete. A character has at most four bytes, so that a model that
writes this many without completing one writes no text, and it is shown as it is."""

CONTEXT = 8
"""Tokens of the prompt that the first token of a text is decoded with: one character at least."""

RESERVED_VARIABLES = frozenset(
    {"messages", "conversations", *inspect.signature(PreTrainedTokenizerFast.apply_chat_template).parameters}
)
"""Names that are no variables of a chat template but arguments of what renders it."""


class TextCodec:
    """A target's tokenizer and chat template, the tokenizer's own if `chat_template` is None."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, chat_template: str | None = None) -> None:
        self._tokenizer = tokenizer
        self._chat_template = chat_template or tokenizer.chat_template
        self._special = frozenset(index for index, token in tokenizer.added_tokens_decoder.items() if token.special)
        self._spelling = token_bytes(tokenizer)
        self.vocab_size = len(tokenizer)

    def encode(self, prompt: str) -> TokenIds:
        """Tokens of a prompt, with those that the tokenizer puts around every text."""
        return tuple(self._tokenizer.encode(prompt))

    def render(
        self,
        messages: Sequence[dict[str, str]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, str | int | float | bool] | None = None,
    ) -> TokenIds:
        """Tokens of a conversation; see `conversation`."""
        text = self.conversation(
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            variables=variables,
        )
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def conversation(
        self,
        messages: Sequence[dict[str, str]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, str | int | float | bool] | None = None,
    ) -> str:
        """Text of a conversation, with all special tokens.

        Args:
            messages: each has a `role` and a `content`.
            add_generation_prompt: go on up to where the assistant's answer begins.
            continue_final_message: end within the last message, so that the answer goes on with it.
            variables: what else the template is told; no RESERVED_VARIABLES.

        Raises ValueError if there is no chat template or if the template refuses the messages.
        """
        if self._chat_template is None:
            raise ValueError("the target has no chat template: set `serve.chat_template` or use /v1/completions")
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages),
                    chat_template=self._chat_template,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=continue_final_message,
                    tokenize=False,
                    **(variables or {}),
                )
            )
        # A template's own operations fail as Python's do, say on a variable of another type.
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise ValueError(f"the chat template refuses these messages: {error}") from None

    def decode(self, tokens: Sequence[int], *, special_tokens: bool = False) -> str:
        """Text of `tokens`, with special tokens or without."""
        return self._tokenizer.decode(
            list(tokens), skip_special_tokens=not special_tokens, clean_up_tokenization_spaces=False
        )

    def bytes_of(self, token: int) -> bytes | None:
        """What `token` writes; None for one that writes nothing: a special token, or an id without a token."""
        known = token not in self._special and token < len(self._spelling)
        return self._spelling[token] if known else None

    def name(self, token: int) -> str:
        """`token` as people read it; bytes that are no text of themselves are escaped, as in ``\\xe6\\x9d``."""
        spelling = self.bytes_of(token)
        if spelling is not None:
            return spelling.decode(errors="backslashreplace")
        return str(self._tokenizer.convert_ids_to_tokens(token)) if token < self.vocab_size else f"<{token}>"

    def offsets(self, tokens: Sequence[int]) -> list[int]:
        """How many characters of the text of `tokens` come before each of them."""
        text, offsets = self.detokenizer(), []
        for token in tokens:
            offsets.append(text.length)
            text.push(token)
        return offsets

    def detokenizer(self, stop: Sequence[str] = (), prompt: Sequence[int] = ()) -> IncrementalText:
        """For one text, which follows `prompt` and ends before the first of the strings in `stop`."""
        return IncrementalText(self, self._special, stop, self._context(prompt))

    def _context(self, prompt: Sequence[int]) -> list[int]:
        """The last tokens of `prompt` that write text, from the beginning of a character on."""
        tokens = [token for token in prompt[-CONTEXT:] if token not in self._special]
        while tokens and REPLACEMENT in self.decode(tokens):
            del tokens[0]
        return tokens


class IncrementalText:
    """Turns tokens into text as they come. What was given out never changes.

    A character whose bytes are not all there, and text that may be the beginning of a stop string, are held back.
    Tokens are decoded together with those of the piece of text before, at first `context`, since decoders write a token
    differently at the beginning of a text; a token costs the same however long the text is.

    Example, stop string "END": the tokens "go ", "E", "N", "ough" give out "go ", "", "", "ENough".
    """

    def __init__(
        self, codec: TextCodec, special: frozenset[int], stop: Sequence[str] = (), context: Sequence[int] = ()
    ) -> None:
        self._codec = codec
        self._special = special
        self._stop = tuple(stop)
        self._window = list(context)  # tokens of the last piece of text, then those that are not shown yet
        self._shown = len(context)  # tokens of the window whose text was given out, or is the prompt's
        self._held = ""  # decoded, but perhaps the beginning of a stop string
        self.stopped_by: str | None = None
        """The stop string that was found; later tokens are ignored."""
        self.length = 0
        """Characters decoded so far, those held back included: where the text of the next token begins."""

    @property
    def stopped(self) -> bool:
        return self.stopped_by is not None

    def push(self, token: int) -> str:
        """The text that `token` completes."""
        if self.stopped or token in self._special:
            return ""
        self._window.append(token)
        return self._release(self._decoded(final=False))

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
        self.length += len(text)
        self._held += text
        stop = self._found()
        if stop is not None:
            shown, self._held, self.stopped_by = self._held[: self._held.find(stop)], "", stop
            return shown
        keep = self._stop_beginning()
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def _found(self) -> str | None:
        """The stop string that is complete first, however the tokens were cut; of several the longest."""
        found = [(self._held.find(stop), stop) for stop in self._stop if stop in self._held]
        return min(found, key=lambda hit: (hit[0] + len(hit[1]), hit[0]))[1] if found else None

    def _stop_beginning(self) -> int:
        """Characters at the end of the held text that a stop string may begin with."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        for count in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-count:]) for stop in self._stop):
                return count
        return 0
