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
from typing import Any, Self

from ioa_jax.errors import InputError
from ioa_jax.sandbox.backends import ForkServer, ServerGoneError
from ioa_jax.sandbox.base import CheckResult, Limits, Status
from ioa_jax.sandbox.workers import wire
from ioa_jax.sandbox.workers.program import EXIT_MEMORY

_GRACE_SECONDS = 10.0  # for a server to report the end of what it killed
_LAST_SECONDS = 1.0  # for a program to end that has closed its channel
_ANSWER_BYTES = 1 << 17
_CHUNK_BYTES = 1 << 16


class _Stream:
    """What comes through a descriptor, which is closed at its end."""

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

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)


class _Process:
    """A process that a server forked, by the reports about it."""

    def __init__(self, report: socket.socket) -> None:
        self.report = report
        self.began = False
        self.refused = ""
        self.end: dict[str, Any] | None = None

    def read(self) -> None:
        """Take one report.

        Raises:
            ServerGoneError: There won't be another.
        """
        data = self.report.recv(_CHUNK_BYTES)
        if not data:
            raise ServerGoneError("the fork server died")
        message: dict[str, Any] = json.loads(data)
        self.began = self.began or "began" in message
        self.refused = self.refused or message.get("refused", "")
        if "code" in message:
            self.end = message

    def kill(self) -> None:
        """Have it killed."""
        with contextlib.suppress(OSError):
            self.report.shutdown(socket.SHUT_WR)


