"""Keeps the calls of many threads under a server's rate limit."""

from __future__ import annotations

import datetime
import email.utils
import math
import re
import threading
import time
from collections.abc import Mapping

LONGEST_RETRY_AFTER = 3600.0
_SPAN = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?")


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


def retry_after_seconds(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait for; 0 if it asks for nothing that can be waited for.

    In seconds or as a date (RFC 9110), in milliseconds, and as OpenAI says when a limit is reset.
    """
    seconds = 0.0
    for name, unit in (("retry-after-ms", 1e-3), ("x-ms-retry-after-ms", 1e-3), ("retry-after", 1)):
        text = headers.get(name)
        if text is not None and seconds == 0:
            seconds = _seconds(text, float(unit))
    if seconds == 0:
        resets = [headers.get(f"x-ratelimit-reset-{what}") for what in ("requests", "tokens")]
        # Of the limit that is used up, where the server says how much of each is left.
        left = [headers.get(f"x-ratelimit-remaining-{what}") for what in ("requests", "tokens")]
        used = [reset for reset, rest in zip(resets, left, strict=True) if reset and rest == "0"]
        seconds = max((_seconds(reset, 1.0) for reset in used), default=0.0)
    return seconds if 0 < seconds <= LONGEST_RETRY_AFTER else 0.0


def _seconds(text: str, unit: float) -> float:
    text = text.strip()
    try:
        number = float(text)
        return number * unit if math.isfinite(number) else 0.0
    except ValueError:
        pass
    span = _SPAN.fullmatch(text)
    try:
        if span is not None and text:
            hours, minutes, seconds, milliseconds = (float(part or 0) for part in span.groups())
            return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return (moment - datetime.datetime.now(datetime.UTC)).total_seconds()
