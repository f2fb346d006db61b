"""A sizing, for people and for programs."""

from __future__ import annotations

from typing import Any

from cluster.capacity.sizing import Sizing
from cluster.capacity.traffic import Traffic

COLUMNS = (
    "language",
    "requests/s",
    "drafter replicas",
    "drafted",
    "tokens a round",
    "texts in progress",
    "ms a token",
    "without speculation",
)


def rows(sizing: Sizing, plain: Sizing, traffic: Traffic) -> list[list[str]]:
    """One a language; the last column is a token's time too."""
    told, without = figures(sizing, traffic)["languages"], figures(plain, traffic)["languages"]
    return [
        [
            language,
            f"{traffic.languages[language].requests_per_s:g}",
            f"{sizing.replicas.drafters.get(language, 0)}",
            f"{one['drafted']}",
            f"{one['tokens_per_round']:.2f}",
            f"{one['texts']:.1f}",
            f"{one['ms_per_token']:.1f}",
            f"{without[language]['ms_per_token']:.1f}",
        ]
        for language, one in told.items()
    ]


def sentence(sizing: Sizing) -> str:
    """What is needed."""
    verifiers, drafters = sizing.replicas.verifiers, sum(sizing.replicas.drafters.values())
    used = f"{sizing.utilisation:.0%} of the verifiers' texts in use"
    return f"{verifiers} verifier and {drafters} drafter replicas, {used}, {sizing.cost_per_hour:g} an hour"


def figures(sizing: Sizing, traffic: Traffic) -> dict[str, Any]:
    """As built-in types."""
    return {
        "verifiers": sizing.replicas.verifiers,
        "drafters": sizing.replicas.drafters,
        "cost_per_hour": round(sizing.cost_per_hour, 4),
        "utilisation": round(sizing.utilisation, 4),
        "languages": {
            language: {
                "drafted": rounds.drafted,
                "tokens_per_round": round(rounds.tokens, 4),
                "texts": round(sizing.replicas.verifiers * sizing.load.texts[language], 2),
                "ms_per_token": round(1e3 * rounds.text_s / traffic.languages[language].output_tokens, 3),
            }
            for language, rounds in sizing.load.rounds.items()
        },
    }
