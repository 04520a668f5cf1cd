"""Messages between a program and the process that tests it: plain data as tagged JSON.

None, booleans, floats, strings, integers under 2**63 and lists are themselves; anything else is an
object of one member, whose name is the type:

    {"int": "0x8000000000000000"}  {"complex": [re, im]}  {"bytes": "00ff"}
    {"tuple": [...]}  {"set": [...]}  {"frozenset": [...]}  {"dict": [[key, value], ...]}
    {"fraction": [n, d]}  {"decimal": "1.50"}  of the standard library's classes
    {"type": "str"}  one of `TYPES`
    {"object": 3}    something else, which stays in the program's process under this number

Nothing is pickled or evaluated, so what arrives has no methods of the sender's.
"""

from __future__ import annotations

import decimal
import fractions
import json
import os
from collections.abc import Callable
from types import NoneType
from typing import Any, cast

TYPES = {
    kind.__name__: kind
    for kind in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
}
# What stands for itself: in what is sent (not integers, which may be large), and in what arrives.
_ATOMS = (NoneType, bool, float, str)
_FROM_JSON = (*_ATOMS, int)
MAX_DEPTH = 64
# Some references of HumanEval+ and MBPP+ return several megabytes.
MAX_MESSAGE_BYTES = 16 << 20
_LENGTH_BYTES = 4
_CHUNK_BYTES = 1 << 16
_SMALL = 1 << 63


class NotPlainError(Exception):
    """A value that can't cross; the message says which and why."""


class ForeignError(NotPlainError):
    """The same, of an object that `number` refused."""


class ProtocolError(Exception):
    """What arrived isn't a message."""


class TooLongError(Exception):
    """A message is over `MAX_MESSAGE_BYTES`."""


def encode(value: object, number: Callable[[object], int], depth: int = 0) -> Any:
    """What stands for `value` in JSON.

    A value of a subclass of a plain type (a Counter, a named tuple) becomes one of that type, and a
    scalar of NumPy's Python's own.

    Args:
        value: Anything.
        number: Gives an object that isn't plain its number.
        depth: How many containers it is in.

    Raises:
        NotPlainError: Containers are nested deeper than `MAX_DEPTH`, or `number` refuses.
    """
    if type(value) in _ATOMS:
        return value
    if depth > MAX_DEPTH:
        raise NotPlainError(f"containers nested deeper than {MAX_DEPTH}")

    def items(values: Any) -> list[Any]:
        # Most are plain and many; a call for each takes several times as long.
        return [
            item
            if type(item) in _ATOMS or (type(item) is int and -_SMALL < item < _SMALL)
            else encode(item, number, depth + 1)
            for item in values
        ]

    # The base class's own methods, so that the result is exactly of that type.
    match value:
        case int():
            exact = int.__int__(value)
            return exact if -_SMALL < exact < _SMALL else {"int": hex(exact)}
        case float():
            return float.__float__(value)
        case str():
            return str.__str__(value)
        case list():
            return items(list.__iter__(value))
        case tuple():
            return {"tuple": items(tuple.__iter__(value))}
        case dict():
            return {"dict": [items(pair) for pair in dict.items(value)]}
        case set():
            return {"set": items(set.__iter__(value))}
        case frozenset():
            return {"frozenset": items(frozenset.__iter__(value))}
        case bytes():
            return {"bytes": bytes.hex(value)}
        case complex():
            return {"complex": [value.real, value.imag]}
        case type() if TYPES.get(value.__name__) is value:
            return {"type": value.__name__}
        case _:
            plain = _plain(value)
            if plain is None:
                return {"object": number(value)}
            return plain if isinstance(plain, dict) else encode(plain, number, depth)


def _plain(value: Any) -> Any:
    """A number of another exact type as what stands for it, a scalar of NumPy's as Python's.

    None if it is something else. By the names of modules, which needn't be loaded; whoever takes
    their names gives a value away, and no more.
    """
    kind = type(value)
    if kind.__module__ == "fractions" and kind.__name__ == "Fraction":
        return {"fraction": [_whole(value.numerator), _whole(value.denominator)]}
    if kind.__module__ == "decimal" and kind.__name__ == "Decimal":
        return {"decimal": str(value)}
    if kind.__module__ == "numpy" and not hasattr(value, "__len__") and hasattr(value, "item"):
        scalar = value.item()
        return scalar if type(scalar) in (bool, int, float, complex) else None
    return None


def _whole(value: Any) -> str:
    return hex(int(value))


