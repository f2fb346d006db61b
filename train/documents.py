"""From sentence pairs to token sequences: prompts for the target, documents for training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from transformers import PreTrainedTokenizerFast

from common.languages import language_name
from common.types import TokenIds
from train.packing import Document
from train.pair import Pair


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

    def translations(self, pairs: Sequence[Pair], *, answer_only: bool = False) -> list[Document]:
        """Prompt and reference answer, ended; every token counts, as in language modelling, or only the answer's."""
        prompts = self.prompts([p.source for p in pairs]) if answer_only else [()] * len(pairs)
        whole = documents(self._tokenizer, [self.prompt(p.source) + p.english for p in pairs])
        return [Document(d.tokens, loss_from=len(prompt)) for d, prompt in zip(whole, prompts, strict=True)]


def documents(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> list[Document]:
    """Whole texts, ended by the end-of-sequence token."""
    end = tokenizer.eos_token_id
    return [Document(tokens=[*ids, end]) for ids in tokenizer(list(texts))["input_ids"]]
