"""HTTP to servers that aren't trusted: no redirects, and an end to every answer.

Needs httpx2, which the package openai brings.
"""

from __future__ import annotations

import threading
from typing import Any

import httpx2

# Log-probabilities of a long prompt take some megabytes.
MOST_BYTES = 64 << 20


class BoundedClient(httpx2.Client):
    """A client whose calls end within their time, however slowly the server answers.

    A redirect is an answer like any other, so that prompts and key go nowhere but to the address
    that the user named. An answer's body is read whole, up to `MOST_BYTES` once decompressed.

    Args:
        seconds: From the call to the end of its answer.
    """

    def __init__(self, seconds: float) -> None:
        # Its own limit is of the time between two packets.
        super().__init__(timeout=seconds, follow_redirects=False)
        self._seconds = seconds

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """As the base class, with the body read.

        Raises:
            httpx2.ReadTimeout: The answer didn't end in time.
            httpx2.ReadError: It is too large.
            httpx2.TransportError: It failed otherwise.
        """
        call = _Call(super().send, request, options | {"stream": True, "follow_redirects": False})
        call.start()
        call.join(self._seconds)
        return call.result(self._seconds)


class _Call(threading.Thread):
    """A call, in a thread that nobody has to wait for."""

    def __init__(self, send: Any, request: httpx2.Request, options: dict[str, Any]) -> None:
        super().__init__(name="call to a server", daemon=True)
        self._send, self._request, self._options = send, request, options
        self._given_up = threading.Event()
        self._response: httpx2.Response | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Make the call; what it raises is raised by `result`."""
        try:
            self._response = self._whole(self._send(self._request, **self._options))
        except BaseException as error:
            self._error = error

    def result(self, seconds: float) -> httpx2.Response:
        """What came of it, or a time-out."""
        if self._error is not None:
            raise self._error
        if self._response is None:
            self._given_up.set()
            raise httpx2.ReadTimeout(f"no whole answer within {seconds:g} s", request=self._request)
        return self._response

    def _whole(self, response: httpx2.Response) -> httpx2.Response:
        body = bytearray()
        try:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MOST_BYTES:
                    raise httpx2.ReadError(
                        f"the answer has more than {MOST_BYTES} bytes", request=self._request
                    )
                if self._given_up.is_set():
                    break
        finally:
            response.close()
        # Of the body as it came, not as it is here.
        framing = ("content-encoding", "content-length", "transfer-encoding")
        headers = [item for item in response.headers.multi_items() if item[0] not in framing]
        return httpx2.Response(
            response.status_code, headers=headers, content=bytes(body), request=self._request
        )
