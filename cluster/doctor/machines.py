"""What must be right on the machines of the cluster: each is asked by a task of its own."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import msgspec
import ray
from ray import serve as ray_serve
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import common
from cluster.doctor.check import Check
from cluster.doctor.resources import serving_resources, training_resources
from cluster.run import Run, start_ray
from common.models import ModelError, fingerprint, load_config, load_tokenizer
from common.registry import Registry
from common.settings import SettingsError
from common.storage import RegistryError

Purpose = Literal["serve", "train"]
PACKAGES = ("ray", "torch", "transformers", "msgspec")
UNREADABLE = "unreadable"
ASK_S = 120.0
"""Longest wait for what the machines tell; the first import of the libraries takes most of it."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine is asked."""

    target: str | None
    """None: there is none yet."""
    registry: str
    port: int


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine tells of itself."""

    name: str
    authentication: str
    """Ray's mode; empty where it is not set."""
    versions: str
    source: str
    """Hash of our own code there."""
    target: str
    """Hash of its fingerprint, or why it cannot be read."""
    registry: str
    """Its languages, or why it cannot be read."""
    port_taken: bool


def machine_checks(run: Run, purpose: Purpose) -> Iterator[Check]:
    """Of the cluster that this process has joined."""
    serve = run.config.serve
    target = str(run.target) if purpose == "serve" or run.given_target is not None else None
    machines, silent = ask(Question(target=target, registry=run.registry, port=serve.port))
    yield Check("machines", lambda: _answering(machines, silent))
    yield from verdicts(machines)
    if purpose == "train":
        yield Check("resources", lambda: training_resources(run.config.train, nodes()))
        return
    yield Check("resources", lambda: serving_resources(serve, len(run.config.languages), nodes()))
    if not ray_serve.status().applications:
        yield Check("serve.port", lambda: _free(machines, serve.port))


def verdicts(machines: Sequence[Machine]) -> Iterator[Check]:
    """Of what the machines have told."""
    yield Check("authentication", lambda: _authenticated(machines), "set RAY_AUTH_MODE=token wherever Ray is started")
    for what, trait, remedy in (
        ("versions", "versions", "install constraints.txt on every machine"),
        ("source", "source", "install the same polydraft on every machine"),
        ("target there", "target", "the same files at the same path"),
        ("registry there", "registry", "a shared folder, or a URI"),
    ):
        yield Check(what, partial(_alike, machines, trait), remedy)


def nodes() -> list[dict[str, float]]:
    """Ray's resources by name, of every machine that is up."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def ask(question: Question) -> tuple[list[Machine], dict[str, str]]:
    """What the machines that are up answer, and why the others do not, by their names."""
    told, silent = list[Machine](), dict[str, str]()
    for name, answer in {node["NodeName"]: _asked(question, node) for node in ray.nodes() if node["Alive"]}.items():
        try:
            told.append(ray.get(answer, timeout=ASK_S))
        except RayError as error:
            silent[name] = str(error).strip().splitlines()[-1]
    return told, silent


def _asked(question: Question, node: dict[str, Any]) -> ray.ObjectRef[Machine]:
    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(look)
    return task.remote(question, node["NodeName"])


def look(question: Question, name: str) -> Machine:
    """Carried out on the machine itself."""
    return Machine(
        name=name,
        authentication=os.environ.get("RAY_AUTH_MODE", ""),
        versions=", ".join([f"python {platform.python_version()}", *(f"{each} {version(each)}" for each in PACKAGES)]),
        source=_hash_source(Path(common.__file__).parent.parent),
        target=_read(lambda: _fingerprint(question.target)),
        registry=_read(lambda: ", ".join(Registry(question.registry).languages()) or "empty"),
        port_taken=_taken(question.port),
    )


def _read(read: Callable[[], str]) -> str:
    try:
        return read()
    except (ModelError, RegistryError, OSError) as error:
        return f"{UNREADABLE}: {error}"


def _fingerprint(target: str | None) -> str:
    if target is None:
        return "made by training"
    found = fingerprint(load_tokenizer(target), load_config(target))
    return hashlib.sha256(msgspec.json.encode(found, order="deterministic")).hexdigest()[:12]


def _hash_source(root: Path) -> str:
    files = sorted(path for package in ("common", "serve", "train") for path in (root / package).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return True
    return False


def _authenticated(machines: Sequence[Machine]) -> str:
    open_to_all = [machine.name for machine in machines if machine.authentication.lower() != "token"]
    if open_to_all:
        raise SettingsError(f"off on {', '.join(open_to_all)}: whoever reaches Ray's ports can run code there")
    return f"by token, on {len(machines)} machine(s)"


def _answering(machines: Sequence[Machine], silent: dict[str, str]) -> str:
    if silent:
        raise SettingsError("; ".join(f"{name}: {why}" for name, why in silent.items()))
    return ", ".join(machine.name for machine in machines)


def _alike(machines: Sequence[Machine], trait: str) -> str:
    """Raises SettingsError, with the machines that say so, for what differs or cannot be read."""
    by_value: dict[str, list[str]] = {}
    for machine in machines:
        by_value.setdefault(getattr(machine, trait), []).append(machine.name)
    told = "; ".join(f"{', '.join(names)}: {value}" for value, names in by_value.items())
    if len(by_value) > 1 or told.partition(": ")[2].startswith(UNREADABLE):
        raise SettingsError(told)
    return next(iter(by_value), "")


def _free(machines: Sequence[Machine], port: int) -> str:
    taken = [machine.name for machine in machines if machine.port_taken]
    if taken:
        raise SettingsError(f"{port} is taken on {', '.join(taken)}")
    return f"{port} is free"


def join() -> str:
    """Join the cluster that RAY_ADDRESS names. Raises SettingsError if that cannot be done."""
    try:
        start_ray()
    except (RuntimeError, RayError, ConnectionError) as error:
        raise SettingsError(f"{os.environ['RAY_ADDRESS']}: {' '.join(str(error).split())}") from None
    return f"{os.environ['RAY_ADDRESS']}, Ray {ray.__version__}"
