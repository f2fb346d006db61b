"""The real router service in this process, each replica in a process of its own, leases by hand instead of by Serve.

What runs is what is deployed, but for HTTP and Ray: the session loop, speculation and its controller, metrics, the TCP
streams, and in each replica's process its event loop, its engine's thread and its leases.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import uvloop
from ray.serve import metrics as ray_metrics
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from cluster.bench.emulated import CONTEXT_LENGTH, WORDS
from common.models import Fingerprint
from serve.errors import ReplicaLost
from serve.router import Service, TargetModel
from serve.settings import ServeSettings
from serve.stream.engine_thread import SteppedEngine
from serve.stream.lease import LeaseSource
from serve.stream.replica import LeaseGrant, Replica
from serve.telemetry.metrics import Metrics

_LEASES = 1024
"""Granted by a replica in advance: more than a benchmark takes."""

MakeEngine = Callable[[], SteppedEngine]
"""It crosses a process boundary: a method of something that can be pickled, say."""


def write_target(folder: Path) -> Path:
    """All that a router reads of a target: a tokenizer with a token for each word, and a configuration."""
    vocabulary = {f"w{number}": number for number in range(WORDS)} | {"</s>": WORDS}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(folder)
    LlamaConfig(
        vocab_size=WORDS + 1, max_position_embeddings=CONTEXT_LENGTH, bos_token_id=None, eos_token_id=WORDS
    ).save_pretrained(folder)
    return folder


@contextmanager
def replica_processes(engines: Sequence[MakeEngine], fingerprint: Fingerprint) -> Iterator[list[LeaseSource]]:
    """Leases of a replica for each engine, in processes that start together and end with the context."""
    with ExitStack() as stack:
        pipes = [stack.enter_context(_replica_process(make_engine, fingerprint)) for make_engine in engines]
        yield [_leases(pipe.recv()) for pipe in pipes]


@contextmanager
def _replica_process(make_engine: MakeEngine, fingerprint: Fingerprint) -> Iterator[Connection]:
    """Where its grants come when it has started."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, make_engine, fingerprint), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()  # it ends the process
        process.join()


def _leases(grants: list[LeaseGrant]) -> LeaseSource:
    async def leases() -> AsyncGenerator[LeaseGrant]:
        if not grants:
            raise ReplicaLost(f"all {_LEASES} leases are used")
        yield grants.pop()
        await asyncio.Event().wait()  # it is held until it is closed

    return leases


@contextmanager
def service(
    target: TargetModel,
    verifiers: Sequence[LeaseSource],
    drafters: Mapping[str, Sequence[LeaseSource]],
    settings: ServeSettings,
) -> Iterator[Service]:
    """A router that knows nothing of earlier texts; `drafters` are by language."""
    replicas = AllDeployed(len(verifiers), {language: _in_turns(sources) for language, sources in drafters.items()})
    metrics = Metrics(ray_metrics, replicas.names)
    made = Service(target, replicas.names, settings, _in_turns(verifiers), replicas, metrics)
    with ExitStack() as stack:
        stack.callback(made.close)
        yield made


class AllDeployed:
    """All that are there, from the beginning to the end. Implements `router.Deployed`."""

    def __init__(self, verifiers: int, drafters: Mapping[str, LeaseSource]) -> None:
        self.verifiers = verifiers
        self.names = self.warm = tuple(drafters)
        self._drafters = drafters

    def source(self, name: str | None) -> LeaseSource | None:
        """See `speculation.Drafters`."""
        return self._drafters.get(name) if name is not None else None

    async def refresh(self) -> None: ...
    async def look(self) -> None: ...


def _in_turns(sources: Sequence[LeaseSource]) -> LeaseSource:
    """Of equal replicas each has as many leases, which is what Serve's balancing comes to."""
    turns = itertools.cycle(sources)
    return lambda: next(turns)()


def _serve(pipe: Connection, make_engine: MakeEngine, fingerprint: Fingerprint) -> None:
    torch.set_num_threads(1)
    uvloop.run(_grant(pipe, Replica(make_engine, name="emulated", fingerprint=fingerprint)))


async def _grant(pipe: Connection, replica: Replica) -> None:
    """Grants all leases at once, and holds them until the other end of the pipe is closed."""
    await replica.start()
    leases = [replica.lease() for _ in range(_LEASES)]
    pipe.send([await anext(lease) for lease in leases])
    closed = asyncio.Event()
    asyncio.get_running_loop().add_reader(pipe.fileno(), closed.set)
    await closed.wait()
    await replica.stop()
