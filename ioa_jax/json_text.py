"""JSON that comes from elsewhere: files, what models write, what servers answer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

MAX_NESTING = 100  # pydantic, for one, writes no more than some 250 levels
MAX_DIGITS = 1000  # of an integer; Python refuses more than 4,300
_HALF = re.compile("[\ud800-\udfff]")
_SPACE = " \t\n\r"  # between JSON's tokens


def parse_json(text: str) -> Any:
    """A JSON value that every parser reads in the same way.

    Raises:
        ValueError: It isn't JSON, or such that parsers disagree about it or break: a key twice in
            an object, NaN and infinity, half of a surrogate pair, an integer of thousands of
            digits, or brackets more than `MAX_NESTING` deep. The message says which.
    """
    value = _read_whole(_STRICT, text)
    if _holds_half(text, value):
        raise ValueError("half of a surrogate pair (such as \\ud83d alone), which is no character")
    return value


def parse_written_json(text: str, start: int = 0) -> tuple[Any, int]:
    """The JSON value that begins at a place of what a model wrote, and where it ends.

    As `parse_json`, but that of a key that stands twice in an object the last value counts, and
    that half of a surrogate pair is replaced.

    Raises:
        ValueError: As there.
    """
    value, end = _decode(_WRITTEN, text, start)
    return _with_characters(text[start:end], value), end


def parse_served_json(text: str) -> Any:
    """What a server answers: as `parse_written_json`, and what is no number is null.

    The answer is paid for: NaN, infinity or thousands of digits in one field don't spoil the rest.

    Raises:
        ValueError: It isn't JSON, or brackets are nested too deep.
    """
    return _with_characters(text, _read_whole(_SERVED, text))


def _decode(decoder: json.JSONDecoder, text: str, start: int) -> tuple[Any, int]:
    try:
        value, end = decoder.raw_decode(text, start)
    except RecursionError:
        raise ValueError(f"brackets nested more than {MAX_NESTING} deep") from None
    # Each level has a bracket of its own.
    if text.count("[", start, end) + text.count("{", start, end) > MAX_NESTING:
        _check_nesting(value)
    return value, end


def _read_whole(decoder: json.JSONDecoder, text: str) -> Any:
    value, end = _decode(decoder, text, len(text) - len(text.lstrip(_SPACE)))
    rest = text[end:].lstrip(_SPACE)
    if rest:
        raise json.JSONDecodeError("Extra data", text, len(text) - len(rest))
    return value


def has_half(text: str) -> bool:
    """Whether a text has half of a surrogate pair, which no file can hold."""
    return _HALF.search(text) is not None


def _holds_half(text: str, value: Any) -> bool:
    # Surrogates come from escapes alone: a text that holds them as they are isn't UTF-8.
    return "\\ud" in text.lower() and has_half(json.dumps(value, ensure_ascii=False))


def _with_characters(text: str, value: Any) -> Any:
    """A value whose halves of surrogate pairs are replaced."""
    if not _holds_half(text, value):
        return value
    return json.loads(_HALF.sub("\ufffd", json.dumps(value, ensure_ascii=False)))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice[:60]!r} stands twice in an object")
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits[:30]} is more than a number can hold")
    return value


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits; at most {MAX_DIGITS}")
    return int(digits)


def _number_or_null(read: Callable[[str], int | float]) -> Callable[[str], int | float | None]:
    def parse(digits: str) -> int | float | None:
        try:
            return read(digits)
        except ValueError:
            return None

    return parse


def _null(_: str) -> None:
    return None


def _check_nesting(value: Any) -> None:
    level, inner = 0, [value]
    while containers := [one for one in inner if isinstance(one, dict | list)]:
        level += 1
        if level > MAX_NESTING:
            raise ValueError(f"brackets nested more than {MAX_NESTING} deep")
        parts = (one.values() if isinstance(one, dict) else one for one in containers)
        inner = [part for values in parts for part in values]


_WRITTEN = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, parse_int=_integer
)
_STRICT = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_constant=_refuse_constant,
    parse_float=_finite,
    parse_int=_integer,
)
_SERVED = json.JSONDecoder(
    parse_constant=_null,
    parse_float=_number_or_null(_finite),
    parse_int=_number_or_null(_integer),
)
