"""The real router service, with its verifier and its drafter as replicas in the same process, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import tiny
import tiny_tokenizer
from recorder import Recorder

from common.engine.engine import Engine
from common.models import Fingerprint
from serve.router import Service
from serve.settings import ReplicaSettings, ServeSettings
from serve.stream.lease import LeaseSource
from serve.stream.replica import Replica
from serve.telemetry.metrics import Metrics

VOCABULARY = 270
TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


class Deployed:
    """One drafter, `de`, and one verifier. Implements `handles.Directory`."""

    names = warm = ("de",)
    verifiers = 1

    def __init__(self, drafter: LeaseSource) -> None:
        self._drafter = drafter

    def source(self, name: str | None) -> LeaseSource | None:
        return self._drafter if name == "de" else None

    async def refresh(self) -> None: ...
    async def look(self) -> None: ...


class Running:
    """A service and what is behind it."""

    def __init__(self, service: Service, engines: list[Engine], replicas: list[Replica]) -> None:
        self.service = service
        self.replicas = replicas
        self.engines = engines

    @property
    def held(self) -> int:
        """Leases, sessions and channels; none when no text is in progress."""
        channels = sum(map(len, self.service._streams._channels.values()))
        sessions = sum(engine.num_sessions for engine in self.engines)
        leases = sum(replica.num_leases for replica in self.replicas)
        return leases + sessions + channels + self.service._in_progress

    async def freed(self) -> None:
        """Returns once nothing is held; all memory is accounted for then."""
        async with asyncio.timeout(5):
            while self.held:
                await asyncio.sleep(0.0005)
        for replica, engine in zip(self.replicas, self.engines, strict=True):
            replica.check_health()
            engine.check_integrity()


@asynccontextmanager
async def running(
    settings: ServeSettings | None = None, languages: tuple[str, ...] = ("de",), context_length: int = 256
) -> AsyncIterator[Running]:
    settings = settings or ServeSettings(chat_template=TEMPLATE, verifier=ReplicaSettings(kv_tokens=4096))
    tokenizer = tiny_tokenizer.byte_level(vocab_size=VOCABULARY)
    model = tiny.model(vocabulary=VOCABULARY)
    fingerprint = Fingerprint(tokens="", special_tokens={}, vocab_size=VOCABULARY, context_length=context_length)
    engines = [
        tiny.verifier(model, kv_tokens=settings.verifier.kv_tokens),
        tiny.drafter(tiny.perturbed(model, 0.05), kv_tokens=settings.drafter.kv_tokens),
    ]
    replicas = [Replica(lambda e=engine: e, name="r", fingerprint=fingerprint) for engine in engines]  # type: ignore[misc]
    for replica in replicas:
        await replica.start()
    verifier, drafter = replicas
    stop = frozenset({tokenizer.eos_token_id})
    target: Any = SimpleNamespace(tokenizer=tokenizer, fingerprint=fingerprint, stop_token_ids=stop)
    directory: Any = Deployed(drafter.lease)  # type: ignore[arg-type]
    metrics = Metrics(Recorder(), languages)
    service = Service(target, languages, settings, verifier.lease, directory, metrics)  # type: ignore[arg-type]
    try:
        yield Running(service, engines, replicas)
    finally:
        service.close()
        for replica in replicas:
            await replica.stop()
