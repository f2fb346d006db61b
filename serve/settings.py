"""The `serve` section of a configuration."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from common.engine.cache import BLOCK_SIZE
from common.languages import GENERALIST, language_name
from common.settings import Settings
from serve.autoscaling import AutoscalingSettings
from serve.capture.settings import CaptureSettings
from serve.drafting.settings import SpeculationSettings
from serve.http.protection import ProtectionSettings
from serve.stream.replica import BEAT_S
from serve.stream.tls import TlsSettings
from serve.telemetry.logs import LogSettings
from serve.telemetry.tracing import TracingSettings

RUN_AHEAD = 64
"""A GPU reads all weights for each step, and computes so many tokens meanwhile. It is the engine's own work for each of
them that takes time: with 256 it was slower for many texts, and no faster for one."""


class ReplicaSettings(Settings, frozen=True, kw_only=True):
    """One kind of model replica."""

    num_replicas: int = 1
    """How many there are, where `autoscaling` is not set."""
    autoscaling: AutoscalingSettings | None = None
    """Has the number of replicas follow the load, instead of `num_replicas`."""
    num_cpus: float = 1.0
    """What Ray counts for each replica; it limits nothing."""
    num_gpus: float = 0.0
    """GPUs of each replica, or the share of one; 0 runs it on the CPU."""
    resources: dict[str, float] = msgspec.field(default_factory=dict)
    """Of a cluster's own kinds, such as ``{verifier: 1}``: they say on which machines this replica can be."""
    tensor_parallel: int = 1
    """Of a verifier: processes that a replica's model is divided among, its ranks. Each has `num_cpus`, `num_gpus`,
    `resources`, `threads`, and a part of every key and value in `kv_tokens`. It must divide the model's key-value
    heads."""
    threads: int = 1
    """Threads of PyTorch in each process."""
    dtype: str = "float32"
    """Of the weights, by PyTorch's name, such as `bfloat16`."""
    compiled: bool = False
    """Has PyTorch compile the model's layers: a step takes less of Python's time, a start some tens of seconds, and the
    machine needs a C++ compiler."""
    prepacked: bool = True
    """On a CPU, in float32, undivided: keeps the large layers' weights in the order in which products of a few tokens
    are fast. These take half to two thirds of the time then."""
    quantization: Literal["int8"] | None = None
    """`int8`, on a CPU: the layers compute in 8 bits, in some two thirds of the time. It is another model then,
    whose texts are others now and then; drafts still change nothing."""
    kv_tokens: int = 16384
    """Memory budget: tokens whose keys and values are kept at the same time. No text is longer: the verifier's bounds
    what is served, and what a drafter cannot hold is not drafted by it."""
    prefix_caching: bool = True
    """Has texts share memory and work where they begin alike, also with those that are written already."""
    prefill_chunk: int = 512
    """Most tokens of a prompt that are read in one step, so that a long one does not hold up other texts."""
    max_sessions: int = 64
    """Texts in progress at the same time at one replica."""
    run_ahead: int | None = None
    """Of a drafter: most tokens that a step drafts for what may be asked next, while the target verifies. None is
    `RUN_AHEAD` on a GPU, and 0, which is off, on a CPU: its cores are taken from other texts or from the verifier."""
    longest_step_s: float = 120.0
    """An engine that takes longer over one forward pass (a kernel that never ends) is dead, and its replica replaced.
    It bounds one pass, not an answer: a long prompt takes many of them. It must be longer than the first pass of a
    model that compiles itself in it."""

    @property
    def tokens_ahead(self) -> int:
        """`run_ahead`, decided."""
        return self.run_ahead if self.run_ahead is not None else RUN_AHEAD if self.num_gpus else 0

    @property
    def needs(self) -> dict[str, float]:
        """Of each process, by the names of Ray's resources."""
        return {"CPU": self.num_cpus, "GPU": self.num_gpus, **self.resources}

    @property
    def longest_text(self) -> int:
        """Tokens of the longest text that the memory holds: it is lent in whole blocks."""
        return self.kv_tokens // BLOCK_SIZE * BLOCK_SIZE

    def __post_init__(self) -> None:
        if self.kv_tokens < BLOCK_SIZE:
            raise ValueError(f"kv_tokens must be at least {BLOCK_SIZE}, not {self.kv_tokens}")
        if self.tensor_parallel < 1:
            raise ValueError(f"tensor_parallel must be at least 1, not {self.tensor_parallel}")
        if self.tensor_parallel > 1 and self.num_gpus not in (0, 1):
            raise ValueError(f"num_gpus must be 0 or 1 where tensor_parallel is more than 1, not {self.num_gpus:g}")
        if self.tensor_parallel > 1 and not any(self.needs.values()):
            raise ValueError("num_cpus must be more than 0 where tensor_parallel is more than 1: Ray places by needs")
        if self.tensor_parallel > 1 and self.compiled:
            raise ValueError("compiled must be off where tensor_parallel is more than 1: no model is compiled in parts")
        if self.quantization and (self.num_gpus or self.tensor_parallel > 1 or self.dtype != "float32"):
            raise ValueError("quantization is for one process on a CPU: num_gpus 0, tensor_parallel 1, dtype float32")
        if self.run_ahead is not None and self.run_ahead < 0:
            raise ValueError(f"run_ahead must not be negative, not {self.run_ahead}")
        if self.autoscaling is not None and self.autoscaling.target_sessions > self.max_sessions:
            raise ValueError(
                f"autoscaling.target_sessions must not exceed max_sessions ({self.max_sessions}): "
                "no replica would ever have enough"
            )


