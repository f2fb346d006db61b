"""Several choices of one request: prompts, seeds, streams that interleave, and nothing left running."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import groupby

import pytest
from api_client import PROMPT, QUESTION, Connection, Json, events, post
from fake_service import FakeService
from hypothesis import given
from hypothesis import strategies as st

from serve.errors import ServiceUnavailable
from serve.http.generation_requests import derived_seed

SEEDS = st.integers(-(2**63), 2**63 - 1)


@pytest.fixture
def service() -> FakeService:
    return FakeService()


def text_of(choice: Json) -> str:
    return choice["text"] if "text" in choice else choice.get("delta", choice.get("message"))["content"]


@pytest.mark.parametrize(("path", "body"), [("completions", PROMPT), ("chat/completions", QUESTION)])
async def test_n_choices_are_told_at_once(service: FakeService, path: str, body: Json) -> None:
    answer = (await post(service, path, body | {"n": 3, "seed": 5})).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert [text_of(choice) for choice in answer["choices"]] == [service.answer] * 3
    assert [request.sampling.seed for request in service.requests] == [5, 5 + 2**32, 5 + 2 * 2**32]
    assert answer["polydraft"]["seed"] == 5


async def test_usage_sums_over_choices_and_counts_each_prompt_once(service: FakeService) -> None:
    one = (await post(service, "completions", PROMPT)).json()
    three = (await post(service, "completions", PROMPT | {"n": 3})).json()
    both = (await post(service, "completions", PROMPT | {"n": 2, "prompt": [PROMPT["prompt"]] * 2})).json()
    for answer, prompts, choices in ((three, 1, 3), (both, 2, 4)):
        assert answer["usage"]["prompt_tokens"] == prompts * one["usage"]["prompt_tokens"]
        assert answer["usage"]["completion_tokens"] == choices * one["usage"]["completion_tokens"]
        for name, count in one["usage"]["completion_tokens_details"].items():
            assert answer["usage"]["completion_tokens_details"][name] == choices * count
        for name in ("rounds", "draft_ms", "verify_ms", "wire_ms"):
            assert answer["polydraft"][name] == choices * one["polydraft"][name]
        assert answer["polydraft"]["mean_acceptance_length"] == one["polydraft"]["mean_acceptance_length"]


async def test_choices_go_prompt_by_prompt(service: FakeService) -> None:
    texts = ["家", "house"]
    ids = [list(service.codec.encode(text)) for text in texts]
    for prompt in (texts, ids):
        service.requests.clear()
        body = PROMPT | {"prompt": prompt, "n": 2, "seed": 1, "echo": True}
        answer = (await post(service, "completions", body)).json()
        assert [choice["text"] for choice in answer["choices"]] == [
            text + service.answer for text in texts for _ in range(2)
        ]
        assert [list(request.prompt) for request in service.requests] == [ids[0], ids[0], ids[1], ids[1]]
        assert [request.sampling.seed for request in service.requests] == [1, 1 + 2**32] * 2


async def test_without_a_seed_equal_prompts_get_different_texts_and_each_can_be_asked_for_again(
    service: FakeService,
) -> None:
    answer = (await post(service, "completions", PROMPT | {"prompt": ["a"] * 4, "n": 2})).json()
    seeds = [request.sampling.seed for request in service.requests]
    assert len(set(seeds)) == 8
    assert seeds == [derived_seed(answer["polydraft"]["seed"], k) for k in range(8)]


async def test_each_prompt_has_its_language(service: FakeService) -> None:
    service.language_of = {"a": "de", "b": "ja"}
    body = PROMPT | {"prompt": ["a", "b"]}
    answer = (await post(service, "completions", body)).json()
    assert [request.language for request in service.requests] == ["de", "ja"]
    assert answer["polydraft"]["language"] is None, "they differ"
    told = events(await post(service, "completions", body | {"stream": True}))
    ends = {chunk["choices"][0]["index"]: chunk["polydraft"] for chunk in told if "polydraft" in chunk}
    assert {index: block["language"] for index, block in ends.items()} == {0: "de", 1: "ja"}


@given(seed=SEEDS, k=st.integers(0, 127))
def test_derived_seeds_fit_in_64_bits_and_choice_0_has_the_seed_itself(seed: int, k: int) -> None:
    assert derived_seed(seed, 0) == seed
    assert -(2**63) <= derived_seed(seed, k) < 2**63
    assert (derived_seed(seed, k) - seed - k * 2**32) % 2**64 == 0


@given(st.lists(st.integers(0, 2**32 - 1), min_size=2, max_size=2, unique=True))
def test_choices_of_different_32_bit_seeds_are_different(seeds: list[int]) -> None:
    first, second = ({derived_seed(seed, k) for k in range(128)} for seed in seeds)
    assert len(first) == len(second) == 128 and not first & second


@pytest.mark.parametrize(("path", "body"), [("completions", PROMPT), ("chat/completions", QUESTION)])
async def test_streamed_choices_interleave_and_each_ends_once(service: FakeService, path: str, body: Json) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = events(await post(service, path, body | options | {"n": 3, "seed": 5}))
    assert all(chunk["usage"] is None for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert len(list(groupby(choice["index"] for choice in choices))) > 3, "they take turns"
    for index in range(3):
        own = [choice for choice in choices if choice["index"] == index]
        before = own[:-1]
        texts = [choice.get("text", choice.get("delta", {}).get("content")) or "" for choice in own]
        assert "".join(texts) == service.answer
        assert [choice["finish_reason"] for choice in own] == [None] * len(before) + ["stop"]
        assert [choice.get("delta", {}).get("role") for choice in own].count("assistant") == (path != "completions")
    ends = [chunk for chunk in chunks if "polydraft" in chunk]
    seeds = {chunk["choices"][0]["index"]: chunk["polydraft"]["seed"] for chunk in ends}
    assert seeds == {k: derived_seed(5, k) for k in range(3)}
    assert last["choices"] == []
    assert last["polydraft"]["rounds"] == sum(chunk["polydraft"]["rounds"] for chunk in ends) == service.rounds


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("after", [0, 3])
async def test_if_one_choice_fails_all_are_closed(service: FakeService, stream: bool, after: int) -> None:
    service.error, service.error_after, service.error_seed = ServiceUnavailable("gone"), after, derived_seed(5, 1)
    response = await post(service, "completions", PROMPT | {"n": 3, "seed": 5, "stream": stream})
    assert response.status_code == (200 if stream else 503)
    assert "service_unavailable" in response.text and "[DONE]" not in response.text
    assert (len(service.requests), service.open) == (3, 0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("go", [Connection.leave, Connection.cancel])
async def test_all_choices_are_closed_when_the_client_goes_away(
    service: FakeService, stream: bool, go: Callable[[Connection], None]
) -> None:
    service.hold = asyncio.Event()
    connection = Connection(service, "chat/completions", QUESTION | {"stream": stream, "n": 4})
    await service.started.wait()
    assert service.open == 4
    go(connection)
    await asyncio.wait([connection.task])
    assert service.open == 0