def decode(data: Any, resolve: Callable[[int], object]) -> object:
    """The value that `encode` described.

    Args:
        data: Parsed JSON.
        resolve: Gives the object of a number.

    Raises:
        ProtocolError: `encode` wouldn't have made this.
    """
    try:
        return _decode(data, resolve)
    except (
        TypeError,
        ValueError,
        KeyError,
        RecursionError,
        AttributeError,
        ArithmeticError,
    ) as error:
        raise ProtocolError(f"not a value: {error}") from None


def _decode(data: Any, resolve: Callable[[int], object]) -> object:
    if type(data) in _FROM_JSON:
        return data
    if isinstance(data, list):
        return _decode_items(cast("list[Any]", data), resolve)
    ((tag, content),) = data.items()

    def items() -> list[Any]:
        if not isinstance(content, list):
            raise ValueError(f"{tag} of {type(content).__name__}")
        return _decode_items(cast("list[Any]", content), resolve)

    match tag:
        case "int":
            return int(content, 16)
        case "tuple":
            return tuple(items())
        case "dict":
            return {key: value for key, value in items()}
        case "set":
            return set(items())
        case "frozenset":
            return frozenset(items())
        case "bytes":
            return bytes.fromhex(content)
        case "complex":
            real, imaginary = items()
            return complex(float(real), float(imaginary))
        case "fraction":
            numerator, denominator = items()
            return fractions.Fraction(int(numerator, 16), int(denominator, 16))
        case "decimal":
            return decimal.Decimal(content)
        case "type":
            return TYPES[content]
        case "object":
            if type(content) is not int:
                raise ValueError(f"object of {type(content).__name__}")
            return resolve(content)
        case _:
            raise ValueError(f"unknown tag {tag!r}")


def _decode_items(data: list[Any], resolve: Callable[[int], object]) -> list[Any]:
    return [item if type(item) in _FROM_JSON else _decode(item, resolve) for item in data]


_ENCODER = json.JSONEncoder(separators=(",", ":"))


def pack(message: dict[str, Any]) -> bytes:
    """A message with its length in front, as `send` writes it.

    Raises:
        TooLongError: It is too long.
    """
    data = _ENCODER.encode(message).encode()
    if len(data) > MAX_MESSAGE_BYTES:
        raise TooLongError(f"a message of {len(data)} bytes")
    return len(data).to_bytes(_LENGTH_BYTES, "big") + data


def unpack(data: bytes) -> dict[str, Any]:
    """The message in `data`, which holds it alone.

    Raises:
        ProtocolError: It doesn't.
    """
    body = data[_LENGTH_BYTES:]
    if len(data) < _LENGTH_BYTES or len(body) != int.from_bytes(data[:_LENGTH_BYTES], "big"):
        raise ProtocolError(f"{len(data)} bytes that aren't one message")
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise ProtocolError(f"a message of type {type(message).__name__}")
    return cast("dict[str, Any]", message)


def send(descriptor: int, message: dict[str, Any]) -> None:
    """Write one message.

    Raises:
        TooLongError: It is too long; nothing was written.
        OSError: The other side is gone.
    """
    write(descriptor, pack(message))


def write(descriptor: int, data: bytes) -> None:
    """Write all of it.

    Raises:
        OSError: The other side is gone.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class Reader:
    """Reads messages from a descriptor.

    Attributes:
        ahead: What arrived after the last message.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.ahead = bytearray()

    def receive(self) -> dict[str, Any] | None:
        """One message; None if the other side ended before it began one.

        Raises:
            ProtocolError: What came isn't a message, or an unfinished one.
            TooLongError: It claims to be too long.
        """
        data = self.ahead
        while len(data) < _LENGTH_BYTES or len(data) < _size(data):
            chunk = self._read()
            if not chunk:
                break
            data += chunk
        if not data:
            return None
        size = _size(data)
        message, self.ahead = data[:size], data[size:]
        return unpack(bytes(message))

    def _read(self) -> bytes:
        """What is there, b"" at the end."""
        try:
            return os.read(self._descriptor, _CHUNK_BYTES)
        except ConnectionResetError:
            return b""


def _size(data: bytearray) -> int:
    """How long the message is of which `data` holds the beginning, its length included.

    Raises:
        TooLongError: It claims to be too long.
    """
    length = int.from_bytes(data[:_LENGTH_BYTES], "big")
    if length > MAX_MESSAGE_BYTES:
        raise TooLongError(f"a message of {length} bytes")
    return _LENGTH_BYTES + length
