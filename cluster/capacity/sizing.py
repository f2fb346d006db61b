"""The cheapest replicas that carry a traffic.

For each number of verifiers drafters are added where one more carries most, until all requests are carried; of these
the cheapest is taken. So more requests of the same kinds never come out cheaper.
"""

from __future__ import annotations

import math
from itertools import count

import msgspec

from cluster.capacity.costs import Costs
from cluster.capacity.load import Load, Replicas, Workload
from cluster.capacity.traffic import Prices, Traffic
from serve.settings import ServeSettings

PLENTY = 1_000_000
"""So many drafters that none is ever waited for."""
FASTER = 1.05
"""How many times as many drafters are tried where so few would be too slow to draft."""
WORTH = 1e-3
"""Share by which a drafter more must raise what is carried."""


class Sizing(msgspec.Struct, frozen=True, kw_only=True):
    """An answer."""

    replicas: Replicas
    load: Load
    """At the traffic as it is."""
    full: Load
    """At the most that the utilisation allows."""
    utilisation: float
    """Of the verifiers."""
    cost_per_hour: float


def size(traffic: Traffic, costs: Costs, serve: ServeSettings) -> Sizing:
    """The cheapest that carries the traffic at its utilisation."""
    workload = Workload(traffic, costs, serve)
    ideal = workload.full(_ideal(workload, 1))
    least = math.ceil(workload.requests_per_s / ideal.requests_per_s)
    best: Replicas | None = None
    for verifiers in count(max(1, least)):
        if best is not None and verifiers * traffic.prices.verifier >= _cost(best, traffic.prices):
            break
        found = _with_drafters(workload, verifiers)
        if found is not None and (best is None or _cost(found, traffic.prices) < _cost(best, traffic.prices)):
            best = found
    assert best is not None, "some number of verifiers is enough"
    return _sizing(workload, best, traffic)


def _with_drafters(workload: Workload, verifiers: int) -> Replicas | None:
    """The fewest drafters with which so many verifiers carry the traffic; None if they never do."""
    replicas = _holding(workload, verifiers)
    carried = workload.full(replicas).requests_per_s
    while verifiers * carried < workload.requests_per_s:
        more = [_one_more(replicas, language) for language in replicas.drafters]
        rated = [(workload.full(one).requests_per_s, one) for one in more]
        best, best_replicas = max(rated, key=lambda pair: pair[0], default=(0.0, replicas))
        if best < carried * (1.0 + WORTH):
            return None
        carried, replicas = best, best_replicas
    return replicas


def _ideal(workload: Workload, verifiers: int) -> Replicas:
    return Replicas(verifiers=verifiers, drafters=dict.fromkeys(workload.drafted, PLENTY))


def _holding(workload: Workload, verifiers: int) -> Replicas:
    """As many drafters as hold all texts and are fast enough to draft; none where no number of them would draft."""
    replicas = _ideal(workload, verifiers)
    full = workload.full(replicas)
    replicas = Replicas(
        verifiers=verifiers, drafters={name: 1 for name in replicas.drafters if full.rounds[name].drafted}
    )
    while True:
        drafters = {
            name: max(
                number if full.rounds[name].drafted else math.ceil(number * FASTER),
                math.ceil(verifiers * full.texts[name] / _room(workload, name)),
            )
            for name, number in replicas.drafters.items()
        }
        if drafters == replicas.drafters:
            return replicas
        replicas = Replicas(verifiers=verifiers, drafters=drafters)
        full = workload.full(replicas)


def _room(workload: Workload, language: str) -> float:
    return workload.utilisation * workload.drafter_texts(language)


def _one_more(replicas: Replicas, language: str) -> Replicas:
    drafters = replicas.drafters | {language: replicas.drafters[language] + 1}
    return Replicas(verifiers=replicas.verifiers, drafters=drafters)


def _cost(replicas: Replicas, prices: Prices) -> float:
    return replicas.verifiers * prices.verifier + sum(replicas.drafters.values()) * prices.drafter


def _sizing(workload: Workload, replicas: Replicas, traffic: Traffic) -> Sizing:
    full = workload.full(replicas)
    load = _carrying(workload, replicas, full)
    return Sizing(
        replicas=replicas,
        load=load,
        full=full,
        utilisation=workload.utilisation * load.total / full.total,
        cost_per_hour=_cost(replicas, traffic.prices),
    )


def _carrying(workload: Workload, replicas: Replicas, full: Load) -> Load:
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