class ServeSettings(Settings, frozen=True, kw_only=True):
    """How the trained models are served."""

    model_name: str = "polydraft"
    """The name clients ask for."""
    chat_template: str | None = None
    """Jinja template for chat; None takes the tokenizer's own."""
    drafters: dict[str, str] = msgspec.field(default_factory=dict)
    """What drafts for a language (or as the generalist), by its name in the registry, where that is another than the
    language's own: ``{de: de-ngram}``."""
    speculation: SpeculationSettings = SpeculationSettings()
    draft_deadline_s: float = 1.0
    """A draft that takes longer is not waited for."""
    replica_silence_s: float = 10.0
    """A replica of which a router hears nothing for so long hangs, or its machine is gone: its texts are replayed at
    another. A verdict itself has no deadline: it may wait for memory, or behind long prompts, for as long as it takes,
    since its replica says every second that it lives. A lease that is not granted for so long is asked for anew."""
    host: str = "127.0.0.1"
    """Address that HTTP is served at; `0.0.0.0` for all of the machine's."""
    port: int = 8000
    """Port that HTTP is served at."""
    promotion_poll_s: float = 5.0
    """How often a drafter looks whether another version of it was promoted."""
    deployments_poll_s: float = 10.0
    """How often a router looks at what is deployed; each look costs Serve and the router tens of milliseconds of
    processor time an application."""
    router_replicas: int = 1
    """How many routers there are."""
    router_cpus: float = 1.0
    """What Ray counts for each router; it limits nothing."""
    max_requests: int = 256
    """Texts in progress at one router replica; a request that has several written counts for each."""
    request_timeout_s: float = 600.0
    """Longest time for one answer; a replica that is to stop waits as long for the texts it is writing."""
    protection: ProtectionSettings = ProtectionSettings()
    tls: TlsSettings | None = None
    """Of the streams between routers and replicas; None leaves them unencrypted."""
    logs: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()
    capture: CaptureSettings | None = None
    """Keeps some prompts to train on; None keeps none."""
    verifier: ReplicaSettings = ReplicaSettings()
    drafter: ReplicaSettings = ReplicaSettings(num_cpus=0.5)

    def context_length(self, model: int) -> int:
        """Tokens of the longest text that is served with a target whose own context has `model` tokens."""
        return min(model, self.verifier.longest_text)

    def __post_init__(self) -> None:
        if self.verifier.autoscaling is not None and self.verifier.autoscaling.min_replicas == 0:
            raise ValueError("verifier.autoscaling.min_replicas must be at least 1: every text needs the target")
        if self.drafter.tensor_parallel != 1:
            raise ValueError("drafter.tensor_parallel must be 1: only a verifier's model is divided")
        if self.replica_silence_s < 3 * BEAT_S:
            raise ValueError(f"replica_silence_s must be at least {3 * BEAT_S:g}: a replica speaks every {BEAT_S:g} s")
        for language in self.drafters.keys() - {GENERALIST}:
            language_name(language)

    def of_main(self) -> dict[str, Any]:
        """What router and verifier depend on, as far as it is not the default: nothing of drafters."""
        elsewhere = ("drafter", "drafters", "promotion_poll_s", "host", "port")
        return {name: value for name, value in self.changed().items() if name not in elsewhere}

    def of_drafter(self, language: str) -> dict[str, Any]:
        """What a language's drafter depends on, as far as it is not the default."""
        own = ("drafter", "promotion_poll_s", "request_timeout_s", "tls", "logs")
        found = {name: value for name, value in self.changed().items() if name in own}
        if self.verifier.kv_tokens != ReplicaSettings().kv_tokens:
            found["verifier"] = {"kv_tokens": self.verifier.kv_tokens}  # no text is longer
        if language in self.drafters:
            found["drafters"] = {language: self.drafters[language]}
        return found

    def registered(self, language: str) -> str:
        """The name in the registry of a language's drafter, or of the generalist."""
        return self.drafters.get(language, language)
