"""A fork server: a process for each program and for each program's tests, watched to its end.

Started as `python -m workers.server CONFIG`; CONFIG is a JSON object with the members `control`
(descriptor of a SEQPACKET socket), some of `Isolation`'s, and what programs may import beside the
standard library: `packages` (folder), `package_folders` (those that its links lead to),
`package_versions` (for the record) and `package_python` (the version that they are for).

A packet on that socket asks for a process, a JSON object with `limits` (see `bounded`) and `tests`:
whether it is one for tests (see `checker`), which has no folder, rather than for a program (see
`program`). With it come a SEQPACKET socket for reports, and what the process gets as descriptors 0,
1 and so on, or from 3 on for tests. The process confines itself and then waits at its socket for
one packet, a JSON object with `nonce` for a program: so it can be made ahead of what it runs. If it
can't be confined it reports `{"refused": why}` there, in JSON; at its end the server reports
`{"code", "cpu", "files", "full"}`: exit code, negative for a signal, or null if the program had
nothing more to do and was ended; processor time in seconds; whether its files were too many; and
whether others left it no room. If there can be no process, the server reports all five.
When nobody can write to that socket any more, its process is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import os
import platform
import resource
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from . import checker, program
from .folders import has_too_many_files, nameless_bytes, remove
from .isolation import Isolation, bounded, leave_own_code, readable

# What programs import most. Once here, they don't load it each time; but to fork and to end a
# process takes the longer the more there is.
PRELOADED = (
    "bisect", "collections", "copy", "functools", "heapq", "itertools", "json", "math", "operator",
    "random", "re", "string", "sys", "typing",
)  # fmt: skip

MAX_REQUEST_BYTES = 65536
MAX_DESCRIPTORS = 8
_ABOVE = 100  # higher than any descriptor that a process starts with
_WATCH_FILES_SECONDS = 0.1
_LEAST_ROOM = 1 << 20  # bytes
_CLOCK_OF_PROCESS = 2


class _Job:
    """A process, by descriptors of what there is of it here."""

    def __init__(self, pid: int, report: int) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.report = report
        self.is_reported = False


class _Program(_Job):
    """A program's process, with its directory, whose files have `largest` bytes at most."""

    def __init__(self, pid: int, report: int, leaving: int, directory: str, largest: int) -> None:
        super().__init__(pid, report)
        self.leaving = leaving
        self.directory = directory
        self.folder = os.path.dirname(directory)
        self.largest = largest
        self.has_left = self.is_over = False


