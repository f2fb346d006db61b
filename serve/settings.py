"""The `serve` section of a configuration."""

from __future__ import annotations

from common.settings import Settings


class ReplicaSettings(Settings, frozen=True, kw_only=True):
    """One kind of model replica."""

    num_replicas: int = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    threads: int = 1
    """Threads of PyTorch in the replica."""
    dtype: str = "float32"
    kv_tokens: int = 16384
    """Memory budget: tokens whose keys and values are kept at the same time."""
    prefill_chunk: int = 512
    max_sessions: int = 64
    """Texts in progress at the same time at one replica."""


class ServeSettings(Settings, frozen=True, kw_only=True):
    """How the trained models are served."""

    model_name: str = "polydraft"
    """The name clients ask for."""
    chat_template: str | None = None
    """Jinja template for chat; None takes the tokenizer's own."""
    default_draft_length: int = 4
    draft_deadline_s: float = 1.0
    """A draft that takes longer is not waited for."""
    host: str = "127.0.0.1"
    port: int = 8000
    router_replicas: int = 1
    router_cpus: float = 1.0
    max_requests: int = 256
    """Requests in progress at one router replica."""
    request_timeout_s: float = 600.0
    verifier: ReplicaSettings = ReplicaSettings()
    drafter: ReplicaSettings = ReplicaSettings(num_cpus=0.5)

    def __post_init__(self) -> None:
        if not 1 <= self.default_draft_length <= 64:
            raise ValueError(f"default_draft_length must be between 1 and 64, not {self.default_draft_length}")
