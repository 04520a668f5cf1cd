"""Texts of others on a terminal."""

from __future__ import annotations

import re

# Control characters but for tab and line feed, marks of direction, and halves of surrogate pairs:
# they move the cursor, hide what was written before, or can't be written at all.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def shown(text: object) -> str:
    """A text of a model, a server or a file, in which control characters are spelt out."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], str(text))
