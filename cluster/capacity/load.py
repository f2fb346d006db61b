"""What equal verifier replicas and their drafters carry, by how many texts each verifier has at the same time."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from cluster.capacity.costs import Costs
from cluster.capacity.rounds import Group, Rounds, Verifier
from cluster.capacity.traffic import Traffic
from common.settings import SettingsError
from serve.settings import ServeSettings

TURNS = 32


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    verifiers: int
    drafters: dict[str, int]
    """By language; one that is not here is decoded plainly."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Of each verifier replica."""

    texts: dict[str, float]
    """In progress, by language."""
    rounds: dict[str, Rounds]
    requests_per_s: float

    @property
    def total(self) -> float:
        """Texts in progress."""
        return sum(self.texts.values())


class Workload:
    """A traffic at models of known costs, under a configuration.

    Raises SettingsError, naming the language, if a text does not fit a verifier's memory.
    """

    def __init__(self, traffic: Traffic, costs: Costs, serve: ServeSettings) -> None:
        self.traffic = {name: asked for name, asked in traffic.languages.items() if asked.requests_per_s}
        self.requests_per_s = sum(asked.requests_per_s for asked in self.traffic.values())
        self.utilisation = traffic.utilisation
        self.costs = costs
        self._serve = serve
        for name, asked in self.traffic.items():
            if asked.tokens > serve.verifier.longest_text:
                held = f"serve.verifier.kv_tokens holds {serve.verifier.longest_text}"
                raise SettingsError(f"languages.{name}: a text has {asked.tokens:g} tokens, {held}")

    @property
    def drafted(self) -> list[str]:
        """Languages that have a drafter which can hold a text."""
        longest = self._serve.drafter.longest_text
        return [name for name, asked in self.traffic.items() if name in self.costs.drafters and asked.tokens <= longest]

    def load(self, replicas: Fleet, texts: float) -> Load:
        """With so many texts at each verifier, as many of each language as the traffic comes to."""
        texts = max(texts, 1e-9)
        verifier = Verifier(
            steps=self.costs.verifier,
            coordination=self.costs.coordination,
            speculation=self._serve.speculation,
            replicas=replicas.verifiers,
            prefill_chunk=self._serve.verifier.prefill_chunk,
        )
        held = {name: asked.tokens_per_s for name, asked in self.traffic.items()}
        for _ in range(TURNS):
            before, held = held, _scaled(held, texts)
            # A text that is there is one text, however seldom one is.
            present = _scaled(held, max(texts, 1.0))
            rounds = verifier.rounds({name: self._group(name, present[name], replicas) for name in present})
            held = {name: asked.requests_per_s * rounds[name].text_s for name, asked in self.traffic.items()}
            if _close(held, before):
                break
        # As many texts are in progress as come while one is written.
        return Load(
            texts=_scaled(held, texts), rounds=rounds, requests_per_s=self.requests_per_s * texts / sum(held.values())
        )

    def full(self, replicas: Fleet) -> Load:
        """With as many texts as the utilisation allows."""
        bound = self._serve.verifier.max_sessions
        load = self.load(replicas, self.utilisation * bound)
        length = sum(load.texts[name] * asked.tokens for name, asked in self.traffic.items()) / load.total
        fitting = self._serve.verifier.kv_tokens / length
        return load if fitting >= bound else self.load(replicas, self.utilisation * fitting)

    def drafter_texts(self, language: str) -> float:
        """The most that a drafter replica can hold."""
        drafter = self._serve.drafter
        return min(drafter.max_sessions, drafter.kv_tokens / self.traffic[language].tokens)

    def _group(self, name: str, texts: float, replicas: Fleet) -> Group:
        asked = self.traffic[name]
        drafters = replicas.drafters.get(name, 0)
        return Group(
            texts=texts,
            prompt_tokens=asked.prompt_tokens,
            output_tokens=asked.output_tokens,
            drafter=self.costs.drafters.get(name) if drafters else None,
            drafter_replicas=max(1, drafters),
        )


def _scaled(texts: Mapping[str, float], total: float) -> dict[str, float]:
    factor = total / sum(texts.values())
    return {name: factor * number for name, number in texts.items()}


def _close(held: Mapping[str, float], before: Mapping[str, float]) -> bool:
    total, total_before = sum(held.values()), sum(before.values())
    return all(math.isclose(held[name] / total, before[name] / total_before, rel_tol=1e-6) for name in held)
