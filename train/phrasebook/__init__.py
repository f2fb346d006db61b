"""A phrasebook in five languages with English beside, made by grammars: the corpus that needs no download.

One abstract meaning (`meaning`) is put into words by the grammar of each language, so a sentence has the same
English whatever language it is paired with. A language is a function ``realise(meaning) -> sentence``, listed in
`generate`; most keep their words in a file of their own beside the grammar.
"""

from __future__ import annotations

from train.phrasebook.generate import LANGUAGES, pairs

__all__ = ["LANGUAGES", "pairs"]
