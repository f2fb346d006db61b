"""On-policy refresh: the drafter writes, the target says what it would have written at each of its tokens.

A drafter drafts after tokens of its own, yet learns from the target's texts. Training it on its own answers with the
target's law as the teacher closes that gap: on-policy distillation (Agarwal et al. 2024, "GKD", arXiv 2306.13649).
The tokens themselves are no model to follow, so these documents are for reverse_kl, tv, lk or forward_kl with an
online teacher, never for ce.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from transformers import PreTrainedModel

from common.engine.decoding import build_decoder
from common.engine.drafters import load_drafter
from common.types import GenerationRequest, SamplingParams, TokenIds
from train.packing import Document
from train.recipe import RefreshSettings


def refresh_documents(
    drafter: Path, prompts: Sequence[TokenIds], settings: RefreshSettings, stop_token_ids: frozenset[int]
) -> Iterator[Document]:
    """The answers of the model in the folder `drafter` to `prompts`, in their order, with the loss on the answers.

    Answer i is drawn with the noise of seed + i, so the same drafter gives the same answers, whatever the concurrency.
    Raises ValueError naming the folder if there is no network in it, DecodingError if a prompt is too long for it.
    """
    prompts = prompts[: settings.prompts]
    model = load_drafter(drafter)
    if not isinstance(model, PreTrainedModel):
        raise ValueError(f"{drafter}: an n-gram drafter cannot be trained on its own answers")
    longest = max(map(len, prompts), default=0)
    decoder = build_decoder(model, max_length=longest + settings.max_tokens, concurrency=settings.concurrency)
    requests = [
        GenerationRequest(
            prompt=prompt,
            max_tokens=settings.max_tokens,
            sampling=SamplingParams(temperature=settings.temperature, seed=settings.seed + number),
            stop_token_ids=stop_token_ids,
        )
        for number, prompt in enumerate(prompts)
    ]
    portion = 8 * settings.concurrency
    for start in range(0, len(requests), portion):
        asked = requests[start : start + portion]
        for request, generation in zip(asked, decoder.generate(asked), strict=True):
            yield Document([*request.prompt, *generation.output], loss_from=len(request.prompt))
