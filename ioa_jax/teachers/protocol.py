"""What servers answer in OpenAI's protocol, as far as it is read.

Chat completions, and text completions that echo their prompt with log-probabilities: as OpenAI
defined them, and with the field that vLLM adds.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ioa_jax.teachers.base import Completion, FinishReason

# Timeouts, conflicts and rate limits pass; servers' own errors (5xx) do too.
_PASSING_STATUS = (408, 409, 425, 429)
LONGEST_RETRY_AFTER = 3600.0


class _Answer(BaseModel):
    """Of bodies, what is read; servers add fields of their own."""

    model_config = ConfigDict(extra="ignore")


class _Usage(_Answer):
    prompt_tokens: int
    completion_tokens: int = 0


class _Message(_Answer):
    content: str | None = None
    refusal: str | None = None


class _ChatLogprob(_Answer):
    logprob: float


class _ChatLogprobs(_Answer):
    content: list[_ChatLogprob] | None = None


class _ChatChoice(_Answer):
    message: _Message
    finish_reason: str | None = None
    logprobs: _ChatLogprobs | None = None


class ChatBody(_Answer):
    """Of a chat completion."""

    choices: list[_ChatChoice] = Field(min_length=1)
    usage: _Usage
    model: str | None = None
    system_fingerprint: str | None = None


class _EchoLogprobs(_Answer):
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None = None


class _PromptLogprob(_Answer):
    logprob: float
    rank: int | None = None


class _TextChoice(_Answer):
    logprobs: _EchoLogprobs | None = None
    # vLLM's own: of each prompt token, by id, the asked number of likeliest tokens and itself.
    prompt_logprobs: list[dict[str, _PromptLogprob] | None] | None = None


class TextBody(_Answer):
    """Of a text completion."""

    choices: list[_TextChoice] = Field(min_length=1)
    usage: _Usage


def may_pass(error: Any) -> bool:
    """Whether another attempt may succeed."""
    if error.code == "insufficient_quota":
        return False
    return error.status_code in _PASSING_STATUS or error.status_code >= 500


def retry_after_seconds(headers: Any) -> float:
    """Seconds that the server asks to wait for; 0 if it asks for nothing that can be waited for."""
    try:
        seconds = float(headers.get("retry-after", 0))
    except ValueError:
        return 0.0
    return seconds if 0 < seconds <= LONGEST_RETRY_AFTER else 0.0


def read_completion(body: ChatBody, logprobs: bool) -> Completion:
    """The answer in a body; `logprobs`: they were asked for."""
    choice = body.choices[0]
    text = choice.message.content or ""
    reason: FinishReason = "length" if choice.finish_reason == "length" else "stop"
    if choice.message.refusal or choice.finish_reason == "content_filter":
        reason = "filtered"
        text = text or choice.message.refusal or ""
    values = choice.logprobs.content if choice.logprobs else None
    names = [name for name in (body.model, body.system_fingerprint) if name]
    return Completion(
        text,
        body.usage.prompt_tokens,
        body.usage.completion_tokens,
        reason,
        tuple(value.logprob for value in values) if logprobs and values is not None else None,
        " ".join(names) or None,
    )


def read_prompt_logprobs(choice: _TextChoice, count: int) -> list[tuple[float, bool]] | None:
    """(log-probability, most likely) of each prompt token; None if they aren't given.

    The first token, which nothing comes before, has 0.
    """
    tokens: list[tuple[float, bool]] = [(0.0, True)]
    if choice.prompt_logprobs is not None:
        for entry in choice.prompt_logprobs[1:count]:
            # With more than the one that was asked for, there's no telling which is the prompt's.
            if entry is None or len(entry) != 1:
                return None
            (value,) = entry.values()
            if value.rank is None:
                return None
            tokens.append((value.logprob, value.rank == 1))
    elif choice.logprobs is not None and choice.logprobs.top_logprobs is not None:
        given = zip(
            choice.logprobs.token_logprobs[1:count],
            choice.logprobs.top_logprobs[1:count],
            strict=False,
        )
        for logprob, top in given:
            if logprob is None or not top:
                return None
            tokens.append((logprob, logprob >= max(top.values())))
    return tokens if len(tokens) == count else None
