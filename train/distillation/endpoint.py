"""Answers by any server that speaks OpenAI's completions API."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import openai
from transformers import PreTrainedTokenizerFast

from train.distillation.answers import Answer, Question, Rejected, answered, rejected
from train.distillation.settings import DistillSettings
from train.openai_client import api_key, open_client, reason


class EndpointAnswers:
    """Implements `AnswerSource`. The answers' token ids are those that `tokenizer` gives their text.

    Raises ValueError if the API key's environment variable is not set.
    """

    def __init__(self, settings: DistillSettings, tokenizer: PreTrainedTokenizerFast) -> None:
        assert settings.endpoint is not None
        self._settings = settings
        self._endpoint = settings.endpoint
        api_key(settings.endpoint)  # told now, not after a shard
        self._tokenizer = tokenizer

    def answer(self, questions: Sequence[Question]) -> list[Answer | Rejected]:
        return asyncio.run(self._answer_all(questions))

    async def _answer_all(self, questions: Sequence[Question]) -> list[Answer | Rejected]:
        async with open_client(self._endpoint) as client:
            places = asyncio.Semaphore(self._settings.concurrency)
            return await asyncio.gather(*(self._answer(client, places, question) for question in questions))

    async def _answer(
        self, client: openai.AsyncOpenAI, places: asyncio.Semaphore, question: Question
    ) -> Answer | Rejected:
        async with places:
            try:
                completion = await client.completions.create(
                    model=self._endpoint.model,
                    prompt=question.prompt.text,
                    max_tokens=self._settings.max_tokens,
                    temperature=question.temperature,
                    seed=self._settings.seed + question.number,
                )
            except openai.APIError as error:
                return rejected(question, f"{self._endpoint.base_url}: {reason(error)}")
        # A server that speaks something else (a proxy's page, another API) passes the client's checks.
        choices = getattr(completion, "choices", None)
        if not choices:
            return rejected(question, f"{self._endpoint.base_url}: answered, but not with a completion")
        output = self._tokens(question, choices[0].text, ended=choices[0].finish_reason == "stop")
        return answered(question, output) if output else rejected(question, "empty answer")

    def _tokens(self, question: Question, text: str, *, ended: bool) -> list[int]:
        """Ids of an answer, with the end of sequence if the server stopped there."""
        end = [self._tokenizer.eos_token_id] if ended else []
        prompt = list(question.prompt.tokens)
        whole = self._tokenizer(question.prompt.text + text)["input_ids"]
        # Some tokenizers write a text differently at its beginning, so it is read behind its prompt; unless the two
        # run together in a token, which the target, going on from the prompt's tokens, cannot have written.
        if whole[: len(prompt)] == prompt:
            return [*whole[len(prompt) :], *end]
        return [*self._tokenizer(text, add_special_tokens=False)["input_ids"], *end]
