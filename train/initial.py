"""Models and tokenizers before training: random weights of a given shape, a tokenizer learnt from text."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from common.models import ModelError, fingerprint, load_config, load_model, load_tokenizer, mismatch
from train.pruning import keep_layers, spread_layers
from train.recipe import TargetSettings
from train.shapes import DrafterInit, ModelShape

BEGIN, END, PAD = "<s>", "</s>", "<pad>"


def train_tokenizer(texts: Iterable[str], settings: TargetSettings) -> PreTrainedTokenizerFast:
    """Byte-level BPE: any text in any script round-trips."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size,
        special_tokens=[BEGIN, END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    begin = (BEGIN, tokenizer.token_to_id(BEGIN))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[begin])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        chat_template=settings.chat_template,
        model_max_length=settings.context_length,
    )


def save_initial_model(
    folder: Path,
    shape: ModelShape,
    tokenizer: PreTrainedTokenizerFast,
    *,
    vocab_size: int,
    context_length: int,
    seed: int,
) -> None:
    """A Llama with random weights and the given tokenizer, as a Hugging Face folder."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_heads,
        max_position_embeddings=context_length,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_initial_drafter(folder: Path, settings: DrafterInit, shape: ModelShape, target: str | Path, seed: int) -> None:
    """The drafter of `shape` that training begins with, in float32, with the tokenizer of `target`.

    Raises ModelError, naming both folders, if a checkpoint cannot draft for `target`, and ValueError, naming the
    setting, if what it begins with has another shape.
    """
    tokenizer = load_tokenizer(target)
    match settings.start:
        case "random":
            config = load_config(target).get_text_config()
            sizes = {"vocab_size": config.vocab_size, "context_length": config.max_position_embeddings}
            save_initial_model(folder, shape, tokenizer, **sizes, seed=seed)
            return
        case "checkpoint":
            assert settings.checkpoint is not None
            check_fit(settings.checkpoint, target)
            model = load_model(settings.checkpoint)
        case "prune":
            model = load_model(target)
            layers = settings.layers or spread_layers(shape.num_layers, model.config.num_hidden_layers)
            keep_layers(model, layers)
    _check_shape(model, shape)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def check_fit(checkpoint: str, target: str | Path) -> None:
    """Raises ModelError, naming both folders, if a checkpoint cannot draft for `target` or either cannot be read."""
    own, wanted = (fingerprint(load_tokenizer(path), load_config(path)) for path in (checkpoint, target))
    problem = mismatch(wanted, own)
    if problem is not None:
        raise ModelError(f"checkpoint {checkpoint} cannot draft for target {target}: {problem}")


def _check_shape(model: PreTrainedModel, shape: ModelShape) -> None:
    config = model.config.get_text_config()
    found = {
        "hidden_size": config.hidden_size,
        "num_layers": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
    }
    for name, value in found.items():
        if value != getattr(shape, name):
            raise ValueError(f"drafter.{name} is {getattr(shape, name)}, but what it begins with has {value}")
