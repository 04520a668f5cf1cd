"""Settings of a teacher behind a server, and the fields that its chat calls have."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ioa_jax.teachers.base import Sampling
from ioa_jax.teachers.protocol import Fault

SAMPLING_FIELDS = ("temperature", "top_p")
FORMAT_FIELD = "response_format"
# OpenAI's reasoning models refuse temperature and top_p.
_SAMPLES_AS_IT_WILL = re.compile(r"(?:.*/)?(?:o\d|gpt-5(?!.*chat))(?:[.:-].*)?")
REFUSES_SAMPLING = re.compile("|".join(SAMPLING_FIELDS), re.IGNORECASE)
# Of a request that isn't as the server wants it; None is an error in a body without a status.
_BAD_REQUEST = (400, 422, 500, 501, None)


class OpenAISettings(BaseModel):
    """Settings of `openai:`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    api_key_variable: str = Field(
        default="OPENAI_API_KEY",
        description="Environment variable that holds the API key. The default's is sent to OpenAI "
        "alone: name it, or another, for another server that wants a key.",
    )
    concurrency: int = Field(default=8, ge=1, description="Calls at a time.")
    max_retries: int = Field(default=6, ge=0, description="Further attempts of a call that failed.")
    timeout_seconds: float = Field(default=600.0, gt=0, description="Wait for an answer at most.")
    backoff_seconds: float = Field(
        default=1.0,
        ge=0,
        description="Before the first retry; doubles with each, up to a minute.",
    )
    requests_per_minute: float | None = Field(default=None, gt=0, description="None is no limit.")
    tokens_per_minute: float | None = Field(
        default=None,
        gt=0,
        description="Prompt (estimated) and max_tokens; None is no limit.",
    )
    max_tokens_field: Literal["auto", "max_tokens", "max_completion_tokens"] = Field(
        default="auto",
        description="What the server calls the limit; auto: max_completion_tokens for OpenAI's "
        "own, max_tokens for others.",
    )
    sends_sampling: bool | Literal["auto"] = Field(
        default="auto",
        description="Send temperature and top_p, which some models refuse; auto: but for OpenAI's "
        "reasoning models, and until a server refuses them.",
    )
    structured: Literal["auto", "off"] = Field(
        default="auto",
        description="Send the JSON schema of answers that have one (response_format); auto: until "
        "the server refuses it.",
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict[str, Any],
        description="Further fields of each chat call, such as reasoning_effort.",
    )
    fingerprint: str | None = Field(
        default=None,
        description="Name of the model in the ledger, for one that is served under several "
        "addresses; None: model, address and extra_body.",
    )
    chat_template_from: str | None = Field(
        default=None,
        description="Directory or hub id of a tokenizer with the server's chat template; needed to "
        "score answers to chats.",
    )


class ChatFields:
    """What each chat call says of its answer, without what the server turned out to refuse.

    Threads may share it.

    Attributes:
        limit: What the server calls the limit of tokens.
    """

    def __init__(self, model: str, is_openai: bool, settings: OpenAISettings) -> None:
        """As the settings say.

        Args:
            model: Its name on the server.
            is_openai: The server is OpenAI's own.
            settings: Settings.
        """
        self.limit = settings.max_tokens_field
        if self.limit == "auto":
            self.limit = "max_completion_tokens" if is_openai else "max_tokens"
        self._settings = settings
        sends = settings.sends_sampling
        if sends == "auto":
            sends = _SAMPLES_AS_IT_WILL.fullmatch(model) is None
        self._refused = frozenset[str]() if sends else frozenset(SAMPLING_FIELDS)

    def fields(
        self, sampling: Sampling, answer_schema: Mapping[str, Any] | None
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The fields of a call, and the names of those that it lacks."""
        wanted: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
        if answer_schema is not None and self._settings.structured == "auto":
            schema = {"name": "answer", "schema": dict(answer_schema)}
            wanted[FORMAT_FIELD] = {"type": "json_schema", "json_schema": schema}
        refused = self._refused
        sent = {name: value for name, value in wanted.items() if name not in refused}
        sent[self.limit] = sampling.max_tokens
        if sampling.stop:
            sent["stop"] = list(sampling.stop)
        if sampling.logprobs:
            sent["logprobs"] = True
        return sent, tuple(name for name in wanted if name in refused)

    def leave_out(self, fault: Fault, sent: Collection[str]) -> tuple[str, ...]:
        """Leave out from now on what a refusal is about, if it can be done without.

        Args:
            fault: No further attempt can cure it.
            sent: Names of the call's fields.

        Returns:
            Their names; none if all the call's fields are needed.
        """
        names: tuple[str, ...] = ()
        if self._settings.sends_sampling == "auto" and REFUSES_SAMPLING.search(fault.reason):
            names = tuple(name for name in SAMPLING_FIELDS if name in sent)
        # Servers have many words for a form that they don't know: whether it was that, is tried.
        if not names and FORMAT_FIELD in sent and fault.status in _BAD_REQUEST:
            names = (FORMAT_FIELD,)
        self._refused |= frozenset(names)
        return names
