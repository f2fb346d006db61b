"""What is asked of the cluster, and what a replica costs."""

from __future__ import annotations

from common.languages import language_name
from common.settings import Settings


class LanguageTraffic(Settings, frozen=True, kw_only=True):
    """All requests in one language, on average."""

    requests_per_s: float
    prompt_tokens: float
    output_tokens: float

    def __post_init__(self) -> None:
        if self.requests_per_s < 0.0:
            raise ValueError(f"requests_per_s must not be negative, not {self.requests_per_s}")
        for name in ("prompt_tokens", "output_tokens"):
            if getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def tokens_per_s(self) -> float:
        """Written."""
        return self.requests_per_s * self.output_tokens

    @property
    def tokens(self) -> float:
        """Of a text, in the end."""
        return self.prompt_tokens + self.output_tokens


class Prices(Settings, frozen=True, kw_only=True):
    """Of a replica for an hour, in any currency."""

    verifier: float = 1.0
    drafter: float = 1.0

    def __post_init__(self) -> None:
        for name in ("verifier", "drafter"):
            if getattr(self, name) <= 0.0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")


class Traffic(Settings, frozen=True, kw_only=True):
    languages: dict[str, LanguageTraffic]
    temperature: float = 0.0
    """At which the drafters' acceptance is looked up when it is measured."""
    utilisation: float = 0.8
    """Share of the texts that a replica can hold at the same time, at this traffic; the rest is for its peaks."""
    prices: Prices = Prices()

    def __post_init__(self) -> None:
        if not 0.0 < self.utilisation <= 1.0:
            raise ValueError(f"utilisation must be above 0 and at most 1, not {self.utilisation}")
        for language in self.languages:
            language_name(language)
        if not any(asked.requests_per_s for asked in self.languages.values()):
            raise ValueError("languages must name some with requests")
