"""The `lab` section of a configuration: what `polydraft evaluate` measures, and how much of it."""

from __future__ import annotations

import msgspec

from common.settings import Settings
from train.distillation.settings import EndpointSettings
from train.sources import Source


class TestSetSettings(Settings, frozen=True, kw_only=True):
    """A test set of one or several languages."""

    __test__ = False  # to pytest, anything called Test… is a test

    name: str
    """By which the report calls it."""
    source: Source
    """May contain {language} and {data}."""
    task: str = "translation"
    """What is asked for, as the report calls it."""
    languages: tuple[str, ...] | None = None
    """Those that it exists in; None: all of the configuration."""
    turn: str = "{turn}\n"
    """How a question of a question file becomes a prompt. Parallel text is asked as in training."""

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name:
            raise ValueError(f"name is `{self.name}`, must be some word without a slash")
        if "{turn}" not in self.turn:
            raise ValueError("turn must contain {turn}")


class ScalingSettings(Settings, frozen=True, kw_only=True):
    """Drafters of one language, trained on more and more answers, with and without pretraining."""

    language: str
    """The one that is trained."""
    answers: tuple[int, ...]
    """At least five sizes tell a line from something else."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """A drafter is trained with each."""
    passes: float = 3.0
    """Over the answers, whatever their number."""

    def __post_init__(self) -> None:
        if len(set(self.answers)) < 2 or min(self.answers) < 1:
            raise ValueError(f"answers are {list(self.answers)}, must be two sizes or more")
        if not self.seeds:
            raise ValueError("seeds must name at least one")
        if len(self.answers) * len(self.seeds) < 3:
            raise ValueError("answers and seeds must make three runs or more: two are always on a line")
        if self.passes <= 0:
            raise ValueError(f"passes is {self.passes}, must be positive")


class JudgeSettings(Settings, frozen=True, kw_only=True):
    """A language model that grades texts written with and without drafts."""

    endpoint: EndpointSettings
    """Any server that speaks OpenAI's chat API."""
    questions: int = 20
    """Of each language; each is graded twice alone and compared in both orders."""
    temperature: float = 1.0
    """Of the texts; at 0 there would be nothing to compare."""
    concurrency: int = 8
    """Questions to the judge at the same time."""
    attempts: int = 3
    """Times that a judge is asked until its answer holds a verdict."""
    usd_per_million_tokens: float | None = None
    """For the estimate before anything is asked."""

    def __post_init__(self) -> None:
        for name in ("questions", "concurrency", "attempts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be at least 1")
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}, must be above 0: else both texts are the same")


class LabSettings(Settings, frozen=True, kw_only=True):
    """Sizes of the studies. Questions are chosen by a hash; see `train.evaluation.questions`."""

    questions: int = 40
    """Of each language's own test text: every method decodes each, on the clock."""
    repetitions: int = 3
    """Times that each method decodes each question on the clock."""
    temperatures: tuple[float, ...] = (0.0, 1.0)
    """Each study that decodes does so at each of them."""
    draft_length: int = 4
    """Tokens drafted a round, the same for all methods."""
    draft_lengths: tuple[int, ...] = (1, 2, 4, 6, 8)
    """Swept with the specialist at temperature 0."""
    max_tokens: int = 64
    """Upper bound on the tokens of an answer."""
    sets: tuple[TestSetSettings, ...] = ()
    """Test sets beyond the corpus's own, for drafters out of their domain."""
    domain_questions: int = 40
    """Of each language and set, decoded many at a time: acceptance needs no clock."""
    concurrency: int = 16
    """Texts in progress at the same time, where no time is taken."""
    peer_questions: int = 12
    """Of each language, also decoded by transformers."""
    law_texts: int = 300
    """Texts at temperature 1 with and without drafts, whose law must be the same."""
    scaling: ScalingSettings | None = None
    """None: the study is left out."""
    judge: JudgeSettings | None = None
    """None: the study is left out."""
    threads: int | None = None
    """Of the processor; None: as PyTorch has it."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{name} is {value}, must be at least 1")
        if not self.temperatures or min(self.temperatures) < 0:
            raise ValueError(f"temperatures are {list(self.temperatures)}, must be some, none of them negative")
        if not self.draft_lengths or min(self.draft_lengths) < 1:
            raise ValueError(f"draft_lengths are {list(self.draft_lengths)}, must be some, each at least 1")
        if len({found.name for found in self.sets} | {"corpus"}) <= len(self.sets):
            raise ValueError("sets must have names of their own, and none may be called `corpus`")

    def quick(self) -> LabSettings:
        """A tenth of the work, for a first look: intervals are wide, and nothing is trained for it."""
        return msgspec.structs.replace(
            self,
            questions=min(self.questions, 8),
            repetitions=1,
            draft_lengths=self.draft_lengths[:3],
            domain_questions=min(self.domain_questions, 4),
            peer_questions=min(self.peer_questions, 4),
            law_texts=min(self.law_texts, 100),
            scaling=None,
        )
