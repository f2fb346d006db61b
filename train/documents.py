"""From sentence pairs to token sequences: prompts for the target, documents for training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from transformers import PreTrainedTokenizerFast

from common.languages import language_name
from common.types import TokenIds
from train.batches import batches
from train.packing import Document
from train.pair import Pair

BATCH = 1024
"""Texts tokenized in one call."""


class Prompter:
    """Writes prompts in the form that the target was made for.

    Args:
        template: with {language} and {source}.
        language: ISO 639-1 code.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, template: str, language: str) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._language = language_name(language)

    def prompt(self, source: str) -> str:
        return self._template.format(language=self._language, source=source)

    def prompts(self, sources: Sequence[str]) -> list[TokenIds]:
        """Token ids of each prompt, as the server would make them from the same text."""
        return [tuple(ids) for ids in self._tokenizer([self.prompt(s) for s in sources])["input_ids"]]

    def translations(self, pairs: Iterable[Pair], *, answer_only: bool = False) -> Iterator[Document]:
        """Prompt and reference answer, ended; every token counts, as in language modelling, or only the answer's."""
        for batch in batches(pairs, BATCH):
            whole = documents(self._tokenizer, [self.prompt(p.source) + p.english for p in batch])
            if not answer_only:
                yield from whole
                continue
            for document, prompt in zip(whole, self.prompts([p.source for p in batch]), strict=True):
                yield Document(document.tokens, loss_from=_common(document.tokens, prompt))


def documents(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> Iterator[Document]:
    """Whole texts, ended by the end-of-sequence token."""
    end = tokenizer.eos_token_id
    for batch in batches(texts, BATCH):
        yield from (Document([*ids, end]) for ids in tokenizer(batch)["input_ids"])


def _common(tokens: Sequence[int], prompt: Sequence[int]) -> int:
    """How many tokens are the prompt's: where it ends inside a token, as in `` Yes`` after ``English: ``, that token
    is the answer's, or the answer's beginning would never be learned."""
    return next((place for place, (a, b) in enumerate(zip(tokens, prompt, strict=False)) if a != b), len(prompt))
