"""A teacher that this project's own engine runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ioa_jax.engine import generation
from ioa_jax.engine.batching import TokenPair
from ioa_jax.engine.embedding import embed_texts
from ioa_jax.engine.generation import Generator
from ioa_jax.engine.sampling import SamplingParams
from ioa_jax.engine.scoring import Score, Scorer
from ioa_jax.errors import InputError
from ioa_jax.models.load import LanguageModel, load_model
from ioa_jax.models.precision import PrecisionName
from ioa_jax.models.text import encode_prompt_completion, render_chat, thought_opening
from ioa_jax.teachers.base import (
    Capabilities,
    ChatRequest,
    Completion,
    OnCompletion,
    OnScores,
    Sampling,
    Teacher,
    TokenScores,
)


class LocalSettings(BaseModel):
    """Settings of `jax:`, `gguf:` and `smollm2`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    precision: PrecisionName = Field(default="bfloat16", description="Of weights and products.")
    batch_size: int = Field(default=32, ge=1, description="Answers that are generated together.")


class LocalTeacher(Teacher):
    """Generates and scores with the JAX engine.

    Attributes:
        model: The model.
    """

    def __init__(self, model: LanguageModel, batch_size: int = 32) -> None:
        """Prepare.

        Args:
            model: Its tokenizer has a chat template if chats are to be answered.
            batch_size: Rows that decode together.
        """
        self.model = model
        self._generator = Generator(model, batch_size)
        self._scorer = Scorer(model)

    @classmethod
    def open(cls, spec: str, settings: LocalSettings) -> LocalTeacher:
        """Load a model; errors as of `ioa_jax.models.load.load_model`."""
        model = load_model(spec, settings.precision, dtype=settings.precision)
        return cls(model, settings.batch_size)

    @property
    def fingerprint(self) -> str:
        """Of weights and tokenizer, with the arithmetic, which changes answers too."""
        return f"jax:{self.model.fingerprint}:{self.model.decoder.precision.operand}"

    @property
    def capabilities(self) -> Capabilities:
        """Everything."""
        return Capabilities(score=True, embed=True)

    def generate(
        self,
        requests: Sequence[ChatRequest],
        sampling: Sampling,
        on_completion: OnCompletion | None = None,
    ) -> list[Completion]:
        """As `Teacher.generate`, all requests in one run of full batches.

        A request draws the same samples whatever is asked beside it; only the last bits of its
        logits depend on that.
        """
        prompts = [self._prompt(index, request) for index, request in enumerate(requests)]
        params = SamplingParams(
            sampling.max_tokens,
            sampling.temperature,
            sampling.top_k,
            sampling.top_p,
            sampling.stop,
        )

        opening = thought_opening(self.model.tokenizer) if prompts else ""

        def finish(index: int, completion: generation.Completion) -> None:
            if on_completion is not None:
                on_completion(index, _completion(completion, opening, sampling.logprobs))

        completions = self._generator.generate(
            prompts, params, on_completion=finish, streams=[_stream(one) for one in requests]
        )
        return [_completion(one, opening, sampling.logprobs) for one in completions]

    def score(
        self, pairs: Sequence[tuple[str, str]], on_scores: OnScores | None = None
    ) -> list[TokenScores]:
        """As `Teacher.score`, in packed batches."""
        encoded: list[TokenPair] = []
        for index, (prompt, completion) in enumerate(pairs):
            try:
                split = encode_prompt_completion(
                    self.model.tokenizer, prompt, completion, rendered=True
                )
            except InputError as error:
                raise InputError(f"pair {index}: {error}") from None
            encoded.append(TokenPair(tuple(split[0]), tuple(split[1])))
        scores: dict[int, TokenScores] = {}

        def finish(index: int, score: Score) -> None:
            pair = encoded[index]
            read = len(pair.prompt) + len(pair.completion)
            scores[index] = TokenScores(score.token_logprobs, score.is_greedy, read)
            if on_scores is not None:
                on_scores(index, scores[index])

        self._scorer.score_tokens(encoded, on_score=finish)
        return [scores[index] for index in range(len(pairs))]

    def count_prompt_tokens(self, request: ChatRequest) -> int:
        """Exact."""
        return len(self._prompt(0, request))

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """By the tokenizer's chat template."""
        return render_chat(self.model.tokenizer, messages)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """As `Teacher.embed`, in batches of texts of similar length."""
        return embed_texts(self.model, texts)

    def close(self) -> None:
        """Nothing to do: the arrays go with the model."""

    def _prompt(self, index: int, request: ChatRequest) -> tuple[int, ...]:
        try:
            text = render_chat(self.model.tokenizer, request.messages)
        except InputError as error:
            raise InputError(f"request {index} for {request.purpose!r}: {error}") from None
        return tuple(self.model.tokenizer(text, add_special_tokens=False)["input_ids"])


def _stream(request: ChatRequest) -> int:
    """Number of a request's random stream, from its seed and its messages."""
    content = [request.seed, [dict(message) for message in request.messages]]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1


def _completion(completion: generation.Completion, opening: str, logprobs: bool) -> Completion:
    return Completion(
        opening + completion.text,
        completion.prompt_tokens,
        len(completion.tokens),
        completion.finish_reason,
        completion.logprobs if logprobs else None,
    )
