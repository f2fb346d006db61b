"""Loading a causal language model and its tokenizer safely, and telling whether two of them fit together.

Only safetensors weights are read and no code from a model's folder is ever run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

if TYPE_CHECKING:
    # The registry and the command line use fingerprints alone; they need not wait for torch to be imported.
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
SPECIAL_TOKENS = ("bos", "eos")

T = TypeVar("T")


class ModelError(ValueError):
    """A model or tokenizer that cannot be used; the message names it and says what is wrong."""


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """What a drafter and its target must have in common, since nothing but token ids travels between them."""

    tokens: str
    """SHA-256 over the map token id → bytes (see `token_bytes`), in hexadecimal."""
    special_tokens: dict[str, int | None]
    """Ids of the tokens that begin and end a text. Padding is left out: it is never part of a text."""
    vocab_size: int
    """Rows of the model's logits; at times more than the tokenizer has tokens."""
    context_length: int
    """Most tokens the model can attend to."""


def load_config(path: str | Path) -> PreTrainedConfig:
    """The configuration of the model at `path`, a local folder or a hub id. Raises ModelError."""
    from transformers import AutoConfig

    import common.ngram_model  # noqa: F401  (makes its model type known)

    _require(path, ("config.json",), "config.json")
    return _loading(path, lambda: AutoConfig.from_pretrained(_name(path), trust_remote_code=False))


