"""Text that grows token by token equals the text decoded at once, and never shows half a character."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import tiny_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from common.models import token_bytes
from serve.http.text import MAX_PENDING, IncrementalText, TextCodec

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
codecs = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())


def written(text: IncrementalText, tokens: Sequence[int]) -> list[str]:
    return [*map(text.push, tokens), text.finish()]


def cut(codec: TextCodec, string: str, size: int) -> list[int]:
    """Tokens of `string`, none of them longer than `size` characters."""
    return [token for start in range(0, len(string), size) for token in codec.encode(string[start : start + size])]


@codecs
@settings(max_examples=150, deadline=None)
@given(string=TEXTS)
def test_pieces_join_to_the_text_decoded_at_once(codec: TextCodec, string: str) -> None:
    tokens = codec.encode(string)
    assert "".join(written(codec.detokenizer(), tokens)) == codec.decode(tokens)


@settings(max_examples=150, deadline=None)
@given(tokens=st.lists(st.integers(0, 399), max_size=MAX_PENDING))
def test_tokens_that_are_no_text_are_shown_as_when_decoded_at_once(tokens: list[int]) -> None:
    codec = CODECS["byte level"]
    assert "".join(written(codec.detokenizer(), tokens)) == codec.decode(tokens)


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
        shown += text.push(token)
        spelled += spelling[token] or b""
        assert shown == spelled.decode(errors="ignore").lstrip(" ")


def test_the_first_space_of_a_text_that_goes_on_from_its_prompt_is_kept() -> None:
    codec = CODECS["byte fallback"]
    (word,) = codec.encode("the")[-1:]
    assert written(codec.detokenizer(), [word]) == ["the", ""], "at the beginning of a text there is no space"
    assert written(codec.detokenizer(prompt=codec.encode("the")), [word]) == [" the", ""]
    bos, eos = 0, 1
    assert written(codec.detokenizer(prompt=(bos, *codec.encode("the"), eos)), [word]) == [" the", ""]
    assert written(codec.detokenizer(prompt=(bos,)), [word]) == ["the", ""]


@codecs
@given(string=TEXTS, share=st.floats(0, 1))
def test_a_text_goes_on_from_its_prompt_as_if_both_were_decoded_at_once(
    codec: TextCodec, string: str, share: float
) -> None:
    tokens = codec.encode(string)
    prompt, output = tokens[: int(share * len(tokens))], tokens[int(share * len(tokens)) :]
    before = codec.decode(prompt)
    if "\ufffd" not in string and not before.endswith("\ufffd"):
        text = codec.detokenizer(prompt=prompt)
        assert before + "".join(written(text, output)) == codec.decode(tokens)
        assert text.length == len(codec.decode(tokens)) - len(before)


@given(prompt=st.lists(st.integers(0, 262), max_size=20), output=st.lists(st.integers(3, 258), max_size=9))
def test_a_prompt_that_is_no_text_does_not_spoil_what_follows(prompt: list[int], output: list[int]) -> None:
    codec = CODECS["byte fallback"]
    word = list("\u5bb6\u306f".encode())
    tokens = [3 + byte for byte in word]
    assert "".join(written(codec.detokenizer(prompt=(*prompt, *codec.encode("the"))), tokens)) == "\u5bb6\u306f"
    written(codec.detokenizer(prompt=prompt), output)


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
    shown = [text.push(half) for _ in range(10 * MAX_PENDING)]
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
    assert "".join(written(text, cut(codec, "go on END of it", size))) == shown
    assert text.stopped == (shown != "go on END of it")
    assert text.stopped_by in (*stop, None)


@given(
    string=st.text("ab", max_size=30),
    stop=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    size=st.integers(1, 30),
)
def test_stop_strings_cut_where_one_is_first_complete(string: str, stop: list[str], size: int) -> None:
    codec = CODECS["byte level"]
    text = codec.detokenizer(stop)
    found = written(text, cut(codec, string, size))
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


def test_tokens_after_a_stop_string_write_nothing() -> None:
    codec = CODECS["byte level"]
    text = codec.detokenizer(["\nQ:"])
    assert "".join(map(text.push, codec.encode("one.\nQ: two\nQ: three"))) == "one."
    assert text.stopped_by == "\nQ:"
    assert [*map(text.push, codec.encode("more")), text.finish()] == [""] * (len(codec.encode("more")) + 1)


def test_what_may_begin_a_stop_string_waits() -> None:
    codec = CODECS["byte level"]
    text = codec.detokenizer(["zzz"])
    assert [text.push(token) for token in cut(codec, "azzbz", 1)] == ["a", "", "", "zzb", ""]
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


def test_a_conversation_may_end_within_its_last_message_and_tell_the_template_more() -> None:
    template = (
        "{{ style }}{% for m in messages %}{{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    codec = TextCodec(tiny_tokenizer.byte_level(), template)
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    rendered = codec.render(messages, add_generation_prompt=False, variables={"style": "brief:"})
    assert codec.decode(rendered) == "brief:Hi<end>Ho<end>"
    rendered = codec.render(messages, add_generation_prompt=False, continue_final_message=True)
    assert codec.decode(rendered) == "Hi<end>Ho"


def test_a_template_that_cannot_work_with_a_variable_is_a_value_error() -> None:
    codec = TextCodec(tiny_tokenizer.byte_level(), "{{ 'a' + style }}")
    with pytest.raises(ValueError, match="refuses these messages"):
        codec.render([{"role": "user", "content": "Hi"}], variables={"style": 3})


@codecs
@given(string=TEXTS)
def test_what_tokens_write_joins_to_the_text(codec: TextCodec, string: str) -> None:
    tokens = codec.encode(string)
    joined = b"".join(codec.bytes_of(token) or b"" for token in tokens).decode()
    assert joined.lstrip(" ") == codec.decode(tokens).lstrip(" ")


def test_tokens_have_names_that_people_can_read() -> None:
    codec = CODECS["byte level"]
    house = codec.encode(" house")[0]
    assert (codec.name(house), codec.bytes_of(house)) == (" house", b" house")
    half = codec.encode("é")[0]
    assert (codec.name(half), codec.bytes_of(half)) == ("\\xc3", b"\xc3")
    assert (codec.name(1), codec.bytes_of(1)) == ("</s>", None)
    assert (codec.name(codec.vocab_size), codec.bytes_of(codec.vocab_size)) == ("<400>", None)


@codecs
@given(string=TEXTS)
def test_a_token_begins_where_the_text_before_it_ends(codec: TextCodec, string: str) -> None:
    text, shown = codec.detokenizer(), ""
    for token in codec.encode(string):
        assert text.length == len(shown)
        shown += text.push(token)
