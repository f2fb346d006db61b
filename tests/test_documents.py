import pytest
from transformers import PreTrainedTokenizerFast

from tests.tiny_tokenizer import byte_fallback, byte_level
from train.documents import Prompter
from train.pair import Pair


@pytest.mark.parametrize(("template", "tokenizer"), [("{source} = ", byte_level()), ("{source}\n", byte_fallback())])
def test_the_loss_begins_where_the_answer_does(template: str, tokenizer: PreTrainedTokenizerFast) -> None:
    prompter = Prompter(tokenizer, template, "de")
    pairs = [Pair("Das Haus", "the house"), Pair("Haus", "small")] * 600
    found = list(prompter.translations(iter(pairs), answer_only=True))
    assert len(found) == len(pairs)
    for document, pair in zip(found[:2], pairs, strict=False):
        learned = tokenizer.decode(document.tokens[document.loss_from : -1])
        assert learned.strip() == pair.english and document.tokens[-1] == tokenizer.eos_token_id
