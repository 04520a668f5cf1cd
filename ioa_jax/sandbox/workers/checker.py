"""In the process of a benchmark's tests: run them against a program in another process.

Descriptor 3 is the channel to the program, 4 a file with the job, a JSON object with `context`,
`test` and `entry_points`, 5 a SEQPACKET socket for the verdict, one packet: a JSON object with
`status` and `detail`. `gone` as a status says that the program ended without an answer, `bad_test`
that the tests are at fault.

Tests come from data files and from teachers, so they are no more trusted than programs. Each job
has a process of its own, which writes no file, opens no socket, starts no process, and leaves
nothing to the next job.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib
import json
import os
import random
import sys
import traceback
import types
import warnings
from typing import Any, NoReturn

from . import wire

CHANNEL, JOB, VERDICT = 3, 4, 5
_LONGEST_DETAIL = 2000
_TEST_FILE = "<test>"
_CAUGHT = "_ioa_caught"  # name of `_caught` in the tests


class Stop(BaseException):
    """The verdict is reached. Not an Exception, and kept by the channel should a test catch it."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class _ControlFlowError(Exception):
    """A program's exception of a class that ends a loop or a look-up without a word.

    `all(map(f, inputs))` is true if `f` raises StopIteration, a loop over an object of the tests'
    own ends at an IndexError, `hasattr` is false at an AttributeError. So those of a program's
    functions arrive as classes of this one's, which only an `except` clause takes for the real one
    (`_caught`).
    """


_CONTROL_FLOW: dict[type[BaseException], type[_ControlFlowError]] = {
    kind: type(kind.__name__, (_ControlFlowError,), {})
    for kind in (StopIteration, StopAsyncIteration, IndexError, AttributeError)
}


