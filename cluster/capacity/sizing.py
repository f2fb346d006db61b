"""The replicas that carry a traffic: the cheapest with which each language whose drafts save time is drafted for.

For each number of verifiers drafters are added where more of them shorten the drafts most, until all requests are
carried; of these the cheapest is taken. What is added does not depend on the requests, so more of the same kinds never
come out cheaper. That a step by itself carries no more says nothing: all texts wait for the slowest draft, and where
two languages' are equally slow both need more.
"""

from __future__ import annotations

import math
from itertools import count

import msgspec

from cluster.capacity.costs import Costs
from cluster.capacity.load import Fleet, Load, Workload
from cluster.capacity.traffic import Prices, Traffic
from serve.settings import ServeSettings

PLENTY = 1_000_000
"""So many drafters that none is ever waited for."""
MORE = 1.05
"""How many times as many drafters a step is, one at least."""
WORTH = 1e-3
"""Share of the time of a drafted token that a step must win."""


class Sizing(msgspec.Struct, frozen=True, kw_only=True):
    """An answer."""

    replicas: Fleet
    load: Load
    """At the traffic as it is."""
    utilisation: float
    """Of the verifiers."""
    cost_per_hour: float


def size(traffic: Traffic, costs: Costs, serve: ServeSettings) -> Sizing:
    """The cheapest, as said above, that carries the traffic at its utilisation."""
    workload = Workload(traffic, costs, serve)
    ideal = workload.full(_ideal(workload, 1))
    least = math.ceil(workload.requests_per_s / ideal.requests_per_s)
    best, cost = None, math.inf
    for verifiers in count(max(1, least)):
        if verifiers * traffic.prices.verifier >= cost:
            break
        found = _with_drafters(workload, verifiers, traffic.prices, cost)
        if found is not None:
            best, cost = found, _cost(found, traffic.prices)
    assert best is not None, "some number of verifiers is enough"
    return _sizing(workload, best, traffic)


def _with_drafters(workload: Workload, verifiers: int, prices: Prices, most: float) -> Fleet | None:
    """The fewest drafters with which so many verifiers carry the traffic; None if none do for less than `most`."""
    replicas = _holding(workload, verifiers)
    full = workload.full(replicas)
    while _cost(replicas, prices) < most:
        if verifiers * full.requests_per_s >= workload.requests_per_s:
            return replicas
        steps = [(name, _more(replicas, name)) for name in replicas.drafters]
        rated = [(_won(full, after := workload.full(step), name), step, after) for name, step in steps]
        won, replicas, full = max(rated, key=lambda each: each[0], default=(0.0, replicas, full))
        if won < WORTH:
            break
    return None


def _won(before: Load, after: Load, language: str) -> float:
    """Share of the time of a drafted token."""
    was, now = (load.rounds[language] for load in (before, after))
    if not was.drafted or not now.drafted:
        return 0.0
    return 1.0 - now.draft_s / now.drafted * was.drafted / was.draft_s


def _ideal(workload: Workload, verifiers: int) -> Fleet:
    return Fleet(verifiers=verifiers, drafters=dict.fromkeys(workload.drafted, PLENTY))


def _holding(workload: Workload, verifiers: int) -> Fleet:
    """As many drafters as hold all texts and are fast enough to draft; none where no number of them would draft."""
    replicas = _ideal(workload, verifiers)
    full = workload.full(replicas)
    replicas = Fleet(verifiers=verifiers, drafters={name: 1 for name in replicas.drafters if full.rounds[name].drafted})
    while True:
        drafters = {
            name: max(
                number if full.rounds[name].drafted else _step(number),
                math.ceil(verifiers * full.texts[name] / _room(workload, name)),
            )
            for name, number in replicas.drafters.items()
        }
        if drafters == replicas.drafters:
            return replicas
        replicas = Fleet(verifiers=verifiers, drafters=drafters)
        full = workload.full(replicas)


def _room(workload: Workload, language: str) -> float:
    return workload.utilisation * workload.drafter_texts(language)


def _more(replicas: Fleet, language: str) -> Fleet:
    drafters = replicas.drafters | {language: _step(replicas.drafters[language])}
    return Fleet(verifiers=replicas.verifiers, drafters=drafters)


def _step(number: int) -> int:
    return math.ceil(number * MORE)


def _cost(replicas: Fleet, prices: Prices) -> float:
    return replicas.verifiers * prices.verifier + sum(replicas.drafters.values()) * prices.drafter


def _sizing(workload: Workload, replicas: Fleet, traffic: Traffic) -> Sizing:
    full = workload.full(replicas)
    load = _carrying(workload, replicas, full)
    return Sizing(
        replicas=replicas,
        load=load,
        utilisation=workload.utilisation * load.total / full.total,
        cost_per_hour=_cost(replicas, traffic.prices),
    )


def _carrying(workload: Workload, replicas: Fleet, full: Load) -> Load:
    """With just so many texts at each verifier that all requests are carried."""
    low, high, found = 0.0, full.total, full
    while high - low > 1e-3 * full.total:
        middle = (low + high) / 2
        load = workload.load(replicas, middle)
        if replicas.verifiers * load.requests_per_s < workload.requests_per_s:
            low = middle
        else:
            high, found = middle, load
    return found
