"""What can be said about drafting."""

from __future__ import annotations

from common.settings import Settings


class SpeculationSettings(Settings, frozen=True, kw_only=True):
    """How many tokens are drafted a round. Raises ValueError, naming the field, when a value is out of range."""

    draft_length: int | None = None
    """Always so many, 0 for plain decoding; None chooses by what pays."""
    default_draft_length: int = 4
    """So many until the costs of a round are known."""
    max_draft_length: int = 8
    """The most that is drafted a round, whatever would pay."""
    initial_acceptance: float = 0.7
    """Acceptance per position that a new drafter is credited with."""
    exploration: float = 0.005
    """Share of the time given to trying one token more, and as much again to trying none; less, the worse it looks."""
    hysteresis: float = 0.01
    """A length is left only for one that is better by this fraction."""
    min_gain: float = 0.1
    """Drafts must promise so much more than plain decoding: leases and prefills come on top of what is measured."""
    doubt: float = 0.2
    """How far a promise may be from the truth, as a fraction: by so much it is put to the test (see `trial`). 0 where
    drafters and verifiers have devices of their own and a router's texts are all there is."""

    def __post_init__(self) -> None:
        if not 1 <= self.max_draft_length <= 64:
            raise ValueError(f"max_draft_length must be between 1 and 64, not {self.max_draft_length}")
        for name, least in (("default_draft_length", 1), ("draft_length", 0)):
            value = getattr(self, name)
            if value is not None and not least <= value <= self.max_draft_length:
                raise ValueError(f"{name} must be between {least} and max_draft_length, not {value}")
        if not 0.0 <= self.initial_acceptance <= 1.0:
            raise ValueError(f"initial_acceptance must be between 0 and 1, not {self.initial_acceptance}")
        for name, most in (("exploration", 0.2), ("hysteresis", 0.2), ("min_gain", 1.0), ("doubt", 1.0)):
            if not 0.0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be between 0 and {most:g}, not {getattr(self, name)}")
