"""Prompts that were served and kept, with their clients' consent, to train on: one JSON object a line.

A router writes them (`serve.capture`), `polydraft train --from-traffic` reads them.
"""

from __future__ import annotations

import msgspec

SUFFIX = ".jsonl"


class ServedPrompt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One prompt, redacted: nothing tells who sent it, or when."""

    language: str
    """ISO 639-1 code of the language it was served in."""
    prompt: str
    rendered: bool = False
    """Special tokens are in it already, written by a chat template or the client: the tokenizer must add none."""
    messages: tuple[str, ...] = ()
    """Of a conversation that a chat template has rendered."""
