"""One program from its start to its verdict."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import signal
import socket
import time
from types import TracebackType
from typing import Any, cast

from ioa_jax.sandbox.base import CheckResult, Status
from ioa_jax.sandbox.processes import ServerGoneError, Waiting, WaitingTests
from ioa_jax.sandbox.workers import wire
from ioa_jax.sandbox.workers.program import EXIT_MEMORY

_GRACE_SECONDS = 5.0  # for a server to report the end of what it killed
_LAST_SECONDS = 1.0  # for a program to end whose channel is closed, or whose tests are over
_ANSWER_BYTES = 1 << 17
_CHUNK_BYTES = 1 << 16
_LONGEST_DETAIL = 2000
# That tests may say, see `workers.checker`.
_VERDICTS = ("passed", "failed", "forged", "output_limit", "bad_test", "gone")


class _Stream:
    """What comes through a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.data = bytearray()
        self.open = True
        os.set_blocking(descriptor, False)

    def read(self) -> bool:
        """Take what is there; False if nothing is."""
        try:
            chunk = os.read(self.descriptor, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            chunk = b""
        self.data += chunk
        self.open = bool(chunk)
        return self.open


class _Process:
    """A process, by the reports about it."""

    def __init__(self, report: socket.socket) -> None:
        self.report = report
        self.refused = ""
        self.end: dict[str, Any] | None = None

    def read(self) -> None:
        """Take one report.

        Raises:
            ServerGoneError: There won't be another.
        """
        try:
            data = self.report.recv(_CHUNK_BYTES)
        except ConnectionResetError:
            # It was killed before it took its request. What was reported comes after the error.
            return
        if not data:
            raise ServerGoneError("the fork server died")
        message: dict[str, Any] = json.loads(data)
        self.refused = self.refused or message.get("refused", "")
        if "code" in message:
            self.end = message

    def kill(self) -> None:
        """Have it killed."""
        with contextlib.suppress(OSError):
            self.report.shutdown(socket.SHUT_WR)


class Attempt:
    """Starts processes, watches them and judges. A context manager, for one program.

    Attributes:
        limits: The program's.

    Args:
        process: Of the program, with its tests' if it is to be tested.
    """

    def __init__(self, process: Waiting) -> None:
        self.limits = limits = process.limits
        self._began = time.monotonic()
        self._until = self._began + limits.wall_seconds
        self._on_time_out: tuple[Status, str] | None = (
            "timeout",
            f"no end within {limits.wall_seconds:g} s of wall time",
        )
        self._stack = contextlib.ExitStack()
        self._selector = self._stack.enter_context(selectors.PollSelector())
        self._process = process
        self._stdout = self._follow(process.stdout)
        self._stderr = self._follow(process.stderr)
        self._ended: tuple[Status, str] | None = None
        self._killed = False
        self._nonce: str | None = None
        self._tests: _Process | None = None
        self._verdict: tuple[str, str] | None = None

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def start_tests(self, job: dict[str, Any]) -> None:
        """Begin the tests, for which there is a process.

        Args:
            job: `context`, `test` and `entry_points`.
        """
        assert self._process.tests is not None
        tests = self._process.tests
        _fill(tests.job, json.dumps(job).encode())
        self._tests = self._begin(tests.report, {})
        self._selector.register(tests.verdict, selectors.EVENT_READ, tests)

    def start_program(self, source: str, stdin: str = "", *, alone: bool = False) -> None:
        """Start the program.

        Args:
            source: Python.
            stdin: Its standard input.
            alone: Whether it has to say itself that it reached its end.
        """
        process = self._process
        if alone:
            self._nonce = secrets.token_hex(16)
            self._answer = self._follow(process.channel.fileno())
        _fill(process.stdin, stdin.encode(errors="surrogatepass"))
        # Not empty: the process empties it when the program begins.
        _fill(process.source, source.encode(errors="surrogatepass") or b"\n")
        self._program = self._begin(process.report, {"nonce": self._nonce})

    def watch(self) -> None:
        """Returns when everything has ended or been ended.

        Raises:
            ServerGoneError: A server died meanwhile.
        """
        while self._is_unfinished():
            remaining = self._until - time.monotonic()
            if remaining <= 0:
                self._time_out()
                continue
            for key, _ in self._selector.select(remaining):
                source = key.data
                if isinstance(source, WaitingTests):
                    self._selector.unregister(source.verdict)
                    # Without any, a report says what became of the process.
                    if self._verdict is None and (data := _receive(source.verdict)):
                        self._on_verdict(*_read_verdict(data))
                elif isinstance(source, _Process):
                    source.read()
                    if source.end is not None:
                        self._selector.unregister(source.report)
                        self._on_end(source)
                else:
                    source.read()
                    if not source.open:
                        self._selector.unregister(source.descriptor)
            self._limit_output()
        # What was written just before the end.
        while self._stdout.read() or self._stderr.read():
            if self._limit_output():
                break

    def result(self) -> CheckResult:
        """What became of the program, after `watch`."""
        assert self._program.end is not None
        status, detail = self._judge(self._program.end)
        if status == "failed" and self._program.end["full"]:
            status, detail = "infra_error", f"others left no room for its files: {detail}"
        size = self.limits.output_bytes
        return CheckResult(
            status=status,
            # Half a surrogate pair, which an exception may hold, has no place in a file.
            detail=detail[:_LONGEST_DETAIL].encode(errors="backslashreplace").decode(),
            stdout=self._stdout.data[:size].decode(errors="replace"),
            stderr=self._stderr.data[:size].decode(errors="replace"),
            cpu_seconds=self._program.end["cpu"],
            wall_seconds=time.monotonic() - self._began,
        )

    def _follow(self, descriptor: int) -> _Stream:
        stream = _Stream(descriptor)
        self._selector.register(descriptor, selectors.EVENT_READ, stream)
        return stream

    def _begin(self, report: socket.socket, request: dict[str, Any]) -> _Process:
        # One that couldn't be confined has ended already, and its reports say why.
        with contextlib.suppress(OSError):
            report.send(json.dumps(request).encode())
        process = _Process(report)
        self._selector.register(report, selectors.EVENT_READ, process)
        return process

    def _time_out(self) -> None:
        if not self._killed:
            self._ended = self._ended or self._on_time_out
            self._kill()
        elif self._program.end is None:
            raise ServerGoneError("a process that was killed didn't end")
        elif self._tests is None:
            # Something that the program started holds its channel.
            self._answer.open = False
        else:
            self._verdict = "timeout", "the tests don't end"

    def _is_unfinished(self) -> bool:
        if self._program.end is None:
            return True
        return self._answer.open if self._tests is None else self._verdict is None

    def _on_end(self, process: _Process) -> None:
        if process is self._program:
            if self._killed:
                self._until = min(self._until, time.monotonic() + _LAST_SECONDS)
        elif self._verdict is None:
            assert self._process.tests is not None
            assert process.end is not None
            # It may have come just before.
            data = _receive(self._process.tests.verdict)
            self._on_verdict(*(_read_verdict(data) if data else _end_of_tests(process.end["code"])))

    def _on_verdict(self, status: str, detail: str) -> None:
        self._verdict = status, detail
        match status:
            case "passed" if not self._killed:
                # It is about to end by itself, and has passed if it doesn't.
                self._until = min(self._until, time.monotonic() + _LAST_SECONDS)
                self._on_time_out = None
            case "gone" if not self._killed:
                # Its end, which says why, is about to be reported.
                self._until = min(self._until, time.monotonic() + _LAST_SECONDS)
                self._on_time_out = ("failed", "it closed the channel to its tests")
            case _:
                self._kill()

    def _limit_output(self) -> bool:
        size = len(self._stdout.data) + len(self._stderr.data)
        if size > self.limits.output_bytes:
            self._stop("output_limit", f"more than {self.limits.output_bytes} bytes of output")
        elif self._tests is None and len(self._answer.data) > _ANSWER_BYTES:
            self._stop("forged", "it wrote to its channel")
        return self._ended is not None

    def _stop(self, status: Status, detail: str) -> None:
        if self._ended is None:
            self._ended = (status, detail)
        self._kill()

    def _kill(self) -> None:
        if not self._killed:
            self._killed = True
            self._until = time.monotonic() + _GRACE_SECONDS
            self._program.kill()

    def _judge(self, end: dict[str, Any]) -> tuple[Status, str]:
        refused = self._program.refused or (self._tests.refused if self._tests else "")
        if refused:
            return "infra_error", f"a process can't be confined: {refused}"
        if self._verdict is not None and self._verdict[0] == "bad_test":
            # Perhaps before the program began, which was ended then.
            return "bad_test", self._verdict[1]
        if os.fstat(self._process.source).st_size:
            return "infra_error", "the process ended before its program began"
        if end["files"]:
            return "output_limit", "it made too many or too large files"
        if self._ended is not None:
            return self._ended
        if self._verdict is None:
            return self._judge_alone(end)
        status, detail = self._verdict
        return self._judge_exit(end) if status == "gone" else (cast("Status", status), detail)

    def _judge_alone(self, end: dict[str, Any]) -> tuple[Status, str]:
        if not self._answer.data:
            return self._judge_exit(end)
        try:
            message = wire.unpack(bytes(self._answer.data))
        except wire.ProtocolError as error:
            return "forged", f"it wrote to its channel: {error}"
        match message:
            case {"end": nonce} if nonce == self._nonce:
                return "passed", ""
            case {"raised": {"types": [str(kind), *_], "message": str(text)}}:
                return "failed", f"{kind}: {text}"
            case _:
                return "forged", "it wrote to its channel"

    def _judge_exit(self, end: dict[str, Any]) -> tuple[Status, str]:
        code, cpu = end["code"], end["cpu"]
        if code is None:
            return "failed", "it said that it had ended, and nothing else"
        if code == EXIT_MEMORY:
            return "memory", f"more than {self.limits.memory_bytes} bytes"
        if self._is_out_of_time(code, cpu):
            return "timeout", f"{cpu:.1f} s of processor time"
        if code == -signal.SIGKILL:
            return "memory", "killed by the kernel, most likely for want of memory"
        if code < 0:
            return "failed", f"killed by {_signal_name(-code)}"
        return "failed", f"it exited with {code} before its end"

    def _is_out_of_time(self, code: int, cpu: float) -> bool:
        # The kernel's own count, by which it kills, is a coarse one.
        over = cpu >= self.limits.cpu_seconds / 2
        return code == -signal.SIGXCPU or (code == -signal.SIGKILL and over)


def _receive(verdict: socket.socket) -> bytes:
    """What is there of the tests' verdict; b"" if nothing is."""
    try:
        return verdict.recv(_CHUNK_BYTES, socket.MSG_DONTWAIT)
    except (BlockingIOError, ConnectionResetError):
        return b""


def _read_verdict(data: bytes) -> tuple[str, str]:
    """Status and detail. Tests write it, so that it may be anything."""
    try:
        match json.loads(data):
            case {"status": str(status), "detail": str(detail)} if status in _VERDICTS:
                return status, detail
            case _:
                return "bad_test", "the tests wrote where their verdict goes"
    except (ValueError, RecursionError):
        return "bad_test", "the tests wrote where their verdict goes"


def _end_of_tests(code: int) -> tuple[str, str]:
    """Status and detail where the tests' process ended, with this code, and said nothing."""
    if code == -signal.SIGXCPU:
        return "timeout", "the tests took too much processor time"
    if code == -signal.SIGKILL:
        # By the kernel, most likely for want of memory, or with the server.
        return "infra_error", "the tests' process was killed"
    ended = f"were killed by {_signal_name(-code)}" if code < 0 else f"exited with {code}"
    return "bad_test", f"the tests {ended}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        # Of real-time signals only the first and the last have names.
        return f"signal {number}"


def _fill(descriptor: int, data: bytes) -> None:
    """Write an empty file, and go back to its beginning."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
