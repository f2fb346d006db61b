"""The whole serving side: real Ray Serve, real replicas, HTTP, the official client. One deployment for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import tiny
import tiny_tokenizer
import torch
from openai import OpenAI, Stream
from openai.types.chat import ChatCompletionChunk
from ray import serve as ray_serve
from ray.serve.schema import ApplicationStatus
from transformers import LlamaConfig, LlamaForCausalLM

from cluster.config import Config
from cluster.deployment import deploy, deploy_drafter, usable_drafters
from common.models import fingerprint, load_config, load_tokenizer
from common.registry import Registry
from common.settings import convert
from serve.app import drafter_app_name
from serve.handles import MAIN_APP
from serve.http.protection import ProtectionSettings

PORT = 18123
URL = f"http://127.0.0.1:{PORT}"
QUESTION = "Translate German to English: Das Haus ist klein."


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target with random weights, and drafters: `de` agrees with it mostly, `ru` has another tokenizer."""
    folder = tmp_path_factory.mktemp("serving")
    tokenizer, foreign = tiny_tokenizer.byte_level(), tiny_tokenizer.byte_level(vocab_size=380)
    torch.manual_seed(0)
    shape = LlamaConfig(**tiny.SHAPES["llama"].to_dict() | {"vocab_size": 400, "eos_token_id": 1})
    target = LlamaForCausalLM(shape)
    target.save_pretrained(folder / "target")
    tokenizer.save_pretrained(folder / "target")
    for language, tok in (("de", tokenizer), ("fr", tokenizer), ("ru", foreign)):
        drafter = tiny.perturbed(target.double(), 0.02).float()
        drafter.save_pretrained(folder / language)
        tok.save_pretrained(folder / language)
        publish(folder, language)
    return folder


def publish(folder: Path, language: str) -> str:
    """Make the drafter in `folder / language` the current version."""
    registry = Registry(folder / "registry")
    made = registry.publish(
        language,
        folder / language,
        target="tiny",
        fingerprint=fingerprint(load_tokenizer(folder / language), load_config(folder / language)),
        metrics={},
        provenance={},
    )
    registry.promote(language, made.version)
    return made.version


def config(languages: tuple[str, ...]) -> Config:
    loop = {"steps": 1, "rows_per_step": 1, "learning_rate": 1.0}
    shape = {"hidden_size": 8, "num_layers": 1, "num_heads": 1, "intermediate_size": 8}
    replica = {"num_cpus": 0.1, "dtype": "float64", "kv_tokens": 4096}
    raw = {
        "languages": languages,
        "train": {
            "corpus": {"train": ["none"]},
            "prompt": "{source}",
            "drafter": shape,
            "pretrain": loop,
            "finetune": loop,
            "distill": {"prompts": 1},
            "evaluate": {"prompts": 1},
        },
        "serve": {
            "model_name": "tiny",
            "port": PORT,
            "chat_template": "{{ bos_token }}{% for m in messages %}{{ m['content'] }}\n{% endfor %}",
            "router_cpus": 0.1,
            "draft_deadline_s": 30.0,  # here a drafter that is slow is not given up: the machine may be busy
            "promotion_poll_s": 0.1,
            "deployments_poll_s": 1.0,
            "speculation": {"draft_length": 4},
            "verifier": replica,
            "drafter": replica,
        },
    }
    return convert(raw, Config, where="test")


@pytest.fixture(scope="module")
def client(ray_cluster: None, workspace: Path) -> Iterator[OpenAI]:
    settings = config(("de", "ru"))
    drafters = usable_drafters(settings, workspace / "target", str(workspace / "registry"))
    assert set(drafters) == {"de"}, "the drafter with another tokenizer is refused"
    deploy(settings, workspace / "target", str(workspace / "registry"), workspace / "cache", drafters)
    yield OpenAI(base_url=f"{URL}/v1", api_key="none", timeout=60, max_retries=0)
    ray_serve.shutdown()


def ask(client: OpenAI, *, language: str = "de", speculation: str = "auto", **options: object) -> tuple[str, dict]:
    answer = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=40,
        extra_body={"language": language, "speculation": speculation},
        **{"temperature": 0, **options},  # type: ignore[arg-type]
    )
    return answer.choices[0].message.content or "", answer.polydraft  # type: ignore[attr-defined]


def stream(client: OpenAI) -> Stream[ChatCompletionChunk]:
    """What `ask` asks, as it is written."""
    return client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=40,
        temperature=0,
        stream=True,
        extra_body={"language": "de"},
    )


def joined(chunks: Stream[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 1, "seed": 7, "top_p": 0.9}])
def test_speculative_text_equals_plain_text_over_http(client: OpenAI, options: dict) -> None:
    text, speculative = ask(client, **options)
    plain_text, plain = ask(client, speculation="off", **options)
    assert text == plain_text
    assert speculative["drafter"] == "de/v0001" and plain["drafter"] is None
    assert speculative["mean_acceptance_length"] > 1.5 and plain["mean_acceptance_length"] == 1.0


