"""The oracle: speculative output equals plain output, token for token, whatever the drafter does."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TypeVar

import msgspec
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from common.engine import reference
from common.engine.decoding import Decoder
from common.engine.drafters import DraftModel, make_runner
from common.engine.drafting import Drafting
from common.engine.engine import Engine
from common.engine.session import Session
from common.engine.trimming import trim_output
from common.messages import Score, Verdict
from common.ngram_model import NgramConfig, NgramModel
from common.rounds import TokenLog
from common.types import GenerationRequest, SamplingParams, TokenIds
from train.ngram import count_ngrams
from train.packing import Document
from train.shapes import NgramSettings

T = TypeVar("T")
TEMPERATURES = (0.0, 1.0)


@cache
def target(shape: str = "llama") -> PreTrainedModel:
    return tiny.model(shape)


@cache
def plain(shape: str, temperature: float, count: int) -> tuple[TokenIds, ...]:
    """What the reference writes: transformers' own attention, no cache, one sequence at a time."""
    logits_of = reference.logits_of(tiny.model(shape))
    return tuple(reference.generate_plain(logits_of, r) for r in tiny.requests(count, temperature=temperature))


_ADJUSTMENTS = (
    {"repetition_penalty": 1.3, "frequency_penalty": 0.8, "presence_penalty": 0.5},
    {},
    {"frequency_penalty": -1.5},
    {"presence_penalty": 2.0, "repetition_penalty": 0.7},
)


def demanding(count: int, temperature: float) -> list[GenerationRequest]:
    """Requests that use every sampling parameter, among them some without penalties."""
    return [
        msgspec.structs.replace(
            request,
            sampling=msgspec.structs.replace(
                request.sampling,
                min_p=0.02,
                logit_bias=((7, 3.0), (11 + number, -100.0), (2, -2.0)),
                logprobs=number % 3 or None,
                **_ADJUSTMENTS[number % len(_ADJUSTMENTS)],
            ),
        )
        for number, request in enumerate(tiny.requests(count, temperature=temperature))
    ]


@cache
def plain_demanding(temperature: float, count: int) -> tuple[TokenIds, ...]:
    logits_of = reference.logits_of(tiny.model())
    return tuple(reference.generate_plain(logits_of, r) for r in demanding(count, temperature))


def _alternating(ones: Sequence[T], others: Sequence[T]) -> list[T]:
    """Side by side in one batch: texts that ask for nothing special, and texts that ask for everything."""
    return [each for pair in zip(ones, others, strict=True) for each in pair]


class _Adversarial(Drafting):
    """Drafts what the model thinks least likely."""

    def advance(self, sessions: Sequence[Session], logits: Sequence[Tensor]) -> list:
        return super().advance(sessions, [-rows for rows in logits])


class _Stale(Drafting):
    """Never learns what was committed beyond the prompt: drafts on from its own text."""

    def take(self, session: Session, request, vocabulary: int):  # type: ignore[no-untyped-def]
        mine = tuple(session.tokens[request.base :])
        stale = (mine + request.committed)[: len(request.committed)]
        return super().take(session, msgspec.structs.replace(request, committed=stale), vocabulary)


def _draft_model(kind: str, shape: str) -> DraftModel:
    if kind == "ngram":
        return _ngram_model()
    drafting = tiny.model(shape, seed=99) if kind == "random" else tiny.perturbed(target(shape), 0.05)
    if kind == "trimmed":
        trim_output(drafting, torch.arange(2, tiny.VOCABULARY, 3))
    return drafting


def _ngram_model() -> NgramModel:
    """Of the target's own greedy texts."""
    prompts = [request.prompt for request in tiny.requests(6, temperature=0.0)]
    texts = zip(prompts, plain("llama", 0.0, 6), strict=True)
    config = NgramConfig(order=3, vocab_size=tiny.VOCABULARY, max_position_embeddings=256)
    documents = [Document([*prompt, *output], loss_from=len(prompt)) for prompt, output in texts]
    return count_ngrams(documents, NgramSettings(order=3), config)


def _drafter(kind: str, shape: str) -> Engine:
    roles = {"adversarial": _Adversarial, "stale": _Stale}
    return Engine(make_runner(_draft_model(kind, shape), kv_tokens=4096), roles.get(kind, Drafting)())


@pytest.mark.parametrize("shape", tiny.SHAPES)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_engine_without_drafter_equals_the_reference(shape: str, temperature: float) -> None:
    decoder = Decoder(tiny.verifier(target(shape), prefill_chunk=5), concurrency=4)
    outputs = [g.output for g in decoder.generate(tiny.requests(6, temperature=temperature))]
    assert tuple(outputs) == plain(shape, temperature, 6)