class Remote:
    """Something of the program's, in the program's process.

    It can be called, iterated, passed back and asked whether it is true, and has attributes. It
    can't be compared or hashed: the program's own methods would have to answer, and could always
    say what the tests want to hear.
    """

    _channel: Channel
    _subject: str | int

    def __init__(self, channel: Channel, subject: str | int) -> None:
        object.__setattr__(self, "_channel", channel)
        object.__setattr__(self, "_subject", subject)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it there."""
        return self._channel.ask("call", self._subject, [args, kwargs])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._channel.ask("get", self._subject, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._channel.ask("set", self._subject, [name, value])

    def __iter__(self) -> Any:
        return iter(self._channel.ask("items", self._subject, None))

    def __bool__(self) -> bool:
        return self._channel.ask("bool", self._subject, None) is True

    def _refuse(self, *_: Any) -> NoReturn:
        self._channel.stop("failed", "a value that isn't plain data was compared")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _refuse  # pyright: ignore


class Channel:
    """Requests to the program and its answers.

    Attributes:
        stopped: The verdict, once it is reached.
    """

    def __init__(self, descriptor: int) -> None:
        self.stopped: Stop | None = None
        self._descriptor = descriptor
        self._reader = wire.Reader(descriptor)
        self._count = 0

    def stop(self, status: str, detail: str) -> NoReturn:
        """Reach a verdict, which stays, whatever tests catch.

        Raises:
            Stop: Always.
        """
        self.stopped = self.stopped or Stop(status, detail)
        raise self.stopped

    def expect_ready(self) -> None:
        """Wait until the program's code has run.

        Raises:
            Stop: It raised, or ended.
        """
        answer = self._receive()
        if "raised" in answer:
            self.stop("failed", self._text_of(answer["raised"]))
        if answer != {"ready": True}:
            self._forged()

    def ask(self, do: str, subject: str | int | None, arguments: Any) -> Any:
        """Have something done and return its value.

        Raises:
            Stop: There is no value, and won't be one.
            Exception: What the program raised, as the nearest builtin class.
        """
        if self.stopped is not None:
            raise self.stopped
        self._count += 1
        try:
            request = {
                "id": self._count,
                "do": do,
                "of": subject,
                "with": wire.encode(arguments, _number_of),
            }
            data = wire.pack(request)
        except (wire.NotPlainError, wire.TooLongError) as error:
            # From the second call on, what is too deep or too long may be the program's.
            own = self._count == 1 or isinstance(error, wire.ForeignError)
            self.stop("bad_test" if own else "failed", f"the test passes {error}")
        # If the program has ended, there may be answers still.
        with contextlib.suppress(OSError):
            wire.write(self._descriptor, data)
        answer = self._receive()
        if answer.pop("id", None) != self._count or len(answer) != 1:
            self._forged()
        if "value" in answer:
            try:
                return wire.decode(answer["value"], self._remote)
            except wire.ProtocolError as error:
                self.stop("forged", str(error))
        if "error" in answer:
            raise self._exception(answer["error"], do)
        if "not_plain" in answer:
            self.stop("failed", f"the program returned {answer['not_plain']}")
        if "too_long" in answer:
            self.stop("output_limit", f"the program returned {answer['too_long']}")
        self._forged()

    def end(self) -> None:
        """Have the program flush its output.

        Raises:
            Stop: It did something else on the channel.
        """
        self.ask("end", None, None)
        os.set_blocking(self._descriptor, False)
        try:
            unasked = self._reader.ahead or os.read(self._descriptor, 1)
        except BlockingIOError:
            return
        if unasked:
            self._forged()

    def _forged(self, detail: str = "") -> NoReturn:
        self.stop("forged", f"the program wrote to its channel{detail}")

    def _remote(self, subject: int) -> Remote:
        return Remote(self, subject)

    def _receive(self) -> dict[str, Any]:
        try:
            message = self._reader.receive()
        except (wire.ProtocolError, wire.TooLongError) as error:
            self._forged(f": {error}")
        if message is None:
            self.stop("gone", "")
        return message

    def _exception(self, described: Any, do: str) -> Exception:
        """The nearest builtin class of what the program raised, with its message."""
        try:
            names, message = list(described["types"]), str(described["message"])
        except (KeyError, TypeError):
            self._forged()
        for name in names:
            kind = getattr(builtins, name, None) if isinstance(name, str) else None
            if not (isinstance(kind, type) and issubclass(kind, Exception)):
                continue
            if not (kind is AttributeError and do == "get"):
                kind = _CONTROL_FLOW.get(kind, kind)
            text = message if name == names[0] else f"{names[0]}: {message}"
            try:
                return kind(text)
            except TypeError:
                # Such as UnicodeDecodeError, which wants more; its base class doesn't.
                continue
        self.stop("failed", self._text_of(described))

    def _text_of(self, described: Any) -> str:
        try:
            return f"{described['types'][0]}: {described['message']}"
        except (KeyError, IndexError, TypeError):
            self._forged()


def main() -> None:
    """Take the job and say its verdict."""
    with open(JOB, "rb", closefd=False) as file:
        job: dict[str, Any] = json.load(file)
    os.write(VERDICT, json.dumps(_judge(Channel(CHANNEL), job)).encode())


def _judge(channel: Channel, job: dict[str, Any]) -> dict[str, str]:
    # The same numbers each time.
    random.seed(0)
    try:
        _check(channel, job["context"], job["test"], job["entry_points"])
        status, detail = "passed", ""
    except Stop as stop:
        status, detail = stop.status, str(stop)
    except BaseException as error:
        status, detail = "failed", _describe(error)
        line = _failing_line(error, job["test"])
        detail += f" in {line!r}" if line else ""
    if channel.stopped is not None:
        # Tests may have caught it, and come to another end.
        status, detail = channel.stopped.status, str(channel.stopped)
    return {"status": status, "detail": detail[:_LONGEST_DETAIL]}


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}".removesuffix(": ")
    except Exception as second:
        # Of an integer with too many digits, for one, which the program returned.
        return f"{type(error).__name__} (its message raised {type(second).__name__})"


def _failing_line(error: BaseException, test: str) -> str:
    """The last line of the test that the exception went through."""
    lines = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == _TEST_FILE
    ]
    return test.splitlines()[lines[-1] - 1].strip() if lines else ""


def _check(channel: Channel, context: str, test: str, entry_points: list[str]) -> None:
    namespace: dict[str, Any] = {"__name__": "test", _CAUGHT: _caught}
    try:
        with warnings.catch_warnings():
            # An unknown escape in a benchmark's texts is not the program's fault.
            warnings.simplefilter("ignore")
            helpers, code = _compiled(context, "<context>"), _compiled(test, _TEST_FILE)
            exec(helpers, namespace)
    except BaseException as error:
        raise Stop("bad_test", _describe(error)) from None
    for name in _names(code).difference(namespace, dir(builtins)):
        # A program that imports a module lends it to the tests beside it; here they get their own.
        namespace[name] = (
            importlib.import_module(name)
            if name in sys.stdlib_module_names
            else Remote(channel, name)
        )
    for name in entry_points:
        namespace[name] = Remote(channel, name)
    channel.expect_ready()
    exec(code, namespace)
    channel.end()


def _names(code: types.CodeType) -> set[str]:
    """Global names that code may look up or bind, and those of attributes, which do no harm."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _names(constant)
    return found


def _compiled(source: str, name: str) -> types.CodeType:
    """Code whose `except` clauses know a program's control flow, see `_caught`."""
    tree = ast.parse(source, name) if "except" in source else source
    if isinstance(tree, ast.Module):
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and node.type is not None:
                call = ast.Call(ast.Name(_CAUGHT, ast.Load()), [node.type], [])
                node.type = ast.fix_missing_locations(ast.copy_location(call, node.type))
    # This module's own `from __future__` isn't theirs.
    return compile(tree, name, "exec", dont_inherit=True)


def _caught(named: Any) -> Any:
    """What an `except` clause names, and what stands for the control flow among it."""
    kinds: tuple[Any, ...] = named if isinstance(named, tuple) else (named,)
    own = tuple(
        one
        for real, one in _CONTROL_FLOW.items()
        if any(isinstance(kind, type) and issubclass(real, kind) for kind in kinds)
    )
    return (*kinds, *own) if own else named


def _number_of(value: object) -> int:
    subject = value._subject if isinstance(value, Remote) else None  # pyright: ignore
    if isinstance(subject, int):
        return subject
    raise wire.ForeignError(f"a {type(value).__name__}, which isn't plain data")
