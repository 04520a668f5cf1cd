"""Worker processes for judgements that a text may make endless.

The libraries that judge bring time limits made of alarms, which work in a main thread alone and
which a library may swallow; or none. A process of its own can be ended by the kernel.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import queue
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ioa_jax.errors import InputError, MissingDependencyError

_START_SECONDS = 120.0
_ROOT = str(Path(__file__).parents[2])


@dataclasses.dataclass(frozen=True)
class Reply:
    """What came of a request.

    Attributes:
        value: The worker's answer; None if its process had to end, or ended.
        source: What judged, as the worker says; `timeout` at a limit.
        detail: Why there is no value; else empty.
    """

    value: dict[str, Any] | None
    source: str
    detail: str = ""


class WorkerPool:
    """Processes that answer one request at a time each. Safe to use from several threads."""

    def __init__(
        self,
        module: str,
        workers: int,
        cpu_seconds: float,
        wall_seconds: float,
        memory_bytes: int,
    ) -> None:
        """No process is started yet.

        Args:
            module: What a process runs; it calls `serve`.
            workers: Processes.
            cpu_seconds: Processor time for one request: the limit that is meant to bind, since it
                doesn't depend on what else the machine does.
            wall_seconds: Wall time for one request.
            memory_bytes: Address space of a process.

        Raises:
            InputError: One of them isn't positive.
        """
        settings = {
            "workers": workers,
            "cpu_seconds": cpu_seconds,
            "wall_seconds": wall_seconds,
            "memory_bytes": memory_bytes,
        }
        for name, value in settings.items():
            if value <= 0:
                raise InputError(f"grader: {name}={value}: a positive number is needed")
        self._num_workers = workers
        self._wall_seconds = wall_seconds
        self._closed = False
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        for _ in range(workers):
            self._idle.put(_Worker(module, cpu_seconds, memory_bytes))

    def ask(self, request: Mapping[str, Any]) -> Reply:
        """Have a worker answer.

        Args:
            request: JSON-able.

        Raises:
            MissingDependencyError: A process doesn't get as far as to take requests.
        """
        if self._closed:
            raise RuntimeError("the grader is closed")
        worker = self._idle.get()
        try:
            return worker.ask(request, self._wall_seconds)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End the processes, after the requests that are under way."""
        if not self._closed:
            self._closed = True
            for _ in range(self._num_workers):
                self._idle.get().stop()


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]], source: str) -> None:
    """In a worker's process: answer requests until the input ends.

    A request is a line of JSON on standard input, its reply a line on standard output; before the
    first, a line says what answers. The arguments are the limits: seconds of processor time for one
    request, past which SIGPROF ends the process, and bytes of address space (RLIMIT_AS; on Linux
    only, since others don't keep to it).

    Args:
        answer: Gives the reply to a request. If it raises, the reply is the exception's name, as
            `error`.
        source: Libraries and their versions.
    """
    cpu_seconds, memory_bytes = float(sys.argv[1]), int(sys.argv[2])
    logging.disable(logging.CRITICAL)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    # What a library may print must not stand between the replies.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    print(json.dumps({"source": source}), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        try:
            reply = answer(request)
        except Exception as error:
            # Whatever a library makes of a model's text, the text is at fault.
            reply = {"error": type(error).__name__}
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(reply), file=replies, flush=True)


class _Worker:
    """One process, started when it is first needed and again after its end. Not thread-safe."""

    def __init__(self, module: str, cpu_seconds: float, memory_bytes: int) -> None:
        # -P: the working directory's files must not stand in for Python's own.
        self._command = [sys.executable, "-P", "-m", module, str(cpu_seconds), str(memory_bytes)]
        self._cpu_seconds = cpu_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._source = ""

    def ask(self, request: Mapping[str, Any], wall_seconds: float) -> Reply:
        """As `WorkerPool.ask`."""
        process = self._started()
        assert process.stdin is not None
        # A process that ended meanwhile shows below.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        value, late = _read_line(process, wall_seconds)
        if value is not None:
            return Reply(value, self._source)
        code = self.stop()
        if late:
            return Reply(None, "timeout", f"killed after {wall_seconds:g} s")
        if code == -signal.SIGPROF:
            detail = f"killed after {self._cpu_seconds:g} s of processor time"
            return Reply(None, "timeout", detail)
        return Reply(None, self._source, f"it ended its process, exit status {code}")

    def stop(self) -> int | None:
        """Kill the process if there is one; its exit status."""
        process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdin is not None
        assert process.stdout is not None
        process.kill()
        process.stdout.close()
        # Closing flushes what a process that ended early never read.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        return process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None:
            return self._process
        path = [_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        )
        hello, _ = _read_line(self._process, _START_SECONDS)
        if hello is None:
            code = self.stop()
            raise MissingDependencyError(
                f"a grader's process ended with status {code} before it took a request. See why "
                f"with {' '.join(self._command)}; to install what it needs: pip install ioa-jax"
            )
        self._source = hello["source"]
        return self._process


def _read_line(
    process: subprocess.Popen[bytes], wall_seconds: float
) -> tuple[dict[str, Any] | None, bool]:
    """The next reply, None if there is none; whether that is because of the limit."""
    assert process.stdout is not None
    deadline = time.monotonic() + wall_seconds
    read = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not read.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None, True
            new = os.read(process.stdout.fileno(), 1 << 16)
            if not new:
                return None, False
            read += new
    return json.loads(read), False
