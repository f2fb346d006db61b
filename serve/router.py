"""The router: what the HTTP surface asks of (`Service`), and its thin Ray shell (`Router`)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from fastapi import FastAPI
from ray import serve as ray_serve
from ray.serve.handle import DeploymentHandle

from common.languages import LanguageIdentifier
from common.models import fingerprint, load_config, load_tokenizer
from common.types import GenerationRequest, Progress
from serve.api import build_api
from serve.handles import Directory, leases_of
from serve.lease import LeaseSource
from serve.session import RemoteDrafter, RemoteVerifier, generate
from serve.settings import ServeSettings
from serve.streams import StreamPool
from serve.text import TextCodec


class Service:
    """Implements `api.GenerationService` with a verifier and the drafters that are deployed."""

    def __init__(self, target: str, languages: list[str], settings: ServeSettings, verifiers: LeaseSource) -> None:
        tokenizer, config = load_tokenizer(target), load_config(target)
        self.model = settings.model_name
        self.codec = TextCodec(tokenizer, settings.chat_template)
        self.stop_token_ids = frozenset({tokenizer.eos_token_id} - {None})
        target_fingerprint = fingerprint(tokenizer, config)
        self.context_length = target_fingerprint.context_length
        self._settings = settings
        self._verifiers = verifiers
        self._identifier = LanguageIdentifier(languages)
        self._streams = StreamPool()
        self._directory = Directory(target_fingerprint)

    @property
    def languages(self) -> tuple[str, ...]:
        return self._directory.languages

    def identify(self, text: str) -> str | None:
        return self._identifier.identify(text)

    async def healthy(self) -> bool:
        return await self._directory.verifier_running()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Progress]:
        drafter = RemoteDrafter(
            await self._directory.source(request.language),
            self._streams,
            draft_length=self._settings.default_draft_length,
            deadline_s=self._settings.draft_deadline_s,
        )
        rounds = generate(request, RemoteVerifier(self._verifiers, self._streams), drafter)
        async with contextlib.aclosing(rounds):
            async for progress in rounds:
                yield progress


@ray_serve.ingress()
class Router:
    """Serve's ingress deployment."""

    def __init__(self, target: str, languages: list[str], settings: ServeSettings, verifier: DeploymentHandle) -> None:
        self._service = Service(target, languages, settings, leases_of(verifier))

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_api(self._service)
