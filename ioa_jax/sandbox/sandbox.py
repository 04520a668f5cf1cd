"""Runs untrusted programs, and benchmarks' tests against them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType

from ioa_jax.sandbox.attempt import Attempt
from ioa_jax.sandbox.backends import choose
from ioa_jax.sandbox.base import Backend, CheckResult, Limits, SandboxInfo
from ioa_jax.sandbox.processes import BackendError, ForkServer, ServerGoneError


def probe() -> SandboxInfo:
    """The strongest isolation that works here.

    Raises:
        SandboxError: None does; the message says why and what to do.
    """
    return choose(None, allow_weak=False)


class Sandbox:
    """A jail with a fork server in it, for programs and their tests.

    Each program runs in a process of its own, forked from the server, under `limits` and, with the
    strong backends, Landlock and a filter of system calls: it reads the standard library, writes to
    a directory of its own that is removed afterwards, and has no network, no processes and no
    environment. The jail of bubblewrap adds namespaces; where there is no bubblewrap the server
    makes its own if it may.

    **Verdicts.** `check` tests from outside: a program can compute wrong answers, or none, but
    can't declare itself right. What crosses is plain data (`workers.wire`), by value: what a
    function does to its arguments in place is not seen by the tests, which no reference solution of
    HumanEval or MBPP needs. A value that isn't plain stays in the program's process; tests can pass
    it back, call it, iterate it, use its attributes and ask whether it is true, but not compare it.
    Exceptions arrive as the nearest builtin class, with their message; StopIteration, IndexError
    and AttributeError, which loops and look-ups swallow, are only caught by `except` clauses. A
    verdict that is reached stays, whatever tests catch.

    **What is left.** The kernel is shared, as are processor caches, and existence and size of files
    can be asked for, as can the names of installed packages. Programs of one sandbox share its
    limit of threads. Where there are namespaces, each of 64 programs at a time has a file system of
    64 MiB, and further ones share these; without, their files are counted ten times a second.

    Safe to use from several threads at once; as many programs then run at a time. Servers that die
    are started again. Random numbers and hashes of texts are the same in each program.

    Args:
        limits: Of programs for which nothing else is said; default `Limits()`.
        backend: None for the strongest that works here.
        allow_weak: Take `rlimits`, under which programs can read files, use the network and be a
            nuisance to other processes of their user, if asked for or if nothing else works.

    Raises:
        SandboxError: The backend doesn't work here, none does, or it is weak.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        backend: Backend | None = None,
        allow_weak: bool = False,
    ) -> None:
        self.limits = limits or Limits()
        self.info = choose(backend, allow_weak)
        self._lock = threading.Lock()
        self._server: ForkServer | None = None
        self._closed = False

    def check(
        self,
        source: str,
        test: str,
        entry_points: Sequence[str],
        limits: Limits | None = None,
        *,
        context: str = "",
    ) -> CheckResult:
        """Whether a program passes tests.

        Args:
            source: The untrusted program. It is a module named `program`, not `__main__`.
            test: Python that raises if the program is wrong, run apart from the program and as
                confined; it may write no file.
            entry_points: Names that stand for the program's in `test`. Other names that neither
                test nor context nor Python defines stand for the program's too, but for those of
                modules of the standard library, which are imported.
            limits: Default: the sandbox's.
            context: Python that runs before `test`, such as helpers that it uses.

        Returns:
            Whatever program and tests are, this doesn't raise: tests that aren't Python or do what
            can't be done from outside, such as passing a function to the program, are a
            `bad_test`.
        """
        job = {"context": context, "test": test, "entry_points": list(entry_points)}

        def work(attempt: Attempt, server: ForkServer) -> CheckResult:
            attempt.start_program(source)
            attempt.start_tests(job)
            server.prepare(attempt.limits, tests=True)
            attempt.watch()
            return attempt.result()

        return self._certainly(limits, work, tests=True)

    def run(self, source: str, limits: Limits | None = None, *, stdin: str = "") -> CheckResult:
        """Whether a program runs to its end, by its own account.

        A program that wants to can pretend to, since whatever tests it has are in its own process.

        Args:
            source: The untrusted program. It is a module named `program`, not `__main__`.
            limits: Default: the sandbox's.
            stdin: Its standard input.
        """

        def work(attempt: Attempt, server: ForkServer) -> CheckResult:
            attempt.start_program(source, stdin, alone=True)
            server.prepare(attempt.limits, tests=False)
            attempt.watch()
            return attempt.result()

        return self._certainly(limits, work, tests=False)

    def close(self) -> None:
        """End all processes. Running checks end with `infra_error`."""
        with self._lock:
            self._closed = True
            if self._server is not None:
                self._server.close()
            self._server = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _certainly(
        self,
        limits: Limits | None,
        work: Callable[[Attempt, ForkServer], CheckResult],
        tests: bool,
    ) -> CheckResult:
        """What comes of an attempt, or of a second one if the sandbox failed at the first."""

        def attempt() -> CheckResult:
            try:
                server = self._take_server()
                with (
                    server.lend(limits or self.limits, tests) as process,
                    Attempt(process) as current,
                ):
                    return work(current, server)
            except ServerGoneError as error:
                return CheckResult("infra_error", str(error), "", "", 0.0, 0.0)

        result = attempt()
        return attempt() if result.status == "infra_error" else result

    def _take_server(self) -> ForkServer:
        with self._lock:
            if self._closed:
                raise ServerGoneError("the sandbox is closed")
            if self._server is None or not self._server.alive:
                if self._server is not None:
                    self._server.close()
                    self._server = None
                try:
                    self._server = ForkServer(self.info.backend, self.info.interpreter)
                except BackendError as error:
                    raise ServerGoneError(str(error)) from None
            return self._server