class Server:
    """Serves until the other end of the control socket is closed."""

    def __init__(self, control: socket.socket, isolation: Isolation) -> None:
        self._control = control
        self._isolation = isolation
        self._count = self._others = 0
        # How many programs each has.
        self._folders = dict.fromkeys(isolation.folders, 0)
        self._most_descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._poll = select.poll()
        self._by_pidfd: dict[int, _Job] = {}
        self._by_report: dict[int, _Job] = {}
        self._by_leaving: dict[int, _Program] = {}

    def serve(self) -> None:
        """Returns when nobody is there to serve; the processes are dead then."""
        self._poll.register(self._control, select.POLLIN)
        looked = 0.0
        while True:
            # A file system without limits of its own is looked at now and then, while there is more
            # than the process that waits for a program.
            watch = len(self._by_leaving) > 1 and not self._isolation.files_bounded
            events = self._poll.poll(_WATCH_FILES_SECONDS * 1000 if watch else None)
            for descriptor, event in events:
                if descriptor in self._by_pidfd:
                    self._finish(self._by_pidfd[descriptor])
                elif descriptor in self._by_leaving:
                    self._poll.unregister(descriptor)
                    if event & select.POLLIN:
                        self._leave(self._by_leaving[descriptor])
                elif descriptor in self._by_report:
                    job = self._by_report[descriptor]
                    self._poll.unregister(descriptor)
                    _kill(job.pid)
                elif descriptor == self._control.fileno() and not self._accept():
                    for job in list(self._by_pidfd.values()):
                        self._finish(job, silently=True)
                    return
            if watch and time.monotonic() - looked > _WATCH_FILES_SECONDS:
                looked = time.monotonic()
                for job in self._by_leaving.values():
                    self._look_at_files(job)

    def _accept(self) -> bool:
        data, descriptors, flags, _ = socket.recv_fds(
            self._control, MAX_REQUEST_BYTES, MAX_DESCRIPTORS
        )
        if not data:
            return False
        if not descriptors:
            # Lost for want of room; whoever asked sees that its socket has no other end.
            return True
        report, *others = descriptors
        with contextlib.ExitStack() as passed, contextlib.ExitStack() as kept:
            kept.callback(os.close, report)
            for descriptor in others:
                passed.callback(os.close, descriptor)
            try:
                if flags & socket.MSG_CTRUNC:
                    raise OSError("no room for its descriptors")
                request = json.loads(data)
                start = self._start_tests if request["tests"] else self._start_program
                start(request["limits"], report, others, passed, kept)
            except OSError as error:
                end = {"refused": str(error), "code": 1, "cpu": 0.0, "files": False, "full": False}
                # Whoever asked may have given up.
                with contextlib.suppress(OSError):
                    os.write(report, json.dumps(end).encode())
                return True
            kept.pop_all()
        return True

    def _start_program(
        self,
        limits: dict[str, int],
        report: int,
        others: list[int],
        passed: contextlib.ExitStack,
        kept: contextlib.ExitStack,
    ) -> None:
        """Make a program's process.

        Args:
            limits: The request's.
            report: Descriptor for its reports.
            others: What it gets as descriptors 0, 1 and so on.
            passed: Takes what there is to be closed afterwards, as the process has its own.
            kept: Takes what there is to be undone if this fails.

        Raises:
            OSError: There is want of something.
        """
        # What may fail is done before the fork: until it is confined, a process holds what is
        # the server's.
        self._count += 1
        folder = min(self._folders, key=self._folders.__getitem__)
        directory = os.path.join(folder, str(self._count))
        os.mkdir(directory, 0o700)
        kept.callback(remove, directory)
        leaving, last = os.pipe()
        kept.callback(os.close, leaving)
        passed.callback(os.close, last)
        pid = self._fork(limits, report, [*others, last], directory, passed)
        kept.callback(_end, pid)
        job = _Program(pid, report, leaving, directory, limits["FSIZE"])
        self._folders[folder] += 1
        self._by_leaving[leaving] = job
        self._poll.register(leaving, select.POLLIN)
        self._register(job)

    def _start_tests(
        self,
        limits: dict[str, int],
        report: int,
        others: list[int],
        passed: contextlib.ExitStack,
        kept: contextlib.ExitStack,
    ) -> None:
        """Make a process for tests, as `_start_program`, but `others` begin at 3."""
        # The server's own, which lead nowhere.
        streams = [os.dup(0), os.dup(1), os.dup(1)]
        for descriptor in streams:
            passed.callback(os.close, descriptor)
        pid = self._fork(limits, report, [*streams, *others], None, passed)
        kept.callback(_end, pid)
        self._register(_Job(pid, report))

    def _register(self, job: _Job) -> None:
        self._by_pidfd[job.pidfd] = self._by_report[job.report] = job
        self._poll.register(job.pidfd, select.POLLIN)
        # Its packets are for the process.
        self._poll.register(job.report, select.POLLRDHUP)

    def _fork(
        self,
        limits: dict[str, int],
        report: int,
        descriptors: list[int],
        directory: str | None,
        passed: contextlib.ExitStack,
    ) -> int:
        """Number of a new process, which confines itself and waits; tests have no directory."""
        # Those that wait count towards the limit of processes. Tests are asked for right after
        # their program; to count takes long where there are many.
        if directory is not None:
            self._others = self._isolation.count_processes()
        limits["NPROC"] += len(self._by_pidfd) + self._others
        bounds = bounded(limits)
        ruleset = self._isolation.ruleset(directory)
        if ruleset is not None:
            passed.callback(os.close, ruleset)
        server = os.getpid()
        pid = self._isolation.fork(shown=directory is not None and self._isolation.sees_open_files)
        if pid == 0:
            self._become(report, descriptors, directory, ruleset, server, bounds)
        return pid

    def _become(
        self,
        report: int,
        descriptors: list[int],
        directory: str | None,
        ruleset: int | None,
        server: int,
        limits: list[tuple[int, tuple[int, int]]],
    ) -> NoReturn:
        """In the forked process: never returns."""
        try:
            # From here on the few descriptors and this one are all there are.
            at = fcntl.fcntl(report, fcntl.F_DUPFD, _ABOVE)
            try:
                self._isolation.confine_files(directory, ruleset, server)
                # They came above their places, in order.
                for target, descriptor in enumerate(descriptors):
                    os.dup2(descriptor, target)
                os.closerange(len(descriptors), at)
                os.closerange(at + 1, self._most_descriptors)
                self._isolation.confine()
                for kind, values in limits:
                    resource.setrlimit(kind, values)
                data = os.read(at, MAX_REQUEST_BYTES)
                if not data:
                    os._exit(0)
                request = json.loads(data)
            except (OSError, ValueError) as error:
                os.write(at, json.dumps({"refused": str(error)}).encode())
                os._exit(1)
            os.close(at)
            if directory is None:
                checker.main()
            else:
                program.main(request["nonce"])
            os._exit(0)
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            os._exit(1)

    def _leave(self, job: _Program) -> None:
        """End a process that has nothing more to do.

        Nobody need wait until the kernel has taken its memory apart. But the next program may find
        no room before this one's files are gone.
        """
        _kill(job.pid)
        job.has_left = True
        try:
            # Succeeds only if there are none; none can be made afterwards.
            os.rmdir(job.directory)
        except OSError:
            return
        job.is_reported = True
        # The clock of a process's processor time, as the C library's clock_getcpuclockid has it.
        cpu = time.clock_gettime(~job.pid << 3 | _CLOCK_OF_PROCESS)
        self._report(job, None, cpu)

    def _report(
        self, job: _Job, code: int | None, cpu: float, files: bool = False, full: bool = False
    ) -> None:
        end = {"code": code, "cpu": cpu, "files": files, "full": full}
        # Whoever asked may have given up.
        with contextlib.suppress(OSError):
            os.write(job.report, json.dumps(end).encode())

    def _finish(self, job: _Job, silently: bool = False) -> None:
        # What the program may have started, where it could, is of its group. After the wait the
        # number could be another's.
        _kill(job.pid)
        _, status, usage = os.wait4(job.pid, 0)
        code, files, full = os.waitstatus_to_exitcode(status), False, False
        descriptors = [job.pidfd, job.report]
        if isinstance(job, _Program):
            code = None if job.has_left else code
            bounded = self._isolation.files_bounded
            files = job.is_over or (not bounded and has_too_many_files(job.directory))
            full = self._is_full(job)
            remove(job.directory)
            self._folders[job.folder] -= 1
            del self._by_leaving[job.leaving]
            descriptors.append(job.leaving)
        if not job.is_reported and not silently:
            self._report(job, code, usage.ru_utime + usage.ru_stime, files, full)
        del self._by_pidfd[job.pidfd], self._by_report[job.report]
        for descriptor in descriptors:
            # It isn't registered any more where it has had its event.
            with contextlib.suppress(KeyError):
                self._poll.unregister(descriptor)
            os.close(descriptor)

    def _is_full(self, job: _Program) -> bool:
        """Whether there is no room left where others have their files, too."""
        if self._isolation.folders != [job.folder] and self._folders[job.folder] == 1:
            return False
        found = os.statvfs(job.folder)
        return found.f_bavail * found.f_frsize < _LEAST_ROOM

    def _look_at_files(self, job: _Program) -> None:
        """Kill a process whose files are too many."""
        try:
            size = (
                nameless_bytes(job.pid, job.directory, job.largest)
                if self._isolation.sees_open_files
                else 0
            )
        except OSError as error:
            # Such as of a security module.
            with contextlib.suppress(OSError):
                os.write(job.report, json.dumps({"refused": str(error)}).encode())
            _kill(job.pid)
            return
        if has_too_many_files(job.directory, size):
            job.is_over = True
            _kill(job.pid)


