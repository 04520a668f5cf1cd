"""Calls to a server, tried again where that may help, several at a time."""

from __future__ import annotations

import concurrent.futures
import importlib
import logging
import random
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ioa_jax.errors import InputError, MissingDependencyError
from ioa_jax.teachers.base import TeacherError
from ioa_jax.teachers.chat_fields import REFUSES_SAMPLING, OpenAISettings
from ioa_jax.teachers.pacing import Pacer
from ioa_jax.teachers.protocol import Fault, http_fault

log = logging.getLogger(__name__)

NO_KEY = "none"
MAX_BACKOFF_SECONDS = 60.0
# A server that refuses the key, or whoever has it; it may have the endpoint all the same.
_NO_ACCESS = (401, 402, 403, 407)
_RATE_LIMIT = 429

Result = TypeVar("Result")
Read = TypeVar("Read")


class NoPromptLogprobs(TeacherError):
    """The server doesn't score given texts."""


class Refused(TeacherError):
    """The server refuses a request for good.

    Attributes:
        fault: Why.
    """

    def __init__(self, message: str, fault: Fault) -> None:
        super().__init__(message)
        self.fault = fault


class Filtered(Exception):
    """The server's filter refused a request."""


class BrokenText(TeacherError):
    """The server generated a text that it can't send."""


class _Stopped(Exception):
    """Another call failed, so that this one isn't tried again."""


class Server:
    """A server of OpenAI's protocol, and what was heard of it.

    Attributes:
        client: The package's, whose calls `ask` makes.
        name: For messages.
    """

    def __init__(self, model: str, base_url: str, key: str, settings: OpenAISettings) -> None:
        """Prepare; nothing is sent yet.

        Args:
            model: Its name on the server.
            base_url: The server's address, with the version's path.
            key: To be sent; empty where the server wants none.
            settings: Settings.

        Raises:
            MissingDependencyError: The package openai isn't installed.
        """
        self.name = f"{model} at {base_url}"
        self._settings = settings
        # Servers of one's own often want none, but the client insists on one.
        self._key = key or NO_KEY
        self._openai = _import_openai()
        # Retries are ours: the client knows nothing of broken bodies or of the other threads.
        self.client = self._openai.OpenAI(
            api_key=self._key,
            base_url=base_url,
            timeout=settings.timeout_seconds,
            max_retries=0,
            http_client=_bounded_client(settings.timeout_seconds),
        )
        self._heard = False  # anything, so far
        self._told: set[str] = set()
        self._turned_away = 0
        self._lock = threading.Lock()
        self._requests = Pacer(settings.requests_per_minute)
        self._tokens = Pacer(settings.tokens_per_minute)

    def run(
        self,
        count: int,
        call: Callable[[int, threading.Event], Result],
        on_result: Callable[[int, Result], None] | None,
    ) -> list[Result]:
        """Call for every index in threads.

        Args:
            count: Of indices.
            call: Takes an index, and an event that ends waiting.
            on_result: Called by the thread that has a result, at once: what it records is there
                whenever this process is killed. One call follows the other.
        """
        results: dict[int, Result] = {}
        stop = threading.Event()
        lock = threading.Lock()

        def take(index: int) -> None:
            result = call(index, stop)
            with lock:
                results[index] = result
                if on_result is not None:
                    on_result(index, result)

        with concurrent.futures.ThreadPoolExecutor(self._settings.concurrency) as pool:
            pending = [pool.submit(take, index) for index in range(count)]
            try:
                for future in concurrent.futures.as_completed(pending):
                    future.result()
            except BaseException as error:
                # An interrupt too: what is under way is paid for, so it is awaited and kept.
                stop.set()
                under_way = [future for future in pending if not future.cancel()]
                for future in under_way:
                    other = future.exception()
                    # Of one that can't be kept.
                    if isinstance(other, InputError) and other is not error:
                        log.error("%s: %s", self.name, other)
                raise
            finally:
                self._tell_turned_away()
        return [results[index] for index in range(count)]

    def ask(
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
        attempts = self._settings.max_retries + 1
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
                raise Filtered(self.without_key(fault.reason))
            if fault.broken_text and not unsupported:
                said = self.without_key(fault.reason)
                raise BrokenText(f"{self.name}: {what}: the answer has no text: {said}")
            reason = self._reason(fault)
            if not fault.passing:
                if unsupported and self._heard and fault.status not in _NO_ACCESS:
                    raise NoPromptLogprobs(f"{self.name}: {what}: {reason}")
                raise Refused(f"{self.name}: {what}: {reason}", fault)
            if attempt < attempts:
                self._wait(self._pause(attempt, fault, f"{what}: {reason}"), stop)
        raise TeacherError(
            f"{self.name}: {what}: no usable answer after {attempts} attempts, lastly "
            f"{self._reason(fault)}; answers before it are kept, so run again when the server is "
            "well"
        )

    def _pause(self, attempt: int, fault: Fault, what: str) -> float:
        """Seconds until the next attempt; `what` failed, for messages."""
        backoff = self._settings.backoff_seconds * 2 ** (attempt - 1)
        # Apart from each other, or all threads would come back at once.
        pause = min(backoff, MAX_BACKOFF_SECONDS) * random.uniform(0.5, 1.0)
        if fault.wait:
            self._requests.hold(fault.wait)
        if fault.status == _RATE_LIMIT:
            with self._lock:
                self._turned_away += 1
        else:
            log.warning("%s: %s; trying again", self.name, what)
        return max(pause, fault.wait)

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
        reason = self.without_key(fault.reason)
        if fault.status in (401, 403):
            variable = self._settings.api_key_variable
            said = "holds the key that was sent" if self._key != NO_KEY else "isn't set"
            reason += f"; the environment variable {variable} (api_key_variable) {said}"
        elif (
            self._settings.sends_sampling is True
            and not fault.passing
            and REFUSES_SAMPLING.search(reason)
        ):
            reason += "; set sends_sampling to false, so that temperature and top_p are left out"
        return reason

    def without_key(self, text: str) -> str:
        """A text that may be recorded."""
        # Some servers quote the key that they refuse.
        return text if self._key == NO_KEY else text.replace(self._key, "<key>")

    def tell(self, kind: str, text: str) -> None:
        """Log what holds for many calls, once."""
        with self._lock:
            if kind in self._told:
                return
            self._told.add(kind)
        log.warning("%s: %s", self.name, text)

    def _tell_turned_away(self) -> None:
        with self._lock:
            count, self._turned_away = self._turned_away, 0
        if count:
            log.warning(
                "%s: %d call%s turned away by the rate limit (status 429), and asked again",
                self.name,
                count,
                " was" if count == 1 else "s were",
            )

    def _wait(self, seconds: float, stop: threading.Event) -> None:
        if stop.wait(seconds):
            raise _Stopped


def _lower(error: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in error.response.headers.items()}


def _bounded_client(seconds: float) -> Any:
    # httpx2 comes with the package openai.
    from ioa_jax.teachers.transport import BoundedClient

    return BoundedClient(seconds)


def _import_openai() -> Any:
    try:
        return importlib.import_module("openai")
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "teachers behind a server need the package openai; get it with: "
            'pip install "ioa-jax[openai]"'
        ) from None
