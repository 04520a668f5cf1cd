"""A teacher behind a server that speaks OpenAI's protocol, such as vLLM's."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import importlib
import json
import logging
import os
import random
import socket
import threading
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ioa_jax.errors import InputError, IOAError, MissingDependencyError
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
from ioa_jax.teachers.chat_fields import (
    DEFAULT_KEY_VARIABLE,
    REFUSES_SAMPLING,
    ChatFields,
    OpenAISettings,
)
from ioa_jax.teachers.pacing import Pacer
from ioa_jax.teachers.protocol import (
    MOST_BEYOND_LIMIT,
    ChatBody,
    Fault,
    TextBody,
    http_fault,
    prompt_span,
    prompt_tokens,
    read_body,
    read_completion,
    read_prompt_logprobs,
)

log = logging.getLogger(__name__)

OPENAI_HOST = "api.openai.com"
NO_KEY = "none"
MAX_BACKOFF_SECONDS = 60.0
BYTES_PER_TOKEN = 4  # of English text, for pacing alone
# A server that refuses the key, or whoever has it; it may have the endpoint all the same.
_NO_ACCESS = (401, 402, 403, 407)
_RATE_LIMIT = 429

Result = TypeVar("Result")
Read = TypeVar("Read")


class _NoPromptLogprobs(TeacherError):
    """The server doesn't score given texts."""


class _Refused(TeacherError):
    """The server refuses a request for good.

    Attributes:
        fault: Why.
    """

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message)
        self.fault = fault


class _Filtered(Exception):
    """The server's filter refused a request."""


class _BrokenText(TeacherError):
    """The server generated a text that it can't send."""


