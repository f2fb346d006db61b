"""What a router knows of what is deployed: from Serve's list, whatever state that is in, and no request suffers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus, ReplicaState

from common.models import Fingerprint
from serve import handles
from serve.errors import ReplicaLost
from serve.handles import DRAFTER, MAIN_APP, VERIFIER, Directory
from serve.stream.replica import LeaseGrant

TARGET = Fingerprint(tokens="", special_tokens={}, vocab_size=64, context_length=256)


class Serve:
    """What Ray Serve tells."""

    def __init__(self) -> None:
        self.applications = {MAIN_APP: _app({VERIFIER: 2}), "drafter-de": _app({DRAFTER: 1})}
        self.unreconciled: set[str] = set()
        self.error: Exception | None = None
        self.looks = 0
        self.answers = threading.Event()
        self.answers.set()

    def status(self) -> Any:
        self.looks += 1
        assert self.answers.wait(5)
        if self.error is not None:
            raise self.error
        return SimpleNamespace(applications=self.applications)

    def get_deployment_handle(self, name: str, app_name: str) -> Any:
        if app_name in self.unreconciled:
            raise KeyError(f"Deployment(name='{name}', app='{app_name}') does not exist.")
        return SimpleNamespace(name=app_name)


def _app(running: dict[str, int], status: ApplicationStatus = ApplicationStatus.RUNNING) -> Any:
    replicas = {name: SimpleNamespace(replica_states={ReplicaState.RUNNING: n}) for name, n in running.items()}
    return SimpleNamespace(status=status, deployments=replicas)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(handles, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace) -> Serve:
    made = Serve()
    monkeypatch.setattr(handles, "ray_serve", made)
    return made


def directory() -> Directory:
    return Directory(TARGET, 128, refresh_s=10.0)


async def refreshed(made: Directory) -> None:
    """After a look that went on beside the requests."""
    await made.refresh()
    assert made._looking is not None
    await asyncio.wait([made._looking])


async def test_drafters_and_verifiers_are_found(serve: Serve) -> None:
    serve.applications |= {
        "drafter-fr": _app({DRAFTER: 0}),
        "drafter-ja": _app({}, ApplicationStatus.DEPLOYING),
        "drafter-it": _app({DRAFTER: 1}, ApplicationStatus.DELETING),
        "something": _app({"Else": 1}),
    }
    found = directory()
    await found.refresh()
    assert (found.names, found.warm, found.verifiers) == (("de", "fr", "ja"), ("de",), 2)
    assert found.source("de") is not None
    assert found.source("it") is found.source(None) is None


@pytest.mark.parametrize("error", [RayServeException("no Serve"), ZeroDivisionError("nobody knows why")])
async def test_a_look_that_fails_keeps_the_last_list_and_the_next_one_is_made(
    serve: Serve, clock: SimpleNamespace, error: Exception
) -> None:
    found = directory()
    await found.refresh()
    serve.error = error
    clock.now += 11
    await refreshed(found)
    await found.refresh()
    assert (found.names, found.verifiers) == (("de",), 2)
    serve.error, serve.applications["drafter-fr"] = None, _app({DRAFTER: 1})
    clock.now += 11
    await refreshed(found)
    assert found.names == ("de", "fr")


async def test_a_first_look_that_fails_is_repeated_soon_and_waited_for(serve: Serve, clock: SimpleNamespace) -> None:
    found = directory()
    serve.error = ZeroDivisionError("nobody knows why")
    for _ in range(3):
        await found.refresh()
    assert (found.names, serve.looks) == ((), 1)
    serve.error = None
    clock.now += 1.5
    await found.refresh()
    assert found.names == ("de",)


async def test_an_application_that_is_not_reconciled_yet_is_found_later(serve: Serve, clock: SimpleNamespace) -> None:
    serve.applications["drafter-fr"] = _app({DRAFTER: 1})
    serve.unreconciled = {"drafter-fr"}
    found = directory()
    await found.refresh()
    assert found.names == ("de",) and found.source("fr") is None
    serve.unreconciled = set()
    clock.now += 11
    await refreshed(found)
    assert found.names == ("de", "fr") and found.source("fr") is not None


@pytest.mark.parametrize("change", [dict.clear, lambda apps: apps.update({MAIN_APP: _app({})})])
async def test_a_verifier_that_is_not_listed_is_none_that_runs(serve: Serve, change: Callable[[Any], Any]) -> None:
    change(serve.applications)
    found = directory()
    await found.refresh()
    assert found.verifiers == 0


async def test_whoever_comes_during_the_first_look_waits_for_it_and_later_nobody_does(
    serve: Serve, clock: SimpleNamespace
) -> None:
    found = directory()
    serve.answers.clear()
    waiting = [asyncio.create_task(found.refresh()) for _ in range(3)]
    while not serve.looks:
        await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    assert not any(task.done() for task in waiting[1:]), "a cancelled one takes nothing from the others"
    serve.answers.set()
    await asyncio.wait_for(asyncio.gather(*waiting[1:]), 5)
    assert (found.names, serve.looks) == (("de",), 1)
    serve.answers.clear()
    clock.now += 11
    await asyncio.wait_for(found.refresh(), 1)
    serve.answers.set()


async def test_what_is_missing_is_looked_for_unless_the_list_is_new(serve: Serve, clock: SimpleNamespace) -> None:
    found = directory()
    await found.refresh()
    serve.applications["drafter-fr"] = _app({DRAFTER: 1})
    await found.look()
    assert (found.names, serve.looks) == (("de",), 1), "of this second"
    clock.now += 1.5
    await asyncio.gather(found.look(), found.look())
    assert (found.names, serve.looks) == (("de", "fr"), 2)


@pytest.mark.parametrize(("context", "fits"), [(256, True), (128, True), (127, False)])
async def test_a_drafter_must_attend_to_what_is_served_and_not_to_all_that_the_target_could(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, context: int, fits: bool
) -> None:
    async def leases() -> AsyncGenerator[LeaseGrant]:
        drafter = msgspec.structs.replace(TARGET, context_length=context)
        yield LeaseGrant(address="", token="", incarnation="", name="de/v1", fingerprint=drafter)

    monkeypatch.setattr(handles, "leases_of", lambda handle: leases)
    found = directory()
    await found.refresh()
    source = found.source("de")
    assert source is not None
    async with aclosing(source()) as grants:
        if fits:
            assert (await anext(grants)).name == "de/v1"
        else:
            with pytest.raises(ReplicaLost, match="does not fit"):
                await anext(grants)
    assert found.names == (("de",) if fits else ())