class Attempt:
    """Starts processes, watches them and judges. A context manager, for one program.

    Args:
        limits: The program's.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._began = time.monotonic()
        self._until = self._began + limits.wall_seconds
        self._on_time_out: tuple[Status, str] = (
            "timeout",
            f"no end within {limits.wall_seconds:g} s of wall time",
        )
        self._stack = contextlib.ExitStack()
        self._selector = self._stack.enter_context(selectors.PollSelector())
        # The program's end of its channel, until it is started; ours goes to whoever tests it.
        self._near, self._far = socket.socketpair()
        self._stack.enter_context(self._near)
        self._stack.enter_context(self._far)
        self._ended: tuple[Status, str] | None = None
        self._killed = False
        self._nonce: str | None = None
        self._checker: _Process | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Closing a report's socket kills its process.
        self._stack.close()

    def start_checker(self, server: ForkServer, job: dict[str, Any]) -> None:
        """Start the process that tests.

        Args:
            server: Forks checkers.
            job: `context`, `test` and `entry_points`.

        Raises:
            ServerGoneError: It isn't there.
        """
        answer, answer_end = os.pipe()
        self._answer = self._follow(answer)
        with contextlib.ExitStack() as passed:
            passed.callback(os.close, answer_end)
            null = os.open(os.devnull, os.O_RDWR)
            passed.callback(os.close, null)
            file = _memory_file(passed, json.dumps(job).encode())
            limits = {"AS": self._limits.memory_bytes, "CPU": self._limits.cpu_seconds}
            descriptors = [null, null, null, self._near.fileno(), file, answer_end]
            self._checker = self._start(server, {"limits": limits}, descriptors)
        self._near.close()

    def start_program(
        self, server: ForkServer, source: str, stdin: str = "", *, alone: bool = False
    ) -> None:
        """Start the program; after the checker, unless it is alone.

        Args:
            server: Forks programs.
            source: Python.
            stdin: Its standard input.
            alone: Whether it has to say itself that it reached its end.

        Raises:
            ServerGoneError: It isn't there.
        """
        limits = self._limits
        if alone:
            self._nonce = secrets.token_hex(16)
            self._answer = self._follow(os.dup(self._near.fileno()))
            self._near.close()
        request = {
            "nonce": self._nonce,
            "limits": {
                "AS": limits.memory_bytes,
                "CPU": limits.cpu_seconds,
                "FSIZE": limits.file_bytes,
                "NOFILE": limits.open_files,
                "NPROC": limits.processes,
                "CORE": 0,
            },
        }
        stdout, stdout_end = os.pipe()
        self._stdout = self._follow(stdout)
        stderr, stderr_end = os.pipe()
        self._stderr = self._follow(stderr)
        with contextlib.ExitStack() as passed:
            passed.callback(os.close, stdout_end)
            passed.callback(os.close, stderr_end)
            text = _memory_file(passed, stdin.encode(errors="surrogatepass"))
            file = _memory_file(passed, source.encode(errors="surrogatepass"))
            descriptors = [text, stdout_end, stderr_end, self._far.fileno(), file]
            self._program = self._start(server, request, descriptors)
        self._far.close()

    def watch(self) -> None:
        """Returns when everything has ended or been ended.

        Raises:
            ServerGoneError: A server died meanwhile.
        """
        while self._is_unfinished():
            remaining = self._until - time.monotonic()
            if remaining <= 0:
                if self._killed:
                    raise ServerGoneError("a process that was killed didn't end")
                self._stop(*self._on_time_out)
                continue
            for key, _ in self._selector.select(remaining):
                source = key.data
                if isinstance(source, _Process):
                    source.read()
                    if source.end is not None:
                        self._selector.unregister(source.report)
                    continue
                source.read()
                if not source.open:
                    self._selector.unregister(source.descriptor)
                    if source is self._answer and self._checker is not None:
                        self._on_verdict()
            self._limit_output()
        # What was written just before the end.
        while self._stdout.read() or self._stderr.read():
            if self._limit_output():
                break

    def result(self) -> CheckResult:
        """What became of the program, after `watch`.

        Raises:
            InputError: The tests are at fault.
        """
        assert self._program.end is not None
        status, detail = self._judge(self._program.end)
        size = self._limits.output_bytes
        return CheckResult(
            status=status,
            detail=detail,
            stdout=self._stdout.data[:size].decode(errors="replace"),
            stderr=self._stderr.data[:size].decode(errors="replace"),
            cpu_seconds=self._program.end["cpu"],
            wall_seconds=time.monotonic() - self._began,
        )

    def _start(
        self, server: ForkServer, request: dict[str, Any], descriptors: list[int]
    ) -> _Process:
        report = self._stack.enter_context(server.submit(request, descriptors))
        process = _Process(report)
        self._selector.register(report, selectors.EVENT_READ, process)
        return process

    def _follow(self, descriptor: int) -> _Stream:
        stream = _Stream(descriptor)
        self._stack.callback(stream.close)
        self._selector.register(descriptor, selectors.EVENT_READ, stream)
        return stream

    def _is_unfinished(self) -> bool:
        if self._program.end is None or self._answer.open:
            return True
        # How the checker ended matters only if it didn't say anything.
        return self._checker is not None and self._checker.end is None and not self._answer.data

    def _on_verdict(self) -> None:
        if self._answer.data and _verdict(self._answer.data)["status"] == "gone":
            # Its end, which says why, is about to be reported.
            self._until = min(self._until, time.monotonic() + _LAST_SECONDS)
            self._on_time_out = ("failed", "it closed the channel to its tests")
        else:
            self._kill()

    def _limit_output(self) -> bool:
        size = len(self._stdout.data) + len(self._stderr.data)
        if size > self._limits.output_bytes:
            self._stop("output_limit", f"more than {self._limits.output_bytes} bytes of output")
        elif len(self._answer.data) > _ANSWER_BYTES:
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
            if self._checker is not None:
                self._checker.kill()

    def _judge(self, end: dict[str, Any]) -> tuple[Status, str]:
        for process in (self._program, self._checker):
            if process is not None and process.refused:
                return "infra_error", f"a process can't be confined: {process.refused}"
        if not self._program.began:
            return "infra_error", "the process ended before its program began"
        if end["files"]:
            return "output_limit", "it made too many or too large files"
        if self._ended is not None:
            return self._ended
        if self._checker is None:
            return self._judge_alone(end)
        if not self._answer.data:
            assert self._checker.end is not None
            code, cpu = self._checker.end["code"], self._checker.end["cpu"]
            if self._is_out_of_time(code, cpu):
                return "timeout", f"the tests took {cpu:.1f} s of processor time"
            return "infra_error", f"the tests' process ended with {code}"
        verdict = _verdict(self._answer.data)
        match verdict["status"]:
            case "gone":
                return self._judge_exit(end)
            case "bad_test":
                raise InputError(f"the tests can't be run: {verdict['detail']}")
            case status:
                return status, verdict["detail"]

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
            case {"raised": {"types": [kind, *_], "message": text}}:
                return "failed", f"{kind}: {text}"
            case _:
                return "forged", "it wrote to its channel"

    def _judge_exit(self, end: dict[str, Any]) -> tuple[Status, str]:
        code, cpu = end["code"], end["cpu"]
        if code == EXIT_MEMORY:
            return "memory", f"more than {self._limits.memory_bytes} bytes"
        if self._is_out_of_time(code, cpu):
            return "timeout", f"{cpu:.1f} s of processor time"
        if code == -signal.SIGKILL:
            return "memory", "killed by the kernel, most likely for want of memory"
        if code < 0:
            return "failed", f"killed by {signal.Signals(-code).name}"
        return "failed", f"it exited with {code} before its end"

    def _is_out_of_time(self, code: int, cpu: float) -> bool:
        # The kernel counts in ticks and ours is a rounded sum, so the last hundredth may be absent.
        over = cpu >= self._limits.cpu_seconds - 0.05
        return code == -signal.SIGXCPU or (code == -signal.SIGKILL and over)


def _memory_file(stack: contextlib.ExitStack, data: bytes) -> int:
    """An open file with this content, which lies nowhere; the stack closes it."""
    descriptor = os.memfd_create("ioa")
    stack.callback(os.close, descriptor)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _verdict(data: bytearray) -> dict[str, Any]:
    return json.loads(data)