def _kill(pid: int) -> None:
    """Kill a process that hasn't been reaped, and its group. It may not lead one yet."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)


def _end(pid: int) -> None:
    _kill(pid)
    os.waitpid(pid, 0)


def main() -> None:
    """Confine this process, say so, and serve."""
    config: dict[str, Any] = json.loads(sys.argv[1])
    control = socket.socket(fileno=config.pop("control"))
    leave_own_code()
    packages: list[str] = config.pop("package_versions")
    folders: list[str] = config.pop("package_folders")
    path: str = config.pop("packages")
    # Extensions are compiled for one version.
    if config.pop("package_python") == ".".join(platform.python_version_tuple()[:2]):
        sys.path.append(path)
    else:
        packages, folders = [], []
    isolation = Isolation(readable=[*readable(), *folders], **config)
    try:
        isolation.confine_server()
    except OSError as error:
        control.send(json.dumps({"refused": str(error)}).encode())
        return
    for name in PRELOADED:
        importlib.import_module(name)
    hello = {
        "isolation": isolation.in_force,
        "landlock_abi": isolation.landlock_abi,
        "python": platform.python_version(),
        "packages": packages,
    }
    control.send(json.dumps(hello).encode())
    # Forked processes share what is never touched.
    gc.collect()
    gc.freeze()
    Server(control, isolation).serve()


if __name__ == "__main__":
    main()
