"""In the process that tests: run a benchmark's own code against a program in another process.

Descriptor 3 is the channel to the program, 4 a file with the job, 5 takes the verdict.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import os
import select
import sys
import warnings
from typing import Any, NoReturn

from . import wire

CHANNEL, JOB, VERDICT = 3, 4, 5
_LONGEST_DETAIL = 2000


class Stop(BaseException):
    """The verdict is reached. Not an Exception, so that no test can catch it."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Remote:
    """Something of the program's, in the program's process.

    It can be called, iterated and passed back, and has attributes; it can't be compared, hashed or
    asked whether it is true, since the program's own methods would have to answer.
    """

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

    def _refuse(self, *_: Any) -> NoReturn:
        raise Stop("failed", "a value that isn't plain data was compared")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __hash__ = _refuse  # pyright: ignore


class Channel:
    """Requests to the program and its answers."""

    def __init__(self) -> None:
        self._count = 0

    def expect_ready(self) -> None:
        """Wait until the program's code has run.

        Raises:
            Stop: It raised, or ended.
        """
        answer = self._receive()
        if "raised" in answer:
            raise Stop("failed", _text_of(answer["raised"]))
        if answer != {"ready": True}:
            raise Stop("forged", "the program wrote to its channel")

    def ask(self, do: str, subject: str | int | None, arguments: Any) -> Any:
        """Have something done and return its value.

        Raises:
            Stop: There is no value, and won't be one.
            Exception: What the program raised, as the nearest builtin class.
        """
        self._count += 1
        number = self._count
        try:
            encoded = wire.encode(arguments, _number_of)
            wire.send(CHANNEL, {"id": number, "do": do, "of": subject, "with": encoded})
        except wire.NotPlainError as error:
            raise Stop("bad_test", f"the test passes {error}") from None
        except wire.TooLongError as error:
            raise Stop("bad_test", f"the test passes {error}") from None
        except OSError:
            raise Stop("gone", "") from None
        answer = self._receive()
        if answer.pop("id", None) != number or len(answer) != 1:
            raise Stop("forged", "the program wrote to its channel")
        if "value" in answer:
            try:
                return wire.decode(answer["value"], lambda subject: Remote(self, subject))
            except wire.ProtocolError as error:
                raise Stop("forged", str(error)) from None
        if "error" in answer:
            raise _exception(answer["error"])
        if "not_plain" in answer:
            raise Stop("failed", f"the program returned {answer['not_plain']}")
        if "too_long" in answer:
            raise Stop("output_limit", f"the program returned {answer['too_long']}")
        raise Stop("forged", "the program wrote to its channel")

    def end(self) -> None:
        """Have the program flush its output.

        Raises:
            Stop: It did something else on the channel.
        """
        self.ask("end", None, None)
        if select.select([CHANNEL], [], [], 0)[0]:
            raise Stop("forged", "the program wrote to its channel")

    def _receive(self) -> dict[str, Any]:
        try:
            message = wire.receive(CHANNEL)
        except wire.ProtocolError as error:
            raise Stop("forged", f"the program wrote to its channel: {error}") from None
        except wire.TooLongError as error:
            raise Stop("forged", f"the program wrote to its channel: {error}") from None
        if message is None:
            raise Stop("gone", "")
        return message


def main(request: dict[str, Any]) -> None:
    """Reach a verdict and write it, as JSON with `status` and `detail`."""
    with os.fdopen(JOB, "rb") as file:
        job: dict[str, Any] = json.load(file)
    # What the server opened was replaced by /dev/null.
    sys.stdout = sys.stderr = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    try:
        _check(job["context"], job["test"], job["entry_points"])
        verdict = {"status": "passed", "detail": ""}
    except Stop as stop:
        verdict = {"status": stop.status, "detail": str(stop)}
    except BaseException as error:
        verdict = {"status": "failed", "detail": f"{type(error).__name__}: {error}"}
    verdict["detail"] = verdict["detail"][:_LONGEST_DETAIL]
    os.write(VERDICT, json.dumps(verdict).encode())
    os._exit(0)


def _check(context: str, test: str, entry_points: list[str]) -> None:
    namespace: dict[str, Any] = {"__name__": "test"}
    try:
        with warnings.catch_warnings():
            # An unknown escape in a benchmark's strings is not the program's fault.
            warnings.simplefilter("ignore")
            tree = ast.parse(context + "\n" + test)
            code = compile(test, "<test>", "exec")
            exec(compile(context, "<context>", "exec"), namespace)
    except BaseException as error:
        raise Stop("bad_test", f"{type(error).__name__}: {error}") from None
    channel = Channel()
    for name in sorted(_free_names(tree)):
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


def _free_names(tree: ast.Module) -> set[str]:
    """Names that code uses and nothing in it, nor Python, defines."""
    used: set[str] = set()
    defined = set(dir(builtins))
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                used.add(name)
            case ast.Name(id=name) | ast.arg(arg=name):
                defined.add(name)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                defined.add(node.name)
            case ast.Import() | ast.ImportFrom():
                defined |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            case ast.ExceptHandler(name=str(name)):
                defined.add(name)
            case _:
                pass
    return used - defined


def _number_of(value: object) -> int:
    subject = value._subject if isinstance(value, Remote) else None  # pyright: ignore
    if isinstance(subject, int):
        return subject
    raise wire.NotPlainError(f"a {type(value).__name__}, which isn't plain data")


def _exception(described: Any) -> BaseException:
    """The nearest builtin class of what the program raised, with its message."""
    try:
        names, message = list(described["types"]), str(described["message"])
    except (KeyError, TypeError):
        return Stop("forged", "the program wrote to its channel")
    for name in names:
        kind = getattr(builtins, name, None) if isinstance(name, str) else None
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            continue
        text = message if name == names[0] else f"{names[0]}: {message}"
        try:
            return kind(text)
        except TypeError:
            # Such as UnicodeDecodeError, which wants more; its base class doesn't.
            continue
    return Stop("failed", _text_of(described))


def _text_of(described: Any) -> str:
    try:
        return f"{described['types'][0]}: {described['message']}"
    except (KeyError, IndexError, TypeError):
        raise Stop("forged", "the program wrote to its channel") from None
