"""What a request asks for reaches the service."""

from __future__ import annotations

import pytest
from api_client import PROMPT, QUESTION, Json, http, post
from fake_service import FakeService


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.mark.parametrize(("path", "body"), [("completions", PROMPT), ("chat/completions", QUESTION)])
async def test_sampling_parameters_reach_the_service(service: FakeService, path: str, body: Json) -> None:
    sampling = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "presence_penalty": 2,
        "frequency_penalty": -2,
        "repetition_penalty": 1.3,
        "seed": -3,
    }
    await post(service, path, body | sampling | {"logit_bias": {"7": -100, "269": 0.5}})
    (request,) = service.requests
    assert (request.max_tokens, request.stop_token_ids, request.language) == (40, {1}, "ja")
    assert {name: getattr(request.sampling, name) for name in sampling} == sampling
    assert request.sampling.logit_bias == ((7, -100), (269, 0.5))
    assert request.sampling.logprobs is None
    assert (request.drafter, request.max_draft_length) == (None, None)


@pytest.mark.parametrize("off", [0, -1])
async def test_top_k_is_off_at_0_and_at_vllms_minus_1(service: FakeService, off: int) -> None:
    await post(service, "completions", PROMPT | {"top_k": off})
    assert service.requests[0].sampling.top_k == 0


@pytest.mark.parametrize(
    ("speculation", "drafter", "length"),
    [
        ("auto", None, None),
        ("off", None, 0),
        ("ngram", "ngram", None),
        (0, None, 0),
        (7, None, 7),
        ({"drafter": "de"}, "de", None),
        ({"drafter": "generalist", "max_draft_length": 3}, "generalist", 3),
        (None, None, None),
    ],
)
async def test_speculation_is_a_word_a_drafter_a_length_or_both(
    service: FakeService, speculation: object, drafter: str | None, length: int | None
) -> None:
    assert (await post(service, "chat/completions", QUESTION | {"speculation": speculation})).status_code == 200
    assert (service.requests[0].drafter, service.requests[0].max_draft_length) == (drafter, length)


async def test_a_drafter_that_was_deployed_just_now_is_found(service: FakeService) -> None:
    service.drafters, service.languages = ("ngram",), ()

    async def refresh(wanted: str | None = None) -> None:
        service.languages = ("de",)
        if wanted == "de":
            service.drafters = ("de", "ngram")

    service.refresh = refresh  # type: ignore[method-assign]
    async with http(service) as session:
        assert (await session.get("/v1/models")).json()["data"][0]["languages"] == ["de"]
    for path, body in (("completions", PROMPT), ("chat/completions", QUESTION)):
        assert (await post(service, path, body | {"speculation": "fr"})).json()["error"]["param"] == "speculation"
        assert (await post(service, path, body | {"speculation": "de"})).status_code == 200


async def test_the_template_is_told_what_the_client_asks(service: FakeService) -> None:
    service = FakeService(
        template="{{ style }}{% for m in messages %}{{ m.content }}{% endfor %}{{ add_generation_prompt }}"
    )
    fields = {"chat_template_kwargs": {"style": "brief:"}, "add_generation_prompt": False}
    await post(service, "chat/completions", QUESTION | fields)
    assert service.codec.decode(service.requests[0].prompt) == "brief:Translate: 家False"


async def test_null_means_absent(service: FakeService) -> None:
    body = PROMPT | dict.fromkeys(["temperature", "top_p", "seed", "stop", "n", "logprobs", "suffix", "user"])
    assert (await post(service, "completions", body)).status_code == 200
    assert service.requests[0].sampling.temperature == 1.0


async def test_messages_are_rendered_with_the_chat_template(service: FakeService) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "yes", "name": None},
    ]
    await post(service, "chat/completions", QUESTION | {"messages": messages})
    rendered = service.codec.decode(service.requests[0].prompt)
    assert rendered == "system: be brief\nuser: one\ntwo\nassistant: yes\n"
    assert service.identified == ["one\ntwo"], "the language is that of the user's last message"


async def test_the_template_is_told_who_speaks() -> None:
    service = FakeService(template="{% for m in messages %}{{ m.name or '?' }}: {{ m.content }}\n{% endfor %}")
    messages = [{"role": "user", "content": "Hi", "name": "Ada"}, {"role": "user", "content": "Ho"}]
    await post(service, "chat/completions", QUESTION | {"messages": messages})
    assert service.codec.decode(service.requests[0].prompt) == "Ada: Hi\n?: Ho\n"


async def test_without_a_limit_a_chat_may_fill_the_context(service: FakeService) -> None:
    await post(service, "chat/completions", {"model": "fake", "messages": QUESTION["messages"]})
    await post(service, "chat/completions", QUESTION | {"max_tokens": None, "max_completion_tokens": 5})
    await post(service, "completions", {"model": "fake", "prompt": "家"})
    await post(service, "completions", {"model": "fake", "prompt": [5] * 92})
    first, second, third, fourth = service.requests
    assert first.max_length == service.context_length
    assert (second.max_tokens, third.max_tokens, fourth.max_tokens) == (5, 16, 4)


async def test_token_ids_are_a_prompt_too(service: FakeService) -> None:
    ids = list(service.codec.encode("家は小さい"))
    assert (await post(service, "completions", PROMPT | {"prompt": ids})).status_code == 200
    assert service.requests[0].prompt == tuple(ids)
    assert service.identified == ["家は小さい"]


async def test_a_missing_seed_is_chosen_and_told(service: FakeService) -> None:
    answers = [(await post(service, "completions", PROMPT)).json()["polydraft"]["seed"] for _ in range(2)]
    assert [request.sampling.seed for request in service.requests] == answers
    assert answers[0] != answers[1]


@pytest.mark.parametrize(
    ("fields", "language", "identified"),
    [
        ({}, "ja", 1),
        ({"language": "de"}, "de", 0),
        ({"language": "sw"}, "sw", 0),
        ({"speculation": "de"}, "ja", 1),
        ({"speculation": "off"}, None, 0),
        ({"speculation": 0}, None, 0),
        ({"speculation": "off", "language": "de"}, "de", 0),
    ],
)
async def test_the_language_is_the_one_asked_for_else_identified(
    service: FakeService, fields: Json, language: str | None, identified: int
) -> None:
    answer = (await post(service, "chat/completions", QUESTION | fields)).json()
    assert service.requests[0].language == language
    assert answer["polydraft"]["language"] == language
    assert len(service.identified) == identified
