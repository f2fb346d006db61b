"""Environment variables that Ray reads when a process first imports it, on every machine of a cluster."""

from __future__ import annotations

import os
import secrets

SERVE = {
    # An answer's pieces go from router to proxy by gRPC, not through Ray's object store: a third more tokens a second
    # with 16 streams on two cores.
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    # Our code and Serve's share an event loop, so a piece is not handed from thread to thread: a sixth more with one
    # stream. Nothing of ours holds the loop up: models run in threads of their own.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    # By default gRPC takes no more than 4 MiB, of which the largest requests (`protection.max_body_bytes`) and answers
    # with log-probabilities are longer.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(64 * 2**20),
}
"""How Serve moves requests and answers. Without them everything works, at a lower speed."""


def configure_ray() -> None:
    """For a cluster that this process starts: it answers only to us, unless told otherwise. One that is joined has its
    own settings."""
    if "RAY_ADDRESS" in os.environ:
        return
    for name, value in SERVE.items():
        os.environ.setdefault(name, value)
    if os.environ.setdefault("RAY_AUTH_MODE", "token") == "token":
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
