"""What every teacher takes and gives back.

Nothing here imports JAX, so that ledgers can be read and runs replayed without it.
"""

from __future__ import annotations

import abc
import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, TypeVar

import numpy as np

from ioa_jax.errors import InputError, IOAError
from ioa_jax.rows import Count
from ioa_jax.thoughts import cut_thoughts

# Not Self: beartype, which checks annotations while the tests run, refuses it in a method.
AnyTeacher = TypeVar("AnyTeacher", bound="Teacher")

FinishReason = Literal["stop", "length", "filtered", "unknown"]

# Tokens that a chat template may add to a message or to the answer's header.
TEMPLATE_TOKENS = 16


class TeacherError(IOAError):
    """The teacher gave no usable answer, even after retries; the message says why."""

    exit_code = 5


@dataclasses.dataclass(frozen=True)
class ChatRequest:
    """One call of a teacher.

    Attributes:
        messages: Turns, each with `role` and `content`; the answer follows the last.
        purpose: What the answer is for, such as `synthesis`; spend is counted by it.
        seed: Another seed asks for another sample.
        answer_schema: JSON schema of the answer, which teachers are held to that can be
            (`Teacher.takes_schema`); the messages tell the form all the same.
    """

    messages: tuple[Mapping[str, str], ...]
    purpose: str
    seed: int = 0
    answer_schema: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not self.messages:
            raise InputError(f"request for {self.purpose!r}: messages is empty")
        for number, message in enumerate(self.messages, start=1):
            if set(message) != {"role", "content"}:
                raise InputError(
                    f"request for {self.purpose!r}: message {number} has the fields "
                    f"{sorted(message)}; it needs 'role' and 'content'"
                )


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How a teacher answers.

    Attributes:
        max_tokens: Tokens of an answer at most.
        temperature: 0 is greedy.
        top_p: Sample among the smallest set of tokens whose probability reaches this, in (0, 1].
        top_k: Sample among the k most likely tokens; 0 is no limit.
        stop: Texts that end an answer; they are not part of it.
        logprobs: Return the log-probability of each generated token.
    """

    max_tokens: int = 512
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    logprobs: bool = False

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise InputError(f"max_tokens={self.max_tokens}: at least 1")
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"temperature={self.temperature}: a finite number, at least 0")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p={self.top_p}: in (0, 1]")
        if self.top_k < 0:
            raise InputError(f"top_k={self.top_k}: at least 0 (0 is no limit)")
        if any(not text for text in self.stop):
            raise InputError("stop: an empty stop string would end every answer at once")


@dataclasses.dataclass(frozen=True)
class Completion:
    """An answer.

    Attributes:
        text: Without special tokens, cut before a stop string. Where the prompt ended inside a
            thought and that is known, with the tag that opened it.
        prompt_tokens: Tokens of the prompt as the teacher counts them.
        completion_tokens: Tokens that were generated: those of `text`, an ending token and, of a
            server that reasons out of sight, the hidden ones.
        finish_reason: `stop`, `length` (at the token limit), `filtered` (the server refused) or
            `unknown` (the server doesn't say that the answer is whole). Only with `stop` is it.
        logprobs: In nats, one a generated token, where they were asked for.
        served_by: What a server says answered, such as a dated version of the model.
        thought: What a server says that a reasoning model thought before; no part of `text`.
        left_out: Of what was asked for, the fields that the server wasn't sent, since it refuses
            them or the settings say so: `temperature`, `top_p`, `response_format`.
    """

    text: str
    prompt_tokens: Count
    completion_tokens: Count
    finish_reason: FinishReason
    logprobs: tuple[float, ...] | None = None
    served_by: str | None = None
    thought: str | None = None
    left_out: tuple[str, ...] = ()

    @property
    def answer(self) -> str | None:
        """The text without thoughts (`ioa_jax.thoughts`); None if one of them never ended."""
        return cut_thoughts(self.text).answer


@dataclasses.dataclass(frozen=True)
class TokenScores:
    """What a teacher thinks of a given completion.

    Attributes:
        logprobs: In nats, one a token of the completion, at temperature 1.
        is_greedy: Every token is the teacher's most likely one.
        prompt_tokens: What the call read: prompt and completion, and the prompt once more where a
            server had to be asked where it ends.
        completion_tokens: What the call generated: servers insist on a token a request.
    """

    logprobs: tuple[float, ...]
    is_greedy: bool
    prompt_tokens: Count
    completion_tokens: Count = 0


@dataclasses.dataclass(frozen=True)
class Capabilities:
    """What a teacher can do besides answering.

    Attributes:
        score: It can score given completions.
        embed: It gives its hidden states of texts.
    """

    score: bool
    embed: bool = False


OnCompletion = Callable[[int, Completion], None]
OnScores = Callable[[int, TokenScores], None]


class Teacher(abc.ABC):
    """A model that answers chats. Use it as a context manager, or close it."""

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Names the model and how it computes: part of a call's key in the ledger."""

    @property
    @abc.abstractmethod
    def capabilities(self) -> Capabilities:
        """What it can do; a server may be asked.

        Raises:
            TeacherError: The server can't be asked.
        """

    @property
    def takes_schema(self) -> bool:
        """Whether answers are held to a request's `answer_schema`, as far as a server does that."""
        return False

    @abc.abstractmethod
    def generate(
        self,
        requests: Sequence[ChatRequest],
        sampling: Sampling,
        on_completion: OnCompletion | None = None,
    ) -> list[Completion]:
        """Answer every request; results in input order.

        Args:
            requests: Any number.
            sampling: For all of them.
            on_completion: Called with (request index, completion) as each finishes, one after the
                other, from any thread. What it was called with holds even if a later request fails.

        Raises:
            InputError: A request can't be asked, such as one longer than the model's context.
            TeacherError: A request got no usable answer.
        """

    @abc.abstractmethod
    def score(
        self, pairs: Sequence[tuple[str, str]], on_scores: OnScores | None = None
    ) -> list[TokenScores]:
        """Score completions as `ioa_jax.models.text.encode_prompt_completion` splits them.

        Args:
            pairs: (prompt, completion); prompts are rendered chats, so that nothing is put before
                them.
            on_scores: Called with (pair index, scores) as each finishes, likewise.

        Raises:
            InputError: A completion is empty, or `capabilities.score` is false.
            TeacherError: A pair got no usable answer.
        """

    def score_bound(self, prompt: str, completion: str) -> tuple[int, int]:
        """Tokens that scoring a pair reads and generates at most."""
        return len((prompt + completion).encode()) + 1, 0

    @abc.abstractmethod
    def count_prompt_tokens(self, request: ChatRequest) -> int:
        """Tokens of a request's prompt: exact where the tokenizer is here, else an upper bound."""

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """A chat up to where its answer begins, as the text that `score` takes.

        Raises:
            InputError: The teacher's chat template isn't known here, or refuses the chat.
        """
        raise InputError(f"{self.fingerprint}: its chat template isn't known here")

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Mean of the last layer's hidden states over each text's tokens, [texts, D] float32.

        Raises:
            InputError: A text has no tokens or too many, or `capabilities.embed` is false.
        """
        raise InputError(f"{self.fingerprint}: it doesn't give hidden states")

    @abc.abstractmethod
    def close(self) -> None:
        """Give back what it holds."""

    def __enter__(self: AnyTeacher) -> AnyTeacher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def prompt_token_bound(request: ChatRequest) -> int:
    """Upper bound on a prompt's tokens, without its tokenizer.

    A token of a byte-level vocabulary covers at least one byte of the text; the template adds some.
    """
    text = sum(len(m["role"].encode()) + len(m["content"].encode()) for m in request.messages)
    if request.answer_schema is not None:
        # Some servers put it into the prompt.
        text += len(json.dumps(dict(request.answer_schema)).encode())
    return text + TEMPLATE_TOKENS * (len(request.messages) + 1)


def without_answer(completion: Completion) -> str:
    """Why an answer that ended at the token limit is empty, and what to do."""
    count = completion.completion_tokens
    if completion.thought or cut_thoughts(completion.text).thought.strip():
        return (
            f"the thoughts used all {count} tokens; raise max_tokens, or let the model think less"
        )
    return (
        f"all {count} tokens went by without an answer, as of a model that thinks first; raise "
        "max_tokens"
    )