class _Stopped(Exception):
    """Another call failed, so that this one isn't tried again."""


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
        self._key = self._read_key()
        self._openai = _import_openai()
        # Retries are ours: the client knows nothing of broken bodies or of the other threads.
        self._client = self._openai.OpenAI(
            api_key=self._key,
            base_url=self.base_url,
            timeout=self.settings.timeout_seconds,
            max_retries=0,
        )
        self._fields = ChatFields(model, self._is_openai, self.settings)
        self._heard = False  # anything, so far
        self._told: set[str] = set()
        self._turned_away = 0
        self._lock = threading.Lock()
        self._requests = Pacer(self.settings.requests_per_minute)
        self._tokens = Pacer(self.settings.tokens_per_minute)

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
        except _NoPromptLogprobs:
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
        # The protocol has no top_k; vLLM and others take it as a field of their own.
        extra = {"top_k": sampling.top_k} if sampling.top_k else {}
        extra |= self.settings.extra_body

        def call(index: int, stop: threading.Event) -> Completion:
            request = requests[index]
            what = f"request {index} for {request.purpose!r}"
            most = prompt_token_bound(request)
            asked = sum(len(m["content"].encode()) for m in request.messages) / BYTES_PER_TOKEN

            def read(content: bytes) -> Completion:
                body = read_body(content, ChatBody)
                found = read_completion(body, sampling.logprobs, most, sampling.max_tokens)
                if found.bounded:
                    self._tell(
                        "usage",
                        "the server doesn't tell how many tokens it used; upper bounds are booked",
                    )
                return found.completion

            def send(fields: dict[str, Any]) -> Any:
                return self._client.chat.completions.with_raw_response.create(
                    model=self.model,
                    messages=[dict(message) for message in request.messages],
                    seed=request.seed,
                    extra_body=extra,
                    **fields,
                )

            def attempt() -> Completion:
                fields, left_out = self._fields.fields(sampling, request.answer_schema)
                tokens = asked + sampling.max_tokens
                try:
                    found = self._ask(lambda: send(fields), read, what, tokens, stop)
                except _Refused as refusal:
                    names = " and ".join(self._fields.leave_out(refusal.fault, fields))
                    if not names:
                        raise
                    said = self._without_key(refusal.fault.reason)
                    self._tell(names, f"{what}: {said}; asking without {names} from now on")
                    return attempt()
                return dataclasses.replace(found, left_out=left_out)

            try:
                completion = attempt()
            except _Filtered as filtered:
                return Completion(str(filtered), most, 0, "filtered")
            except _BrokenText as broken:
                self._tell("broken text", f"{broken}; it counts as cut at the limit")
                return Completion("", most, sampling.max_tokens, "length")
            if completion.completion_tokens > sampling.max_tokens + MOST_BEYOND_LIMIT:
                raise TeacherError(
                    f"{self._name}: {what}: the server generated {completion.completion_tokens} "
                    f"tokens although {self._fields.limit} was {sampling.max_tokens}, so no budget "
                    "could be kept; set max_tokens_field to the name that it heeds"
                )
            if completion.finish_reason == "length" and not (completion.answer or "").strip():
                self._tell(
                    "empty",
                    f"{what}: {without_answer(completion)}; extra_body may tell a server how much "
                    "to think, as by reasoning_effort",
                )
            return completion

        return self._run(len(requests), call, on_completion)

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

        return self._run(len(pairs), call, on_scores)

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
            return transformers.AutoTokenizer.from_pretrained(name)
        # transformers reports bad names and files by these.
        except (OSError, ValueError) as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise InputError(f"chat_template_from={name!r}: {reason}") from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def _name(self) -> str:
        return f"{self.model} at {self.base_url}"

    def _read_key(self) -> str:
        variable = self.settings.api_key_variable
        key = os.environ.get(variable, "")
        if not key and (self._is_openai or variable != DEFAULT_KEY_VARIABLE):
            raise InputError(f"{self._name} needs an API key: set the variable {variable}")
        # Servers of one's own often want none, but the client insists on one.
        return key or NO_KEY

    def _count_tokens(self, text: str, what: str, stop: threading.Event) -> int:
        count = self._ask(
            lambda: self._client.completions.with_raw_response.create(
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
            raise _NoPromptLogprobs(f"{self._name}: {what}: the answer doesn't tell its tokens")
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

        count, tokens, start = self._ask(
            lambda: self._client.completions.with_raw_response.create(
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
            raise _NoPromptLogprobs(
                f"{self._name}: {what}: the answer has no log-probabilities of the prompt, or none "
                "that are numbers; to score, serve the model with vLLM or another server that "
                "echoes them"
            )
        return count, tokens, start

    def _run(
        self,
        count: int,
        call: Callable[[int, threading.Event], Result],
        on_result: Callable[[int, Result], None] | None,
    ) -> list[Result]:
        """Call for every index in threads; results come to this one, in any order."""
        results: dict[int, Result] = {}
        stop = threading.Event()
        with concurrent.futures.ThreadPoolExecutor(self.settings.concurrency) as pool:
            pending = {pool.submit(call, index, stop): index for index in range(count)}

            def take(future: concurrent.futures.Future[Result]) -> None:
                index = pending.pop(future)
                results[index] = future.result()
                if on_result is not None:
                    on_result(index, results[index])

            try:
                for future in concurrent.futures.as_completed(list(pending)):
                    take(future)
            except BaseException:
                # An interrupt too: what is under way is paid for, so it is awaited and kept.
                stop.set()
                for future in pending:
                    future.cancel()
                for future in list(pending):
                    if not future.cancelled() and future.exception() is None:
                        # One that can't be kept doesn't keep the others from being.
                        try:
                            take(future)
                        except IOAError as error:
                            log.error("%s: %s", self._name, error)
                raise
            finally:
                self._tell_turned_away()
        return [results[index] for index in range(count)]

    def _ask(
        self,
        send: Callable[[], Any],
        read: Callable[[bytes], Read],
        what: str,
        tokens: float,
        stop: threading.Event,
        unsupported: bool = False,
    ) -> Read:
        """What an answer says, after as many attempts as it takes.

        Args:
            send: Makes the call.
            read: Reads the body; its `Fault`s count as the server's.
            what: Of the call, for messages.
            tokens: What it counts against the rate limit.
            stop: Ends waiting.
            unsupported: A refusal of the request means that the server can't score.

        Raises:
            TeacherError: The server refused, or no attempt succeeded.
        """
        attempts = self.settings.max_retries + 1
        fault = Fault("", passing=True)
        for attempt in range(1, attempts + 1):
            self._wait(max(self._requests.reserve(), self._tokens.reserve(tokens)), stop)
            try:
                found = read(send().content)
                self._heard = True
                return found
            except Fault as error:
                self._heard, fault = True, error
            except self._openai.APIStatusError as error:
                self._heard = True
                fault = http_fault(error.status_code, error.response.content, _lower(error))
            except self._openai.APIConnectionError as error:
                fault = self._connection_fault(error)
            if fault.filtered and not unsupported:
                raise _Filtered(self._without_key(fault.reason))
            if fault.broken_text and not unsupported:
                said = self._without_key(fault.reason)
                raise _BrokenText(f"{self._name}: {what}: the answer has no text: {said}")
            reason = self._reason(fault)
            if not fault.passing:
                if unsupported and self._heard and fault.status not in _NO_ACCESS:
                    raise _NoPromptLogprobs(f"{self._name}: {what}: {reason}")
                raise _Refused(f"{self._name}: {what}: {reason}", fault)
            if attempt < attempts:
                backoff = self.settings.backoff_seconds * 2 ** (attempt - 1)
                # Apart from each other, or all threads would come back at once.
                pause = min(backoff, MAX_BACKOFF_SECONDS) * random.uniform(0.5, 1.0)
                if fault.wait:
                    self._requests.hold(fault.wait)
                if fault.status == _RATE_LIMIT:
                    with self._lock:
                        self._turned_away += 1
                else:
                    log.warning("%s: %s: %s; trying again", self._name, what, reason)
                self._wait(max(pause, fault.wait), stop)
        raise TeacherError(
            f"{self._name}: {what}: no usable answer after {attempts} attempts, lastly "
            f"{self._reason(fault)}; answers before it are kept, so run again when the server is "
            "well"
        )

    def _connection_fault(self, error: Any) -> Fault:
        """Of a connection that failed: one that never worked is most likely a wrong address."""
        # The client's own message says only that there was one.
        reason = f"{type(error).__name__}: {error.__cause__ or error}"
        causes: list[BaseException] = [error]
        while len(causes) < 10 and (cause := causes[-1].__cause__ or causes[-1].__context__):
            causes.append(cause)
        unreachable = any(
            isinstance(one, ConnectionRefusedError | socket.gaierror) for one in causes
        )
        if unreachable and not self._heard:
            return Fault(
                f"nothing answers at this address ({reason}); start the server, or correct the "
                "address",
                passing=False,
            )
        return Fault(reason, passing=True)

    def _reason(self, fault: Fault) -> str:
        """What is wrong, and the setting that may mend it."""
        reason = self._without_key(fault.reason)
        if fault.status in (401, 403):
            variable = self.settings.api_key_variable
            said = "holds the key that was sent" if self._key != NO_KEY else "isn't set"
            reason += f"; the environment variable {variable} (api_key_variable) {said}"
        elif (
            self.settings.sends_sampling is True
            and not fault.passing
            and REFUSES_SAMPLING.search(reason)
        ):
            reason += "; set sends_sampling to false, so that temperature and top_p are left out"
        return reason

    def _without_key(self, text: str) -> str:
        # Some servers quote the key that they refuse.
        return text if self._key == NO_KEY else text.replace(self._key, "<key>")

    def _tell(self, kind: str, text: str) -> None:
        """Log what holds for many calls, once."""
        with self._lock:
            if kind in self._told:
                return
            self._told.add(kind)
        log.warning("%s: %s", self._name, text)

    def _tell_turned_away(self) -> None:
        with self._lock:
            count, self._turned_away = self._turned_away, 0
        if count:
            log.warning(
                "%s: %d call%s turned away by the rate limit (status 429), and asked again",
                self._name,
                count,
                " was" if count == 1 else "s were",
            )

    def _wait(self, seconds: float, stop: threading.Event) -> None:
        if stop.wait(seconds):
            raise _Stopped


def _lower(error: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in error.response.headers.items()}


def _import_openai() -> Any:
    try:
        return importlib.import_module("openai")
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "teachers behind a server need the package openai; get it with: "
            'pip install "ioa-jax[openai]"'
        ) from None
