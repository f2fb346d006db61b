"""Distillation: the target answers training prompts at several temperatures, in large batches, by our own engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from common.engine.decoding import Decoder
from common.types import GenerationRequest, SamplingParams, TokenIds
from train.packing import Document
from train.recipe import DistillSettings


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the target wrote: the drafter is taught these tokens, not their text, so nothing is tokenized twice."""

    prompt: TokenIds
    output: TokenIds
    temperature: float

    @property
    def document(self) -> Document:
        """Loss on the answer alone."""
        return Document(tokens=[*self.prompt, *self.output], loss_from=len(self.prompt))


def distill(
    decoder: Decoder, prompts: Sequence[TokenIds], settings: DistillSettings, stop_token_ids: frozenset[int], path: Path
) -> Iterator[int]:
    """Answer `prompts` and append the answers to `path` (JSON lines), portion by portion; yields how many are there.

    An interrupted run goes on after the last whole portion and writes the same answers as an undisturbed one: the
    seed of an answer is its number.
    """
    requests = [
        GenerationRequest(
            prompt=prompt,
            max_tokens=settings.max_tokens,
            sampling=SamplingParams(temperature=temperature, seed=settings.seed + number),
            stop_token_ids=stop_token_ids,
        )
        for number, (prompt, temperature) in enumerate((p, t) for p in prompts for t in settings.temperatures)
    ]
    portion = settings.concurrency * 8
    done = _whole_lines(path, portion)
    while done < len(requests):
        asked = requests[done : done + portion]
        generations = decoder.generate(asked)
        answers = [
            Answer(prompt=r.prompt, output=g.output, temperature=r.sampling.temperature)
            for r, g in zip(asked, generations, strict=True)
        ]
        with path.open("ab") as file:
            file.write(msgspec.json.Encoder().encode_lines(answers))
        done += len(answers)
        yield done


def read_answers(path: Path) -> list[Answer]:
    return msgspec.json.Decoder(Answer).decode_lines(path.read_bytes())


def _whole_lines(path: Path, portion: int) -> int:
    """Cut off what an interrupted run left of its last portion; returns the answers that stay."""
    if not path.exists():
        return 0
    lines = path.read_bytes().splitlines(keepends=True)
    whole = len(lines) - (0 if not lines or lines[-1].endswith(b"\n") else 1)
    whole -= whole % portion
    path.write_bytes(b"".join(lines[:whole]))
    return whole
