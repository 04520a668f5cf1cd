"""Keeps the calls of many threads under a server's rate limit."""

from __future__ import annotations

import threading
import time


class Pacer:
    """Lets amounts pass at a steady rate."""

    def __init__(self, per_minute: float | None = None) -> None:
        """Prepare.

        Args:
            per_minute: Amount that may pass in a minute; None is no limit.
        """
        self._seconds_each = 60.0 / per_minute if per_minute else 0.0
        self._lock = threading.Lock()
        self._free = 0.0

    def reserve(self, amount: float = 1.0) -> float:
        """Take the next place; seconds to wait until it comes."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._free)
            self._free = start + amount * self._seconds_each
            return start - now

    def hold(self, seconds: float) -> None:
        """Let nothing pass for a time: a server that turns one call away means them all."""
        with self._lock:
            self._free = max(self._free, time.monotonic() + seconds)