def test_streamed_text_equals_whole_text(client: OpenAI) -> None:
    whole, _ = ask(client)
    chunks = stream(client)
    assert joined(chunks) == whole


def test_a_language_without_a_drafter_is_decoded_plainly_and_gets_one_without_a_restart(
    client: OpenAI, workspace: Path
) -> None:
    text, before = ask(client, language="fr")
    assert before["drafter"] in (None, "ngram")
    started = ray_serve.status().applications[MAIN_APP].last_deployed_time_s
    registry = str(workspace / "registry")
    deploy_drafter(config(("fr",)), workspace / "target", registry, workspace / "cache", "fr")
    while ask(client, language="fr")[1]["drafter"] != "fr/v0001":  # the router looks every two seconds
        assert ray_serve.status().applications[drafter_app_name("fr")].status == ApplicationStatus.RUNNING
    assert ask(client, language="fr")[0] == text
    assert ray_serve.status().applications[MAIN_APP].last_deployed_time_s == started


def test_a_promoted_version_drafts_new_texts_and_nothing_is_restarted(client: OpenAI, workspace: Path) -> None:
    text, before = ask(client)
    assert before["drafter"] == "de/v0001"
    deployed = {name: app.last_deployed_time_s for name, app in ray_serve.status().applications.items()}
    going_on = stream(client)
    version = publish(workspace, "de")
    after = before
    while after["drafter"] != f"de/{version}":  # the drafter looks at its registry every tenth of a second
        again, after = ask(client)
        assert again == text
    assert joined(going_on) == text
    assert {name: app.last_deployed_time_s for name, app in ray_serve.status().applications.items()} == deployed


def test_completions_identify_the_language_and_report_usage(client: OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt=QUESTION, max_tokens=30, temperature=0)
    details = answer.usage and answer.usage.completion_tokens_details
    assert answer.polydraft["language"] == "de"  # type: ignore[attr-defined]
    assert details is not None and (details.accepted_prediction_tokens or 0) > 0


@pytest.mark.parametrize("max_tokens", [0, 20])
def test_an_echoed_prompt_has_the_models_own_logprobs(client: OpenAI, workspace: Path, max_tokens: int) -> None:
    (choice,) = client.completions.create(
        model="tiny",
        prompt=QUESTION,
        echo=True,
        logprobs=2,
        max_tokens=max_tokens,
        temperature=0,
        extra_body={"language": "de", "ignore_eos": True},
    ).choices
    prompt = torch.tensor([load_tokenizer(workspace / "target")(QUESTION).input_ids])
    model = LlamaForCausalLM.from_pretrained(workspace / "target", dtype=torch.float64)
    with torch.inference_mode():
        laws = model(prompt).logits[0, :-1].log_softmax(-1)
    assert choice.logprobs is not None
    told, likeliest = choice.logprobs.token_logprobs, choice.logprobs.top_logprobs
    assert told is not None and likeliest is not None and told[0] is likeliest[0] is None
    assert len(told) == prompt.shape[1] + max_tokens
    own = laws.gather(-1, prompt[0, 1:, None]).flatten().tolist()
    assert told[1 : prompt.shape[1]] == pytest.approx(own, rel=0, abs=1e-9)
    assert [max(top.values()) for top in likeliest[1 : prompt.shape[1]]] == pytest.approx(
        laws.amax(-1).tolist(), abs=1e-9
    )
    assert choice.text.startswith(QUESTION) and (choice.text == QUESTION) == (max_tokens == 0)


def test_models_and_health(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert httpx.get(f"{URL}/healthz", timeout=60).status_code == 200


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"model": "gpt"}, 404, "model"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"messages": [{"role": "user", "content": "Haus " * 400}]}, 400, "messages"),
        ({"n": 0}, 400, "n"),
        ({"langauge": "de"}, 400, "langauge"),
    ],
)
def test_bad_requests_are_told_in_openais_shape(client: OpenAI, change: dict, status: int, field: str) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Haus"}]} | change
    response = httpx.post(f"{URL}/v1/chat/completions", json=body, timeout=60)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, field), error


def test_the_longest_body_that_is_allowed_reaches_us(client: OpenAI) -> None:
    limit = ProtectionSettings().max_body_bytes
    for length, status in ((limit, 400), (limit + 1, 413)):
        body = b'{"model": "tiny", "prompt": "' + b" " * (length - 31) + b'"}'
        assert len(body) == length
        headers = {"content-type": "application/json"}
        response = httpx.post(f"{URL}/v1/completions", content=body, headers=headers, timeout=60)
        assert response.status_code == status and "error" in response.json(), response.text
