"""Requests that cannot be answered are refused, naming the field; nothing is generated for them."""

from __future__ import annotations

import pytest
from api_client import PROMPT, QUESTION, Json, post, refused
from fake_service import FakeService

from serve.errors import InvalidRequest
from serve.http.generation_requests import Preparation
from serve.http.openai import ChatCompletionRequest


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"temperature": "1"}, "temperature", "valid number"),
        ({"temperature": float("nan")}, "temperature", "less than or equal to 2"),
        ({"temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"top_k": 1.5}, "top_k", "valid integer"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": True}, "max_tokens", "valid integer"),
        ({"seed": 2**63}, "seed", "less than"),
        ({"stream": "yes"}, "stream", "valid boolean"),
        ({"stop": 3}, "stop", "a string or a list of strings"),
        ({"stop": list("abcde")}, "stop", "at most 4"),
        ({"stop": ["a", ""]}, "stop[1]", "at least 1 character"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream: true"),
        ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage", "unknown field"),
        ({"temprature": 1}, "temprature", "unknown field"),
        ({"language": "klingon"}, "language", "unknown language `klingon`"),
        ({"language": 3}, "language", "valid string"),
        ({"speculation": "klingon"}, "speculation", "no drafter `klingon`, there are: de, generalist, ja, ngram"),
        ({"speculation": -1}, "speculation", "greater than or equal to 0"),
        ({"speculation": 65}, "speculation", "less than or equal to 64"),
        ({"speculation": True}, "speculation", "expected `auto`, `off`"),
        ({"speculation": 0.5}, "speculation", "expected `auto`, `off`"),
        ({"speculation": {"drafter": "x"}}, "speculation", "no drafter `x`"),
        ({"speculation": {"max_draft_length": "3"}}, "speculation.max_draft_length", "valid integer"),
        ({"speculation": {"length": 3}}, "speculation.length", "unknown field"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"n": 129}, "n", "less than or equal to 128"),
        ({"top_k": -2}, "top_k", "greater than or equal to -1"),
        ({"top_k": 2**31}, "top_k", "less than or equal to"),
        ({"max_tokens": 2**64}, "max_tokens", "less than or equal to"),
        ({"min_p": 1.1}, "min_p", "less than or equal to 1"),
        ({"presence_penalty": 2.1}, "presence_penalty", "less than or equal to 2"),
        ({"frequency_penalty": -2.1}, "frequency_penalty", "greater than or equal to -2"),
        ({"repetition_penalty": 0}, "repetition_penalty", "greater than 0"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5", "less than or equal to 100"),
        ({"logit_bias": {"five": 1}}, "logit_bias.five", "valid integer"),
        ({"logit_bias": {"-5": 1}}, "logit_bias.-5", "greater than or equal to 0"),
        ({"logit_bias": {"270": 1}}, "logit_bias", "token 270 is not among the model's 270"),
        ({"logit_bias": [5]}, "logit_bias", "valid dictionary"),
        ({"logit_bias": dict.fromkeys(map(str, range(1025)), 1)}, "logit_bias", "at most 1024"),
        ({"stop_token_ids": [270]}, "stop_token_ids", "token 270 is not among"),
        ({"stop_token_ids": 5}, "stop_token_ids", "valid list"),
        ({"stop_token_ids": [True]}, "stop_token_ids[0]", "valid integer"),
        ({"ignore_eos": 1}, "ignore_eos", "valid boolean"),
        ({"min_tokens": 1}, "min_tokens", "only 0"),
        ({"include_stop_str_in_output": True}, "include_stop_str_in_output", "only false"),
        (
            {"stream": True, "stream_options": {"continuous_usage_stats": True}},
            "stream_options.continuous_usage_stats",
            "include_usage: true",
        ),
        ({"model": None}, "model", "required"),
    ],
)
async def test_a_wrong_field_is_named(service: FakeService, fields: Json, param: str, message: str) -> None:
    for path, body in (("completions", PROMPT), ("chat/completions", QUESTION)):
        error = await refused(service, path, body | fields)
        assert error["param"] == param
        assert error["message"].startswith(f"{param}: ")
        assert message in error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"best_of": 2}, "best_of"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"max_tokens": 0, "logprobs": 0}, "max_tokens"),
        ({"max_tokens": -1, "echo": True}, "max_tokens"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"suffix": "x"}, "suffix"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [1, "2"]}, "prompt[1]"),
        ({"prompt": [1, -2]}, "prompt[1]"),
        ({"prompt": [270]}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": [[5], [270]]}, "prompt"),
        ({"prompt": [[5], "x"]}, "prompt[0]"),
        ({"prompt": ["x", ""]}, "prompt"),
        ({"prompt": ["x"] * 65, "n": 2}, "prompt"),
        ({"prompt": "\ud800"}, "prompt"),
    ],
)
async def test_a_wrong_field_of_a_completion_is_named(service: FakeService, fields: Json, param: str) -> None:
    assert (await refused(service, "completions", PROMPT | fields))["param"] == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"logprobs": 2}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"echo": True}, "echo"),
        ({"prompt_logprobs": 1}, "prompt_logprobs"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"x": [1]}}, "chat_template_kwargs.x"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"max_completion_tokens": 7}, "max_completion_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"prompt": "x"}, "prompt"),
    ],
)
async def test_a_wrong_field_of_a_chat_is_named(service: FakeService, fields: Json, param: str) -> None:
    assert (await refused(service, "chat/completions", QUESTION | fields))["param"] == param


