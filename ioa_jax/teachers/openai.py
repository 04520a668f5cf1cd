"""A teacher behind a server that speaks OpenAI's protocol, such as vLLM's."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import ipaddress
import json
import logging
import os
import re
import threading
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from ioa_jax.errors import InputError
from ioa_jax.teachers.base import (
    Capabilities,
    ChatRequest,
    Completion,
    OnCompletion,
    OnScores,
    Sampling,
    Teacher,
    TeacherError,
    TokenScores,
    prompt_token_bound,
    without_answer,
)
from ioa_jax.teachers.chat_fields import ChatFields, OpenAISettings
from ioa_jax.teachers.protocol import (
    MOST_BEYOND_LIMIT,
    ChatBody,
    TextBody,
    prompt_span,
    prompt_tokens,
    read_body,
    read_completion,
    read_prompt_logprobs,
)
from ioa_jax.teachers.server import BrokenText, Filtered, NoPromptLogprobs, Refused, Server

log = logging.getLogger(__name__)

OPENAI_HOST = "api.openai.com"
# What a header can hold of a token (RFC 6750 has fewer).
_KEY = re.compile(r"[!-~]+")
BYTES_PER_TOKEN = 4  # of English text, for pacing alone


class OpenAITeacher(Teacher):
    """Calls a server, several requests at a time.

    What may pass is tried again with growing pauses: connections that are cut, timeouts, status
    408, 409, 425, 429 and 5xx, errors of their kind in bodies, answers that the server broke off,
    and bodies that aren't JSON. What no further attempt can cure ends the run at once: refusals,
    bodies of another shape, and a server that nothing was ever heard from.

    An answer that a server cuts inside a character is one that ended at the limit, whether the
    server finishes the character, drops it or fails to send the text.

    Attributes:
        model: Its name on the server.
        base_url: The server's address, with the version's path.
        settings: Settings.
    """

    def __init__(self, model: str, base_url: str, settings: OpenAISettings | None = None) -> None:
        """Prepare; nothing is sent yet.

        Raises:
            InputError: The address isn't one of http, holds credentials, or needs a key that the
                environment lacks.
            MissingDependencyError: The package openai isn't installed.
        """
        self.model = model
        self.base_url = base_url.rstrip("/")
        self.settings = settings or OpenAISettings.model_validate({})
        address = urllib.parse.urlsplit(self.base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise InputError(f"base URL {base_url!r}: has to begin with http:// or https://")
        if address.username or address.password or address.query:
            raise InputError(
                f"base URL of {address.hostname}: holds credentials or a query, which would be "
                "recorded; put the key in an environment variable and name it in api_key_variable"
            )
        self._is_openai = address.hostname == OPENAI_HOST
        if self._is_openai and address.scheme != "https":
            raise InputError(f"base URL {base_url!r}: has to begin with https://")
        key = self._read_key(address.scheme == "https")
        self._server = Server(model, self.base_url, key, self.settings)
        self._fields = ChatFields(model, self._is_openai, self.settings)

    @property
    def fingerprint(self) -> str:
        """Model, address and a hash of `extra_body`, unless the settings name it."""
        if self.settings.fingerprint is not None:
            return self.settings.fingerprint
        name = f"openai:{self.model}@{self.base_url}"
        if not self.settings.extra_body:
            return name
        extra = json.dumps(self.settings.extra_body, sort_keys=True)
        return f"{name}#{hashlib.sha256(extra.encode()).hexdigest()[:16]}"

    @functools.cached_property
    def _capabilities(self) -> Capabilities:
        text = "a b"
        if self.settings.chat_template_from is not None:
            # Some servers echo no special tokens.
            text = self.render([{"role": "user", "content": "a"}]) + text
        try:
            self._prompt_logprobs(text, 1, "the question whether it scores", threading.Event())
        except NoPromptLogprobs:
            return Capabilities(score=False)
        return Capabilities(score=True)

    @property
    def capabilities(self) -> Capabilities:
        """Whether the server gives log-probabilities of prompts: asked with one short call.

        Of chats, where their template is known.
        """
        return self._capabilities

    @property
    def takes_schema(self) -> bool:
        """Unless the settings say otherwise; what a server refuses is in `Completion.left_out`."""
        return self.settings.structured == "auto"

    def generate(
        self,
        requests: Sequence[ChatRequest],
        sampling: Sampling,
        on_completion: OnCompletion | None = None,
    ) -> list[Completion]:
        """As `Teacher.generate`; when a request fails for good, running ones are still awaited."""

        def call(index: int, stop: threading.Event) -> Completion:
            what = f"request {index} for {requests[index].purpose!r}"
            return self._complete(requests[index], sampling, what, stop)

        return self._server.run(len(requests), call, on_completion)

    def _complete(
        self, request: ChatRequest, sampling: Sampling, what: str, stop: threading.Event
    ) -> Completion:
        """One answer that keeps to the budget; `what` names the request in messages."""
        try:
            completion = self._attempt(request, sampling, what, stop)
        except Filtered as filtered:
            return Completion(str(filtered), prompt_token_bound(request), 0, "filtered")
        except BrokenText as broken:
            self._server.tell("broken text", f"{broken}; it counts as cut at the limit")
            return Completion("", prompt_token_bound(request), sampling.max_tokens, "length")
        if completion.completion_tokens > sampling.max_tokens + MOST_BEYOND_LIMIT:
            raise TeacherError(
                f"{self._server.name}: {what}: the server generated {completion.completion_tokens} "
                f"tokens although {self._fields.limit} was {sampling.max_tokens}, so no budget "
                "could be kept; set max_tokens_field to the name that it heeds"
            )
        if completion.finish_reason == "length" and not (completion.answer or "").strip():
            self._server.tell(
                "empty",
                f"{what}: {without_answer(completion)}; extra_body may tell a server how much to "
                "think, as by reasoning_effort",
            )
        return completion

    def _attempt(
        self, request: ChatRequest, sampling: Sampling, what: str, stop: threading.Event
    ) -> Completion:
        """An answer, without the fields that the server refuses."""
        most = prompt_token_bound(request)
        asked = sum(len(m["content"].encode()) for m in request.messages) / BYTES_PER_TOKEN
        # The protocol has no top_k; vLLM and others take it as a field of their own.
        extra = {"top_k": sampling.top_k} if sampling.top_k else {}
        extra |= self.settings.extra_body
        fields, left_out = self._fields.fields(sampling, request.answer_schema)

        def read(content: bytes) -> Completion:
            body = read_body(content, ChatBody)
            found = read_completion(body, sampling.logprobs, most, sampling.max_tokens)
            if found.bounded:
                self._server.tell(
                    "usage",
                    "the server doesn't tell how many tokens it used; upper bounds are booked",
                )
            return found.completion

        def send() -> Any:
            return self._server.client.chat.completions.with_raw_response.create(
                model=self.model,
                messages=[dict(message) for message in request.messages],
                seed=request.seed,
                extra_body=extra,
                **fields,
            )

        try:
            found = self._server.ask(send, read, what, asked + sampling.max_tokens, stop)
        except Refused as refusal:
            names = " and ".join(self._fields.leave_out(refusal.fault, fields))
            if not names:
                raise
            said = self._server.without_key(refusal.fault.reason)
            self._server.tell(names, f"{what}: {said}; asking without {names} from now on")
            return self._attempt(request, sampling, what, stop)
        return dataclasses.replace(found, left_out=left_out)

    def score(
        self, pairs: Sequence[tuple[str, str]], on_scores: OnScores | None = None
    ) -> list[TokenScores]:
        """As `Teacher.score`, by the completions endpoint's echo.

        A completion begins at the token that reaches beyond the prompt, where the server says where
        tokens stand in the text; else behind as many tokens as the prompt has alone.

        Raises:
            InputError: A prompt or completion is empty, or a completion has no token of its own.
            TeacherError: The server gives no log-probabilities of prompts, or a pair got none.
        """
        for index, (prompt, completion) in enumerate(pairs):
            if not completion:
                raise InputError(f"pair {index}: the completion is empty")
            if not prompt.strip():
                raise InputError(
                    f"pair {index}: the prompt is empty; a server scores only what follows a token"
                )
        counts: dict[str, int] = {}

        def call(index: int, stop: threading.Event) -> TokenScores:
            prompt, completion = pairs[index]
            what = f"pair {index}"
            stripped = prompt.rstrip()
            count, tokens, start = self._prompt_logprobs(
                prompt + completion, len(stripped), what, stop
            )
            asked = 0
            if start is None:
                if stripped not in counts:
                    asked = counts[stripped] = self._count_tokens(stripped, what, stop)
                start = counts[stripped]
            # Of the text's first token, which nothing comes before, there is no probability.
            scored = tokens[start:] if start else []
            if not scored:
                raise InputError(
                    f"{what}: the completion has no token of its own after the prompt; start it "
                    "where a token starts"
                )
            return TokenScores(
                tuple(logprob for logprob, _ in scored),
                all(greedy for _, greedy in scored),
                count + asked,
                2 if asked else 1,
            )

        return self._server.run(len(pairs), call, on_scores)

    def score_bound(self, prompt: str, completion: str) -> tuple[int, int]:
        """Of both requests that a pair may take, with a token that each has to generate."""
        read, _ = super().score_bound(prompt, completion)
        return read + len(prompt.encode()) + 1, 2

    def count_prompt_tokens(self, request: ChatRequest) -> int:
        """An upper bound: the tokenizer is with the server."""
        return prompt_token_bound(request)

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """By the chat template of the tokenizer that `chat_template_from` names.

        Raises:
            InputError: It names none, or one that can't be found.
        """
        # It imports transformers, which answering alone doesn't need.
        from ioa_jax.models.text import render_chat

        return render_chat(self._tokenizer, messages)

    @functools.cached_property
    def _tokenizer(self) -> Any:
        name = self.settings.chat_template_from
        if name is None:
            raise InputError(
                f"{self.fingerprint}: to score answers to chats, set chat_template_from to a "
                "directory or hub id with the tokenizer of the server's model"
            )
        transformers: Any = importlib.import_module("transformers")
        try:
            return transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        # transformers reports bad names and files by these.
        except (OSError, ValueError) as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise InputError(f"chat_template_from={name!r}: {reason}") from error

    def close(self) -> None:
        """Close the connections."""
        self._server.client.close()

    def _read_key(self, is_encrypted: bool) -> str:
        """The key for this server; empty if it gets none.

        The default variable's is OpenAI's: another server gets it only if the settings name it.
        """
        variable = self.settings.api_key_variable
        is_named = "api_key_variable" in self.settings.model_fields_set
        if not self._is_openai and not is_named:
            if os.environ.get(variable):
                log.warning(
                    "%s at %s: %s isn't sent to a server other than %s; if it is this server's "
                    "key, set api_key_variable to its variable",
                    self.model, self.base_url, variable, OPENAI_HOST,
                )  # fmt: skip
            return ""
        key = os.environ.get(variable, "").strip()
        if not key:
            raise InputError(
                f"{self.model} at {self.base_url} needs an API key: set the variable {variable}"
            )
        if not _KEY.fullmatch(key):
            raise InputError(
                f"the environment variable {variable} holds no API key: there are spaces, line "
                "ends or other characters in it that no header takes"
            )
        if not is_encrypted and not _is_loopback(self.base_url):
            log.warning(
                "%s at %s: the key in %s goes over the network unencrypted", self.model,
                self.base_url, variable,
            )  # fmt: skip
        return key

    def _count_tokens(self, text: str, what: str, stop: threading.Event) -> int:
        count = self._server.ask(
            lambda: self._server.client.completions.with_raw_response.create(
                model=self.model,
                prompt=text,
                max_tokens=1,
                temperature=0.0,
                extra_body={"add_special_tokens": False},
            ),
            lambda content: prompt_tokens(read_body(content, TextBody)),
            what,
            len(text.encode()) / BYTES_PER_TOKEN,
            stop,
        )
        if count is None:
            raise NoPromptLogprobs(
                f"{self._server.name}: {what}: the answer doesn't tell its tokens"
            )
        return count

    def _prompt_logprobs(
        self, text: str, end: int, what: str, stop: threading.Event
    ) -> tuple[int, list[tuple[float, bool]], int | None]:
        """What a text's tokens are worth.

        One request suits both kinds of server: those that echo the prompt with log-probabilities,
        and vLLM, whose own field gives ranks too. The one token that has to be generated is left.

        Returns:
            The number of tokens that the server read; (log-probability, most likely) of each of the
            text's; and how many of these end within its first `end` characters, None where the
            server doesn't tell.
        """

        def read(
            content: bytes,
        ) -> tuple[int | None, list[tuple[float, bool]] | None, int | None]:
            body = read_body(content, TextBody)
            told = prompt_tokens(body)
            start, count = prompt_span(body.choices[0], text, end) or (None, told)
            if told not in (None, count):
                # It read tokens that it doesn't echo.
                start, count = None, told
            found = None if count is None else read_prompt_logprobs(body.choices[0], count)
            return count, found, start

        count, tokens, start = self._server.ask(
            lambda: self._server.client.completions.with_raw_response.create(
                model=self.model,
                prompt=text,
                max_tokens=1,
                temperature=0.0,
                echo=True,
                logprobs=1,
                extra_body={"prompt_logprobs": 0, "add_special_tokens": False},
            ),
            read,
            what,
            len(text.encode()) / BYTES_PER_TOKEN,
            stop,
            unsupported=True,
        )
        if count is None or tokens is None:
            raise NoPromptLogprobs(
                f"{self._server.name}: {what}: the answer has no log-probabilities of the prompt, "
                "or none that are numbers; to score, serve the model with vLLM or another server "
                "that echoes them"
            )
        return count, tokens, start


def _is_loopback(url: str) -> bool:
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
