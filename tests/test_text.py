"""Text that grows token by token equals the text decoded at once, and never shows half a character."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
import tiny_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from common.models import token_bytes
from serve.text import MAX_PENDING, IncrementalText, TextCodec

CODECS = {
    "byte level": TextCodec(tiny_tokenizer.byte_level()),
    "byte fallback": TextCodec(tiny_tokenizer.byte_fallback()),
}
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}>{% endif %}"
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    ["東京に住んでいます。", "这所房子很小", "a🙂b👩‍👩‍👧c", "  the  theme the", "e\u0301\ufffd!"]
)
CHUNKS = st.lists(st.integers(1, 5), min_size=1, max_size=20)
codecs = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())


def chunked(tokens: Sequence[int], sizes: Sequence[int]) -> Iterator[Sequence[int]]:
    start = 0
    while start < len(tokens):
        size = sizes[start % len(sizes)]
        yield tokens[start : start + size]
        start += size


def written(text: IncrementalText, tokens: Sequence[int], sizes: Sequence[int] = (1,)) -> list[str]:
    return [*(text.push(chunk) for chunk in chunked(tokens, sizes)), text.finish()]


@codecs
@settings(max_examples=150, deadline=None)
@given(string=TEXTS, sizes=CHUNKS)
def test_pieces_join_to_the_text_decoded_at_once(codec: TextCodec, string: str, sizes: list[int]) -> None:
    tokens = codec.encode(string)
    assert "".join(written(codec.detokenizer(), tokens, sizes)) == codec.decode(tokens)


@settings(max_examples=150, deadline=None)
@given(tokens=st.lists(st.integers(0, 399), max_size=MAX_PENDING), sizes=CHUNKS)
def test_tokens_that_are_no_text_are_shown_as_when_decoded_at_once(tokens: list[int], sizes: list[int]) -> None:
    codec = CODECS["byte level"]
    assert "".join(written(codec.detokenizer(), tokens, sizes)) == codec.decode(tokens)


@codecs
@given(string=TEXTS.filter(lambda string: "\ufffd" not in string))
def test_half_a_character_is_never_shown(codec: TextCodec, string: str) -> None:
    assert not any("\ufffd" in piece for piece in written(codec.detokenizer(), codec.encode(string)))


@pytest.mark.parametrize("kind", [tiny_tokenizer.byte_level, tiny_tokenizer.byte_fallback])
def test_a_character_is_shown_with_its_last_byte(kind: Callable[[], PreTrainedTokenizerFast]) -> None:
    tokenizer = kind()
    codec, spelling = TextCodec(tokenizer), token_bytes(tokenizer)
    text, shown, spelled = codec.detokenizer(), "", b""
    for token in codec.encode("家は🙂。"):
        shown += text.push([token])
        spelled += spelling[token] or b""
        assert shown == spelled.decode(errors="ignore").lstrip(" ")


def test_special_tokens_write_nothing() -> None:
    codec = CODECS["byte fallback"]
    tokens = codec.encode(" the the")
    bos, eos, pad = 0, 1, 2
    mixed = [bos, *tokens[:1], pad, pad, *tokens[1:], eos]
    assert "".join(written(codec.detokenizer(), mixed)) == codec.decode(tokens)


def test_a_model_that_writes_no_characters_does_not_make_each_token_dearer() -> None:
    codec = CODECS["byte level"]
    half = codec.encode("東")[0]
    text = codec.detokenizer()
    shown = [text.push([half]) for _ in range(10 * MAX_PENDING)]
    assert any(shown)
    assert len(text._window) <= 2 * MAX_PENDING


@pytest.mark.parametrize(
    ("stop", "shown"),
    [
        (("END",), "go on "),
        (("nothing",), "go on END of it"),
        (("END of", "EN"), "go on "),
        (("of it",), "go on END "),
        (("it",), "go on END of "),
        (("it!",), "go on END of it"),
        (("g",), ""),
        (("on END", "n E"), "go o"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_text_ends_before_the_stop_string_however_tokens_come(stop: tuple[str, ...], shown: str, size: int) -> None:
    codec = CODECS["byte level"]
    text = codec.detokenizer(stop)
    assert "".join(written(text, codec.encode("go on END of it"), (size,))) == shown
    assert text.stopped == (shown != "go on END of it")


@given(
    string=st.text("ab", max_size=30), stop=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), sizes=CHUNKS
)
def test_stop_strings_cut_where_one_is_first_complete(string: str, stop: list[str], sizes: list[int]) -> None:
    codec = CODECS["byte level"]
    text = codec.detokenizer(stop)
    found = written(text, codec.encode(string), sizes)
    ends = [string.index(word) + len(word) for word in stop if word in string]
    if ends:
        first = string[: min(ends)]
        assert "".join(found) == min((first.removesuffix(word) for word in stop), key=len)
    else:
        assert "".join(found) == string
    assert text.stopped == bool(ends)


def test_of_two_stop_strings_in_one_token_the_one_complete_first_counts() -> None:
    codec = CODECS["byte level"]
    tokens = codec.encode(" house")
    assert len(tokens) == 1
    assert "".join(written(codec.detokenizer(["house", "ou"]), tokens)) == " h"


def test_tokens_after_a_stop_string_are_not_counted() -> None:
    codec = CODECS["byte level"]
    tokens = codec.encode("one.\nQ: two\nQ: three")
    text = codec.detokenizer(["\nQ:"])
    assert text.push(tokens) == "one."
    assert codec.decode(tokens[: text.consumed]) == "one.\nQ:"
    assert (text.push(tokens), text.finish()) == ("", "")


def test_what_may_begin_a_stop_string_waits() -> None:
    codec = CODECS["byte level"]
    text = codec.detokenizer(["zzz"])
    assert [text.push(codec.encode(piece)) for piece in ("az", "z", "b", "z")] == ["a", "", "zzb", ""]
    assert text.finish() == "z"


def test_a_conversation_is_rendered_up_to_the_answer() -> None:
    codec = TextCodec(tiny_tokenizer.byte_level(), TEMPLATE)
    tokens = codec.render([{"role": "system", "content": "Hi"}, {"role": "user", "content": "家"}])
    assert codec.decode(tokens) == "system: Hi\nuser: 家\n>"


def test_without_a_chat_template_the_setting_is_named() -> None:
    with pytest.raises(ValueError, match=r"serve\.chat_template"):
        CODECS["byte level"].render([{"role": "user", "content": "Hi"}])


def test_the_tokenizers_own_template_is_used_unless_another_is_set() -> None:
    tokenizer = tiny_tokenizer.byte_level()
    tokenizer.chat_template = "own"
    message = [{"role": "user", "content": "Hi"}]
    assert TextCodec(tokenizer).decode(TextCodec(tokenizer).render(message)) == "own"
    assert TextCodec(tokenizer, "set").decode(TextCodec(tokenizer, "set").render(message)) == "set"


def test_messages_that_the_template_refuses_are_a_value_error() -> None:
    codec = TextCodec(tiny_tokenizer.byte_level(), "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(ValueError, match="refuses these messages: roles must alternate"):
        codec.render([{"role": "user", "content": "Hi"}])