def load_model(
    path: str | Path, *, dtype: str | torch.dtype = "float32", attention: str | None = None, ranks: int = 1
) -> PreTrainedModel:
    """The causal language model at `path` (a local folder or a hub id), on the CPU, in evaluation mode.

    `attention` names a function registered with transformers' `AttentionInterface`; None takes the best one that the
    model supports. Of several `ranks`, which must have come together (`torch.distributed`), each reads and holds its
    own part, on its GPU if it has one. Raises ModelError, naming `path`, if the folder or its configuration is missing,
    if its weights are not safetensors, or if they lack a tensor that the configuration calls for (transformers alone
    would make one up at random).
    """
    from transformers import AutoModelForCausalLM
    from transformers.distributed import DistributedConfig

    config = load_config(path)
    parts = {"distributed_config": DistributedConfig(tp_size=ranks)} if ranks > 1 else {}
    _require(path, ("*.safetensors",), "weights in safetensors format (pickled weights are not read)")
    model, report = _loading(
        path,
        lambda: AutoModelForCausalLM.from_pretrained(
            _name(path),
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **parts,
        ),
    )
    if report["missing_keys"]:
        raise ModelError(f"{path}: weights lack {', '.join(sorted(report['missing_keys'])[:3])}")
    return model.eval()


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer at `path`, a local folder or a hub id. Raises ModelError, naming `path`."""
    from transformers import AutoTokenizer

    _require(path, TOKENIZER_FILES, "tokenizer (tokenizer.json)")
    tokenizer = _loading(path, lambda: AutoTokenizer.from_pretrained(_name(path), trust_remote_code=False))
    if not tokenizer.is_fast:
        raise ModelError(f"{path}: its tokenizer has no tokenizer.json form")
    return tokenizer


def stop_token_ids(path: str | Path, tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    """The tokens that end a text of the model at `path`: its tokenizer's, and all that its makers say end its answers.

    Chat models end a turn with another token than a document. Which is told in generation_config.json, or else in
    config.json: where transformers' `generate` and vLLM look too. Raises ModelError.
    """
    told = _generation_eos(path)
    if told is None:
        told = load_config(path).eos_token_id
    return frozenset({tokenizer.eos_token_id, *([told] if isinstance(told, int) else told or ())} - {None})


def _generation_eos(path: str | Path) -> int | list[int] | None:
    from transformers import GenerationConfig
    from transformers.utils import has_file

    name = _name(path)
    if not _loading(path, lambda: has_file(name, "generation_config.json")):
        return None
    return _loading(path, lambda: GenerationConfig.from_pretrained(name)).eos_token_id


def fingerprint(tokenizer: PreTrainedTokenizerFast, config: PreTrainedConfig) -> Fingerprint:
    """The fingerprint of a model. Raises ModelError if its configuration states no context length."""
    text_config = config.get_text_config()
    context_length = getattr(text_config, "max_position_embeddings", None)
    if not context_length:
        raise ModelError(f"{config.name_or_path}: its configuration lacks max_position_embeddings")
    vocab_size = text_config.vocab_size
    return Fingerprint(
        tokens=_digest(token_bytes(tokenizer)[:vocab_size]),
        special_tokens={name: getattr(tokenizer, f"{name}_token_id") for name in SPECIAL_TOKENS},
        vocab_size=vocab_size,
        context_length=context_length,
    )


def mismatch(target: Fingerprint, drafter: Fingerprint, context_length: int | None = None) -> str | None:
    """Why `drafter` cannot draft for `target`, naming both values; None when it fits.

    It fits if ids mean the same bytes in both, if texts begin and end with the same ids, if it can propose no id
    that the target's logits lack (fewer rows are fine: the rest is padding), and if it attends to at least
    `context_length` tokens: the longest text to be served, by default the target's whole context.
    """
    needed = target.context_length if context_length is None else context_length
    if drafter.vocab_size > target.vocab_size:
        return f"the drafter's vocabulary has {drafter.vocab_size} ids, the target's {target.vocab_size}"
    if drafter.tokens != target.tokens:
        return f"token ids mean other bytes: drafter {drafter.tokens[:12]}, target {target.tokens[:12]}"
    for name, wanted in target.special_tokens.items():
        found = drafter.special_tokens.get(name)
        if found != wanted:
            return f"the drafter's {name} token is {found}, the target's {wanted}"
    if drafter.context_length < needed:
        return f"the drafter's context is {drafter.context_length} tokens, needed are {needed}"
    return None


def token_bytes(tokenizer: PreTrainedTokenizerFast) -> list[bytes | None]:
    """What each id stands for in a text; None for an id that no token has.

    Token strings are read the way the tokenizer's decoder reads them: byte-level ones through GPT-2's
    byte ↔ character table; else `<0xNN>` is that byte and the decoder's space mark is a space; what other decoders
    do depends on the neighbours, so their token strings stand for themselves. A special token writes nothing, so
    it is its name behind a NUL byte, which keeps it apart from a text that looks like it.
    """
    decoder = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"] or {}
    read = _token_reader(decoder)
    vocabulary = tokenizer.get_vocab()
    added = tokenizer.added_tokens_decoder
    table: list[bytes | None] = [None] * (max(vocabulary.values()) + 1)
    for token, index in vocabulary.items():
        table[index] = read(token)
    for index, token in added.items():
        table[index] = (b"\0" if token.special else b"") + token.content.encode()
    return table


def _token_reader(decoder: dict[str, Any]) -> Callable[[str], bytes]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    steps = decoder.get("decoders", [decoder])
    kinds = {step.get("type") for step in steps}
    if "ByteLevel" in kinds:
        byte_of = {character: bytes([byte]) for byte, character in bytes_to_unicode().items()}
        return lambda token: b"".join(byte_of.get(character, character.encode()) for character in token)
    spaces = [step["replacement"] for step in steps if step.get("type") == "Metaspace"]
    replacements = [step for step in steps if step.get("type") == "Replace" and "String" in step["pattern"]]
    spaces += [step["pattern"]["String"] for step in replacements if step["content"] == " "]
    return lambda token: _sentencepiece_bytes(token, spaces, "ByteFallback" in kinds)


def _sentencepiece_bytes(token: str, spaces: list[str], byte_fallback: bool) -> bytes:
    if byte_fallback and re.fullmatch("<0x[0-9A-F]{2}>", token):
        return bytes.fromhex(token[3:5])
    for mark in spaces:
        token = token.replace(mark, " ")
    return token.encode()


def _digest(table: list[bytes | None]) -> str:
    """Length-prefixed, so that no two tables run together to the same bytes; ids without a token are skipped."""
    digest = hashlib.sha256()
    for index, token in enumerate(table):
        if token is not None:
            digest.update(f"{index} {len(token)} ".encode() + token)
    return digest.hexdigest()


def _name(path: str | Path) -> str:
    return str(Path(path).expanduser()) if _is_folder_name(path) else str(path)


def _is_folder_name(path: str | Path) -> bool:
    """Whether `path` can only mean a local folder: asking the hub about it would take long and be of no use."""
    text = str(path)
    if isinstance(path, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1:
        return True
    return Path(text.split("/")[0]).exists()


def _require(path: str | Path, patterns: tuple[str, ...], what: str) -> None:
    if not _is_folder_name(path):
        return
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ModelError(f"{path}: no such folder")
    if not any(next(folder.glob(pattern), None) for pattern in patterns):
        raise ModelError(f"{path}: holds no {what}")


def _loading(path: str | Path, load: Callable[[], T]) -> T:
    from safetensors import SafetensorError

    try:
        return load()
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ModelError(f"{path}: {' '.join(str(error).split())}") from error