async def test_a_prompt_longer_than_the_context_is_refused(service: FakeService) -> None:
    error = await refused(service, "completions", PROMPT | {"prompt": "word " * 100, "max_tokens": None})
    assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")
    assert "context of 96" in error["message"]
    messages = [{"role": "user", "content": "word " * 100}]
    error = await refused(service, "chat/completions", {"model": "fake", "messages": messages})
    assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")


async def test_more_tokens_than_the_context_holds_are_refused(service: FakeService) -> None:
    error = await refused(service, "completions", PROMPT | {"prompt": [5] * 92, "max_tokens": 5})
    assert (error["code"], error["param"]) == ("context_length_exceeded", "max_tokens")


async def test_a_prompt_that_is_only_echoed_may_fill_the_context(service: FakeService) -> None:
    echoed = PROMPT | {"echo": True, "max_tokens": 0}
    assert (await refused(service, "completions", echoed | {"prompt": [5] * 97}))["param"] == "prompt"
    assert (await post(service, "completions", echoed | {"prompt": [5] * 96})).status_code == 200


async def test_a_chat_without_template_is_refused() -> None:
    error = await refused(FakeService(template=None), "chat/completions", QUESTION)
    assert error["param"] == "messages" and "serve.chat_template" in error["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "logit_bias": {}, "presence_penalty": 0, "min_tokens": 0, "skip_special_tokens": True},
        {"tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "modalities": ["text"]},
        {"user": "x", "metadata": {"a": "b"}, "safety_identifier": "x", "prompt_cache_key": "x", "store": False},
        {"service_tier": "auto", "logprobs": False, "top_logprobs": 0, "chat_template_kwargs": {}},
    ],
)
async def test_fields_that_ask_for_nothing_are_accepted(service: FakeService, fields: Json) -> None:
    assert (await post(service, "chat/completions", QUESTION | fields)).status_code == 200


@pytest.mark.parametrize(
    ("fields", "limit"), [({}, 20), ({"max_tokens": 20}, 20), ({"n": 4}, 5), ({"n": 4, "max_tokens": 3}, 3)]
)
def test_a_key_may_allow_only_so_many_tokens(service: FakeService, fields: Json, limit: int) -> None:
    body = ChatCompletionRequest.model_validate({**QUESTION, "max_tokens": None, **fields})
    choices = Preparation(service).chat(body, allowed=20)
    assert {choice.request.max_tokens for choice in choices} == {limit}


@pytest.mark.parametrize("fields", [{"max_tokens": 21}, {"n": 2, "max_tokens": 11}, {"n": 21}])
def test_more_tokens_than_a_key_allows_are_refused(service: FakeService, fields: Json) -> None:
    body = ChatCompletionRequest.model_validate({**QUESTION, "max_tokens": None, **fields})
    with pytest.raises(InvalidRequest, match="20 that this key allows") as error:
        Preparation(service).chat(body, allowed=20)
    assert error.value.field == "max_tokens"