@pytest.mark.parametrize("kind", ["good", "random", "adversarial", "stale"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("batch", [1, 2, 8])
@pytest.mark.parametrize("draft_length", [1, 2, 3, 4, 5, 6, 7, 8])
def test_speculative_equals_plain(kind: str, temperature: float, batch: int, draft_length: int) -> None:
    _speculative_equals_plain(kind, temperature, batch, draft_length)


@pytest.mark.parametrize("kind", ["trimmed", "ngram"])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize(("batch", "draft_length"), [(1, 1), (2, 4), (8, 7)])
def test_speculative_equals_plain_with_drafters_of_other_kinds(
    kind: str, temperature: float, batch: int, draft_length: int
) -> None:
    _speculative_equals_plain(kind, temperature, batch, draft_length)


def _speculative_equals_plain(kind: str, temperature: float, batch: int, draft_length: int) -> None:
    engine, drafter = tiny.verifier(target()), _drafter(kind, "llama")
    decoder = Decoder(engine, drafter, draft_length=draft_length, concurrency=batch)
    generations = decoder.generate(_alternating(tiny.requests(4, temperature=temperature), demanding(4, temperature)))
    expected = _alternating(plain("llama", temperature, 4), plain_demanding(temperature, 4))
    assert [g.output for g in generations] == expected
    engine.check_integrity()
    drafter.check_integrity()
    assert engine.num_sessions == drafter.num_sessions == 0


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_parameters_change_the_texts(temperature: float) -> None:
    """Else equality would say nothing about them."""
    for text, changed in zip(plain("llama", temperature, 4), plain_demanding(temperature, 4), strict=True):
        assert text != changed


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_target_as_its_own_drafter_is_always_right_with_every_parameter(temperature: float) -> None:
    requests = [msgspec.structs.replace(r, stop_token_ids=frozenset()) for r in demanding(8, temperature)]
    decoder = Decoder(tiny.verifier(target()), tiny.drafter(target()), draft_length=4)
    for generation in decoder.generate(requests):
        assert generation.stats.accepted_tokens == generation.stats.drafted_tokens > 0


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_scoring_with_every_parameter_agrees_with_the_models_own_text(temperature: float) -> None:
    engine = tiny.drafter(target())
    for number, request in enumerate(demanding(4, temperature)):
        written = plain_demanding(temperature, 4)[number]
        engine.handle(number, TokenLog(request).open(number, ""))
        engine.handle(number, Score(session=number, base=len(request.prompt), committed=written))
    assert [reply.agreed for _, reply in engine.step()] == [len(text) for text in plain_demanding(temperature, 4)]


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("written", [1, 4, 9])
def test_a_replay_from_the_middle_goes_on_with_the_same_text(temperature: float, written: int) -> None:
    """The replica that takes over tells prompt and output apart, as penalties must."""
    for request, text in zip(demanding(4, temperature), plain_demanding(temperature, 4), strict=True):
        engine, log = tiny.verifier(target()), TokenLog(request)
        kept, draft = text[: min(written, len(text) - 1)], text[written:-1]
        verdict = Verdict(session=0, base=len(request.prompt), accepted=len(kept) - 1, next_token=kept[-1])
        log.commit(kept[:-1], verdict)
        engine.handle(0, log.open(0, ""))
        engine.handle(0, log.verify(0, draft))
        [(_, verdict)] = engine.step()
        assert isinstance(verdict, Verdict)
        assert (verdict.accepted, verdict.next_token) == (len(draft), text[-1])


@pytest.mark.parametrize("shape", tiny.SHAPES)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_speculative_equals_plain_for_every_shape(shape: str, temperature: float) -> None:
    decoder = Decoder(tiny.verifier(target(shape)), _drafter("good", shape), draft_length=3, concurrency=3)
    generations = decoder.generate(tiny.requests(6, temperature=temperature))
    assert tuple(g.output for g in generations) == plain(shape, temperature, 6)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_good_drafter_is_accepted_more_than_a_bad_one(temperature: float) -> None:
    def mean_acceptance_length(kind: str) -> float:
        decoder = Decoder(tiny.verifier(target()), _drafter(kind, "llama"), draft_length=4)
        generations = decoder.generate(tiny.requests(8, temperature=temperature))
        return sum(g.stats.output_tokens for g in generations) / sum(g.stats.rounds for g in generations)

    assert mean_acceptance_length("good") > 2.0 > mean_acceptance_length("random") >= 1.0
    assert mean_acceptance_length("good") > mean_acceptance_length("trimmed") > mean_acceptance_length("random")
    assert mean_acceptance_length("ngram") > mean_acceptance_length("random")


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_trimmed_drafter_drafts_as_if_all_other_tokens_were_forbidden(temperature: float) -> None:
    """With every parameter, penalties and truncation included."""
    kept = range(2, tiny.VOCABULARY, 3)
    forbidding = tuple((token, -100.0) for token in range(tiny.VOCABULARY) if token not in kept)
    for number, request in enumerate([*tiny.requests(4, temperature=temperature), *demanding(4, temperature)]):
        allowed = tuple((token, bias) for token, bias in request.sampling.logit_bias if token in kept)
        sampling = msgspec.structs.replace(request.sampling, logit_bias=(*allowed, *forbidding))
        whole = msgspec.structs.replace(request, sampling=sampling)
        drafts = []
        for kind, asked in (("trimmed", request), ("good", whole)):
            engine, log = _drafter(kind, "llama"), TokenLog(asked)
            engine.handle(number, log.open(number, ""))
            engine.handle(number, log.propose(number, len(request.prompt), 8))
            drafts += [reply.tokens for _ in range(8) for _, reply in engine.step()]
        assert drafts[0] == drafts[1]
        assert set(drafts[0]) <= set(kept)


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_greedy_equals_transformers_generate(shape: str) -> None:
    hugging_face = tiny.model(shape)
    requests = tiny.requests(4, temperature=0.0, max_tokens=24)
    decoder = Decoder(tiny.verifier(tiny.model(shape)), _drafter("good", shape), draft_length=3)
    for request, generation in zip(requests, decoder.generate(requests), strict=True):
        expected = hugging_face.generate(
            torch.tensor([request.prompt]), do_sample=False, max_new_tokens=request.max_tokens, eos_token_id=2
        )
        assert generation.output == tuple(expected[0, len(request.prompt) :].tolist())


def test_greedy_with_bias_and_repetition_penalty_equals_transformers_generate() -> None:
    hugging_face = tiny.model()
    requests = [
        msgspec.structs.replace(
            request,
            sampling=SamplingParams(temperature=0.0, repetition_penalty=1.4, logit_bias=((7, 6.0), (9, -6.0))),
        )
        for request in tiny.requests(4, temperature=0.0, max_tokens=24)
    ]
    decoder = Decoder(tiny.verifier(tiny.model()), _drafter("good", "llama"), draft_length=3)
    for request, generation in zip(requests, decoder.generate(requests), strict=True):
        expected = hugging_face.generate(
            torch.tensor([request.prompt]),
            do_sample=False,
            max_new_tokens=request.max_tokens,
            eos_token_id=2,
            repetition_penalty=1.4,
            sequence_bias={(7,): 6.0, (9,): -6.0},
        )
        assert generation.output == tuple(expected[0, len(request.prompt) :].tolist())


@settings(max_examples=25, deadline=None)
@given(drafts=st.lists(st.lists(st.integers(-5, tiny.VOCABULARY + 5), max_size=6), min_size=40, max_size=40))
def test_any_draft_at_all_leaves_the_text_unchanged(drafts: list[list[int]]) -> None:
    """Also drafts with ids that do not exist, or too long for the text."""
    request = tiny.requests(1, temperature=1.0)[0]
    engine, log = tiny.verifier(target()), TokenLog(request)
    engine.handle(0, log.open(0, ""))
    for draft in drafts:
        if log.finish_reason is not None:
            break
        engine.handle(0, log.verify(0, tuple(draft)))
        replies = []
        while not replies:
            replies = engine.step()
        assert isinstance(replies[0][1], Verdict)
        log.commit(tuple(draft), replies[0][1])
    assert log.output == plain("llama", 1.0, 1)[0][: len(log.output)]
    assert log.finish_reason is not None or len(log.output) >= len(drafts)


@pytest.mark.parametrize("draft_length", [1, 3])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_reference_coupled_equals_reference_plain(draft_length: int, temperature: float) -> None:
    logits_of = reference.logits_of(tiny.model())
    requests = [*tiny.requests(3, temperature=temperature), *demanding(3, temperature)]
    expected = [*plain("llama", temperature, 3), *plain_demanding(temperature, 3)]
    for request, text in zip(requests, expected, strict=True):
        output = reference.generate_coupled(logits_of, lambda tokens: (tokens[-1], 5, 7)[:draft_length], request)
        assert output == text
