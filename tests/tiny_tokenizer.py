"""Tiny tokenizers, trained in milliseconds on a few lines."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXT = (
    "Translate German to English: the house is small.",
    "Das Haus ist klein, aber schön.",
    "東京に住んでいます。家は小さいです。",
    "这所房子很小,但是很漂亮。",
    "Дом маленький, но красивый.",
)
SPECIAL_TOKENS = ["<s>", "</s>", "<pad>"]


def byte_level(*, vocab_size: int = 400, eos: str = "</s>") -> PreTrainedTokenizerFast:
    """Byte-level BPE, as in GPT-2, Llama 3 and Qwen."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return wrap(tokenizer, eos=eos)


def byte_fallback() -> PreTrainedTokenizerFast:
    """Like the sentencepiece tokenizers of Llama 2 and Gemma: `▁` is a space, unknown characters become `<0xNN>`."""
    pieces = [*SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256)), "▁the", "▁", "t", "h", "e"]
    merges = [("t", "h"), ("th", "e"), ("▁", "the")]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, "th", "the"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    return wrap(tokenizer)


def wrap(tokenizer: Tokenizer, *, eos: str = "</s>") -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token=eos,
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )
