"""What must be right before a configuration is served."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cluster.doctor.check import Check, Doubt
from cluster.run import Run
from common.engine.compatibility import check_config, check_ranks
from common.languages import GENERALIST
from common.models import ModelError, fingerprint, load_config, load_tokenizer, mismatch, stop_token_ids
from common.registry import Registry
from serve.capture.settings import CaptureSettings
from serve.http.text import TextCodec
from serve.settings import ServeSettings
from serve.stream.tls import client_context, server_context
from serve.telemetry.tracing import make_exporter

TEMPLATE_PROBE = [{"role": "user", "content": "Guten Tag!"}]


def serving_checks(run: Run) -> Iterator[Check]:
    """Of a run's target and `serve` section."""
    serve = run.config.serve
    yield Check("target", lambda: _target(run.target), "polydraft train makes one, --target names one")
    if serve.verifier.tensor_parallel > 1:
        yield Check("serve.verifier.tensor_parallel", lambda: _ranks(run.target, serve.verifier.tensor_parallel))
    yield Check("serve.chat_template", lambda: _chat_template(run.target, serve.chat_template))
    yield Check("serve.protection.keys_file", lambda: _keys(serve), "polydraft keys new")
    if serve.tls is not None:
        yield Check("serve.tls", lambda: _tls(serve))
    if serve.capture is not None:
        yield Check("serve.capture", partial(_capture, serve.capture))
    if serve.tracing.endpoint is not None:
        yield Check("serve.tracing.endpoint", partial(_tracing, serve.tracing.endpoint))


def drafter_checks(run: Run) -> Iterator[Check]:
    """Of what `usable_drafters` makes the best of: drafters, and the memory that bounds texts."""
    serve = run.config.serve
    yield Check("serve.verifier.kv_tokens", lambda: _memory(run.target, serve))
    for language in run.config.languages:
        yield Check(f"drafter for {language}", partial(_drafter, run, language), "polydraft train")
    if Registry(run.registry).current(serve.registered(GENERALIST)) is not None:
        yield Check("generalist", lambda: _drafter(run, GENERALIST))


def _target(target: Path) -> str:
    config = load_config(target)
    check_config(config)
    tokenizer = load_tokenizer(target)
    stop_token_ids(target, tokenizer)
    if not any(target.glob("*.safetensors")):
        raise ModelError(f"{target}: holds no weights in safetensors format")
    return f"{target}: {config.model_type}, {len(tokenizer)} tokens"


def _ranks(target: Path, ranks: int) -> str:
    check_ranks(load_config(target), ranks)
    return f"the target can be divided among {ranks}"


def _chat_template(target: Path, template: str | None) -> str:
    codec = TextCodec(load_tokenizer(target), template)
    try:
        return f"renders a question as {codec.decode(codec.render(TEMPLATE_PROBE))!r}"
    except ValueError as error:
        raise Doubt(str(error)) from None


def _memory(target: Path, serve: ServeSettings) -> str:
    model = fingerprint(load_tokenizer(target), load_config(target)).context_length
    context, drafted = serve.context_length(model), serve.drafter.longest_text
    if context < model:
        raise Doubt(f"texts end after {context} tokens, {model} are the target's context")
    if drafted < context:
        raise Doubt(f"texts of more than {drafted} tokens are not drafted (serve.drafter.kv_tokens)")
    return f"holds the target's context of {model} tokens"


def _drafter(run: Run, language: str) -> str:
    serve = run.config.serve
    name = serve.registered(language)
    manifest = Registry(run.registry).current(name)
    if manifest is None:
        raise Doubt(f"none is published as `{name}` at {run.registry}: {language} is served without")
    wanted = fingerprint(load_tokenizer(run.target), load_config(run.target))
    problem = mismatch(wanted, manifest.fingerprint, serve.context_length(wanted.context_length))
    if problem is not None:
        raise Doubt(f"{name}/{manifest.version} does not fit the target, {language} is served without: {problem}")
    return f"{name}/{manifest.version}"


def _keys(serve: ServeSettings) -> str:
    keys = serve.protection.all_keys()
    if not keys and serve.host not in ("127.0.0.1", "localhost", "::1"):
        raise Doubt(f"no API keys: whoever reaches {serve.host}:{serve.port} can ask")
    return f"{len(keys)} API keys" if keys else f"no API keys, and only this machine ({serve.host}) can ask"


def _tls(serve: ServeSettings) -> str:
    assert serve.tls is not None
    server_context(serve.tls)
    client_context(serve.tls)
    return f"{serve.tls.certificate}, {serve.tls.authority}"


def _capture(capture: CaptureSettings) -> str:
    capture.check()
    return f"{capture.share:.0%} of the prompts are kept in {capture.folder}"


def _tracing(endpoint: str) -> str:
    make_exporter(endpoint).shutdown()
    return endpoint
