"""The router: what the HTTP surface asks of (`Service`), and its thin Ray shell (`Router`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Collection
from functools import partial
from typing import Protocol

from ray import serve as ray_serve
from ray.serve import metrics as ray_metrics
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from common.languages import GENERALIST
from common.models import fingerprint, load_config, load_tokenizer, stop_token_ids
from common.types import GenerationRequest, Progress
from serve.capture.capture import Capture
from serve.drafting.draft_length import DraftLengthController
from serve.drafting.speculation import NGRAM, Drafters, Speculation
from serve.handles import Directory, leases_of
from serve.http.api import build_api
from serve.http.protection import protect
from serve.http.text import TextCodec
from serve.identification import Identification
from serve.remote_verifier import RemoteVerifier
from serve.session import generate
from serve.settings import ServeSettings
from serve.stream.hedging import hedged
from serve.stream.lease import LeaseSource
from serve.stream.streams import StreamPool
from serve.stream.tls import client_context
from serve.telemetry.instruments import flush_forever
from serve.telemetry.logs import AccessLog, use_serve_handlers
from serve.telemetry.metrics import Metrics
from serve.telemetry.tracing import TextSpan, configure_tracing


class TargetModel:
    """What the router needs of the target: how it writes text, and how long a text can be.

    Raises ModelError if it cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.tokenizer = load_tokenizer(path)
        self.fingerprint = fingerprint(self.tokenizer, load_config(path))
        self.stop_token_ids = stop_token_ids(path, self.tokenizer)


class Deployed(Drafters, Protocol):
    """What is deployed: `handles.Directory`, or something that stands in for it in tests and benchmarks."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def verifiers(self) -> int: ...
    async def refresh(self) -> None: ...
    async def look(self) -> None: ...


class Service:
    """Implements `service.GenerationService` with a verifier and the drafters that are deployed."""

    def __init__(
        self,
        target: TargetModel,
        languages: Collection[str],
        settings: ServeSettings,
        verifiers: LeaseSource,
        directory: Deployed,
        metrics: Metrics,
    ) -> None:
        self.model = settings.model_name
        self.codec = TextCodec(target.tokenizer, settings.chat_template)
        self.stop_token_ids = target.stop_token_ids
        self.context_length = settings.context_length(target.fingerprint.context_length)
        self._settings = settings
        self._verifiers = hedged(verifiers, settings.replica_silence_s)
        self._directory = directory
        self._identification = Identification(languages)
        self._streams = StreamPool(
            silence_s=settings.replica_silence_s,
            tls=client_context(settings.tls) if settings.tls is not None else None,
        )
        self._lengths = DraftLengthController(settings.speculation)
        self._metrics = metrics
        self._flushing: asyncio.Task[None] | None = None
        self._in_progress = 0

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(name for name in self._directory.names if name != GENERALIST)

    @property
    def drafters(self) -> tuple[str, ...]:
        return (*self._directory.names, NGRAM)

    async def refresh(self, wanted: str | None = None) -> None:
        await self._directory.refresh()
        if wanted is not None and wanted not in self.drafters:
            await self._directory.look()
        self._identification.learn(self.languages)
        self._metrics.languages = self._identification.languages

    async def know(self, languages: Collection[str]) -> None:
        """Languages that are told apart even while they have no drafter."""
        await self._identification.know(languages)
        self._metrics.languages = self._identification.languages

    def identify(self, text: str) -> str | None:
        return self._identification.identify(text)

    async def healthy(self) -> bool:
        await self._directory.refresh()
        return self._directory.verifiers > 0

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Progress]:
        async with contextlib.AsyncExitStack() as stack:
            self._in_progress += 1
            stack.callback(self._ended)
            self._keep_flushing()
            verifier, speculation = RemoteVerifier(self._verifiers, self._streams), self._speculation(request)
            text = stack.enter_context(self._metrics.text(request.language, len(request.prompt)))
            span = stack.enter_context(TextSpan(request))
            stack.callback(lambda: text.replicas_lost(verifiers=verifier.losses, drafters=speculation.losses))
            rounds = generate(request, verifier, speculation, time_limit_s=self._settings.request_timeout_s)
            async for progress in await stack.enter_async_context(contextlib.aclosing(rounds)):
                text.round_committed(progress)
                span.round_committed(progress)
                yield progress

    def check_health(self) -> None:
        """Raises what the telling of numbers died of."""
        if self._flushing is not None and self._flushing.done():
            self._flushing.result()

    def close(self) -> None:
        """Ends the streams to the replicas; for tests and benchmarks, as Serve ends the process."""
        self._streams.close()

    def _ended(self) -> None:
        self._in_progress -= 1

    def _speculation(self, request: GenerationRequest) -> Speculation:
        return Speculation(
            request,
            self._directory,
            self._lengths.text(),
            self._streams,
            load=self._texts_a_verifier,
            deadline_s=self._settings.draft_deadline_s,
        )

    def _keep_flushing(self) -> None:
        """Begun by the first text, as a constructor has no event loop."""
        if self._flushing is None:
            self._flushing = asyncio.create_task(flush_forever(self._metrics.flush))

    def _texts_a_verifier(self) -> int:
        """Texts that share a verifier's steps, as far as this router knows."""
        return max(1, self._in_progress // max(1, self._directory.verifiers))


@ray_serve.ingress()
class Router:
    """Serve's ingress deployment."""

    def __init__(self, target: str, settings: ServeSettings, verifier: DeploymentHandle) -> None:
        use_serve_handlers()
        configure_tracing(settings.tracing)
        self._settings = settings
        model = TargetModel(target)
        context_length = settings.context_length(model.fingerprint.context_length)
        directory = Directory(model.fingerprint, context_length, refresh_s=settings.deployments_poll_s)
        metrics = Metrics(ray_metrics, ())
        self._capture = _capture(settings, model, metrics)
        self._service = Service(model, (), settings, leases_of(verifier), directory, metrics)

    async def reconfigure(self, user_config: dict[str, list[str]]) -> None:
        """Called by Serve, at the start and when the configuration's languages change: that restarts nothing."""
        await self._service.know(user_config["languages"])

    def check_health(self) -> None:
        """Called by Serve, which replaces a replica that raises."""
        self._service.check_health()

    def __serve_build_asgi_app__(self) -> ASGIApp:
        # Serve's proxy sends the request's id back by itself.
        api = protect(
            build_api(self._service, self._capture),
            self._settings.protection,
            max_texts=self._settings.max_requests,
            send_ids=False,
        )
        return AccessLog(api)


def _capture(settings: ServeSettings, model: TargetModel, metrics: Metrics) -> Capture | None:
    if settings.capture is None:
        return None
    count = partial(metrics.instruments.add, "polydraft_captured_prompts", 1)
    return Capture(settings.capture, TextCodec(model.tokenizer, settings.chat_template), count)
