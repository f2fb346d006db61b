"""Requests in OpenAI's form, with vLLM's additions: what is asked for, checked once.

A field of theirs that is not supported is accepted at the value that asks for nothing; at any other value, and for a
field that neither has, the request is refused by name: nothing is silently ignored. `null` means absent. What only
describes the client (`user`, `metadata`, `safety_identifier`, `prompt_cache_key`) is accepted and has no effect.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, JsonValue, ValidationInfo, field_validator

from common.types import MAX_LOGPROBS
from serve.http.chat_messages import Message
from serve.http.openai_fields import (
    Language,
    LogitBias,
    Only,
    Prompt,
    Speculation,
    SpeculationField,
    StopStrings,
    StopTokens,
    Strict,
    prompts_of,
)
from serve.http.text import RESERVED_VARIABLES

MAX_INT = 2**31 - 1
"""Of numbers that mean something to the model: more is a mistake, and could not be sent to it."""

MAX_CHOICES = 128
"""Most texts written for one request."""


class StreamOptions(Strict):
    include_usage: bool = False
    continuous_usage_stats: bool = False
    """Usage so far on every chunk, not only at the end."""
    include_obfuscation: Annotated[bool, Only(False)] = False

    @field_validator("continuous_usage_stats")
    @classmethod
    def _needs_usage(cls, continuous: bool, info: ValidationInfo) -> bool:
        if continuous and not info.data.get("include_usage"):
            raise ValueError("only accepted together with include_usage: true")
        return continuous


class GenerationFields(Strict):
    """What both kinds of requests have in common."""

    model: str
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    """Choices for each prompt. Choice k has the seed + k · 2³²; without a seed, k goes on through the prompts."""
    max_tokens: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=-1, le=MAX_INT)] = 0
    """0 and -1 keep all tokens."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] = 1.0
    logit_bias: LogitBias = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: StopStrings = ()
    stop_token_ids: StopTokens = Field(default_factory=list)
    ignore_eos: bool = False
    stream: bool = False
    stream_options: StreamOptions | None = None

    language: Language | None = None
    """ISO 639-1 code of the text's language; by default it is identified from the prompt."""
    speculation: SpeculationField = Speculation()
    """`auto`, `off`, a drafter's name, most tokens drafted a round, or an object with these two."""

    store: bool | None = None
    """Whether prompts may be kept to train drafters on: true, false, or, if absent, as the server is set up."""
    user: str | None = None
    min_tokens: Annotated[int, Only(0)] = 0
    skip_special_tokens: Annotated[bool, Only(True)] = True
    include_stop_str_in_output: Annotated[bool, Only(False)] = False
    length_penalty: Annotated[float, Only(1)] = 1.0
    use_beam_search: Annotated[bool, Only(False)] = False

    @field_validator("stream_options")
    @classmethod
    def _needs_a_stream(cls, options: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if not info.data.get("stream"):
            raise ValueError("only accepted together with stream: true")
        return options

    @property
    def prompt_logprobs(self) -> bool:
        """Whether the prompt's tokens are told with their log-probabilities, too."""
        return False


class CompletionRequest(GenerationFields):
    """`POST /v1/completions`."""

    prompt: Prompt
    """Text or token ids, or several of either."""
    max_tokens: Annotated[int, Field(ge=0, le=MAX_INT)] | None = None
    """0 only with echo."""
    logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    echo: bool = False
    """Begin the text with the prompt, and the log-probabilities, if asked for, with those of its tokens."""
    best_of: int | None = None
    suffix: Annotated[str, Only("")] = ""
    add_special_tokens: Annotated[bool, Only(True)] = True

    @field_validator("prompt")
    @classmethod
    def _not_too_many(cls, prompt: Prompt, info: ValidationInfo) -> Prompt:
        count = len(prompts_of(prompt)) * info.data.get("n", 1)
        if count > MAX_CHOICES:
            raise ValueError(f"prompts times n must be at most {MAX_CHOICES}, not {count}")
        return prompt

    @field_validator("best_of")
    @classmethod
    def _best_of_all(cls, best_of: int | None, info: ValidationInfo) -> int | None:
        if best_of != info.data.get("n", best_of):
            raise ValueError("not supported yet: only the value of n is accepted")
        return best_of

    @property
    def prompts(self) -> list[str | list[int]]:
        """Always several."""
        return prompts_of(self.prompt)

    @property
    def texts(self) -> int:
        """How many are written."""
        return len(self.prompts) * self.n

    @property
    def alternatives(self) -> int | None:
        """How many likeliest tokens are told beside each token, None for no log-probabilities at all."""
        return self.logprobs

    @property
    def prompt_logprobs(self) -> bool:
        return self.echo and self.logprobs is not None


class ChatCompletionRequest(GenerationFields):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] = 0
    add_generation_prompt: bool = True
    """Render the conversation up to where an answer begins."""
    continue_final_message: bool = False
    """Leave the last message open, so that the answer goes on with it."""
    chat_template_kwargs: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Variables for the chat template."""

    tools: Annotated[list[Any], Only([])] | None = None
    tool_choice: Annotated[JsonValue, Only("none", "auto")] = "auto"
    parallel_tool_calls: bool = True
    functions: Annotated[list[Any], Only([])] | None = None
    function_call: Annotated[JsonValue, Only("none", "auto")] = "auto"
    response_format: Annotated[dict[str, Any], Only({"type": "text"})] | None = None
    modalities: Annotated[list[str], Only(["text"])] | None = None
    service_tier: Annotated[str, Only("auto", "default")] = "auto"
    add_special_tokens: Annotated[bool, Only(False)] = False
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @field_validator("max_completion_tokens")
    @classmethod
    def _one_limit(cls, limit: int | None, info: ValidationInfo) -> int | None:
        if info.data.get("max_tokens") not in (None, limit):
            raise ValueError("contradicts max_tokens, its older name")
        return limit

    @field_validator("top_logprobs")
    @classmethod
    def _needs_logprobs(cls, count: int, info: ValidationInfo) -> int:
        if count and not info.data.get("logprobs"):
            raise ValueError("only accepted together with logprobs: true")
        return count

    @field_validator("continue_final_message")
    @classmethod
    def _continues_or_answers(cls, continues: bool, info: ValidationInfo) -> bool:
        if continues and info.data.get("add_generation_prompt"):
            raise ValueError("only accepted together with add_generation_prompt: false")
        return continues

    @field_validator("chat_template_kwargs")
    @classmethod
    def _variables(cls, variables: dict[str, Any]) -> dict[str, Any]:
        for name in variables.keys() & RESERVED_VARIABLES:
            raise ValueError(f"`{name}` is not a variable that may be set")
        return variables

    @property
    def texts(self) -> int:
        """How many are written."""
        return self.n

    @property
    def limit(self) -> int | None:
        """Most output tokens, None for as many as the context holds."""
        return self.max_completion_tokens if self.max_tokens is None else self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """How many likeliest tokens are told beside each token, None for no log-probabilities at all."""
        return self.top_logprobs if self.logprobs else None

    @property
    def conversation(self) -> dict[str, Any]:
        """What the chat template is given: arguments of `text.TextCodec.render`."""
        return {
            "messages": [message.for_template for message in self.messages],
            "add_generation_prompt": self.add_generation_prompt,
            "continue_final_message": self.continue_final_message,
            "variables": self.chat_template_kwargs,
        }

    @property
    def question(self) -> str:
        """The last message of the user, which tells the language of the conversation."""
        texts = [message.text for message in self.messages if message.role == "user"]
        return texts[-1] if texts else ""
