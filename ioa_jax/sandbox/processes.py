"""The sandbox's own processes, as seen from the one that uses it."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import importlib.metadata
import importlib.util
import json
import os
import select
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ioa_jax.sandbox import workers
from ioa_jax.sandbox.base import JAILED, WEAK, Backend, Limits
from ioa_jax.sandbox.workers.folders import FILES_BYTES, file_systems, remove

NOBODY = 65534

_PREFIX, _LOCK = "ioa-sandbox-", ".lock"
_START_SECONDS = 60.0
_END_SECONDS = 10.0
_OLDEST_PYTHON = (3, 11)
# That programs may import beside the standard library, if they are installed here.
PACKAGES = ("numpy",)


class BackendError(Exception):
    """A server can't be started with this backend and interpreter; the message says why."""


class ServerGoneError(Exception):
    """One of the sandbox's processes ended, or was ended."""


def _own_folder() -> tuple[Path, int]:
    """A new folder, and the descriptor whose lock says that somebody uses it.

    Those of processes that were killed are removed: their locks went with them.
    """
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # Another user's, or removed meanwhile by whom it belongs to.
        with contextlib.suppress(OSError):
            if left.stat(follow_symlinks=False).st_uid != os.geteuid():
                continue
            lock = os.open(left / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                continue
            _remove_folder(left, lock)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    # By its name only once it is locked: nobody takes it for one that was left.
    unnamed = folder / f"{_LOCK}.new"
    lock = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    unnamed.rename(folder / _LOCK)
    return folder, lock


def _remove_folder(folder: Path, lock: int) -> None:
    remove(str(folder))
    os.close(lock)


@dataclasses.dataclass(frozen=True)
class WaitingTests:
    """A process that waits for tests, by our ends of what it has.

    Attributes:
        report: Takes its request, and gives the reports.
        verdict: Gives one packet, see `workers.checker`.
        job: Empty file for what it is to do.
    """

    report: socket.socket
    verdict: socket.socket
    job: int

    def close(self) -> None:
        """Give everything back, which ends the process."""
        self.report.close()
        self.verdict.close()
        os.close(self.job)


@dataclasses.dataclass
class Waiting:
    """A process that waits for its program, by our ends of what it has.

    Attributes:
        limits: The program's, and its tests'.
        report: Takes its request, and gives the reports.
        channel: The other end of its channel.
        stdout: Pipe, to be read from.
        stderr: As stdout.
        stdin: Empty file that it reads.
        source: Empty file for its program.
        tests: The process for its tests, if it is to be tested.
    """

    limits: Limits
    report: socket.socket
    channel: socket.socket
    stdout: int
    stderr: int
    stdin: int
    source: int
    tests: WaitingTests | None = None

    def drop_tests(self) -> None:
        """End the process for the tests, if there is one."""
        if self.tests is not None:
            self.tests.close()
            self.tests = None

    def close(self) -> None:
        """Give everything back, which ends the processes."""
        self.drop_tests()
        self.report.close()
        self.channel.close()
        for descriptor in (self.stdout, self.stderr, self.stdin, self.source):
            os.close(descriptor)


class ForkServer:
    """Forks processes for programs and their tests, from one with a folder and a socket to it.

    As root it is user nobody's. Its environment is empty.

    Args:
        backend: How it and they are isolated.
        interpreter: Path of a Python.

    Raises:
        BackendError: It didn't start.
    """

    def __init__(self, backend: Backend, interpreter: str) -> None:
        self.folder, lock = _own_folder()
        # Also at the interpreter's exit, where nobody closed it. Not `shutil.rmtree`, which ends
        # with an error where a program nested folders too deep.
        self._remove_folder = weakref.finalize(self, _remove_folder, self.folder, lock)
        self.process: subprocess.Popen[bytes] | None = None
        self.control, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._user = NOBODY if os.geteuid() == 0 else None
        self._lock = threading.Lock()
        self._spare: list[Waiting] = []
        self._running = 0
        try:
            code = self._copy_code()
            work = self.folder / "work"
            work.mkdir(mode=0o700)
            if self._user is not None:
                os.chown(work, self._user, self._user)
            isolated, jailed = backend != WEAK, backend == JAILED
            packages = self._packages()
            if not jailed:
                for name, source in packages.items():
                    (self.folder / "packages" / name).symlink_to(source)
            config = {
                "control": self._theirs.fileno(),
                "landlock": isolated,
                "seccomp": isolated,
                "namespaces": isolated and not jailed,
                "jailed": jailed,
                "work": "/tmp" if jailed else str(work),
                "packages": "/packages" if jailed else str(self.folder / "packages"),
                "package_folders": [] if jailed else [str(path) for path in packages.values()],
                "package_versions": [_described(name) for name in PACKAGES if name in packages],
                "package_python": f"{sys.version_info.major}.{sys.version_info.minor}",
            }
            jail = _bubblewrap(interpreter, code, packages) if jailed else []
            code_seen = "/sandbox" if jailed else str(code)
            self._start([*jail, interpreter], code_seen, json.dumps(config))
            self.hello = self._greet()
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def lend(self, limits: Limits, tests: bool) -> Generator[Waiting, None, None]:
        """A process for one program, which is killed at the end.

        Args:
            limits: The program's.
            tests: Whether there is to be one for its tests, too.

        Raises:
            ServerGoneError: There is nobody to make one.
        """
        with self._lock:
            self._running += 1
            try:
                waiting = self._take(limits, tests)
            except BaseException:
                self._running -= 1
                raise
        try:
            yield waiting
        finally:
            waiting.close()
            with self._lock:
                self._running -= 1

    def prepare(self, limits: Limits, tests: bool) -> None:
        """Have the next program's process made, and its tests', while this one's work.

        Raises:
            ServerGoneError: There is nobody to do it.
        """
        with self._lock:
            self._spare.append(self._ask(limits, tests))

    def close(self) -> None:
        """End the process and everything that it forked, and remove its folder."""
        self.control.close()
        self._theirs.close()
        if self.process is not None:
            try:
                self.process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._errors.close()
        self._remove_folder()
        for waiting in self._spare:
            waiting.close()
        self._spare.clear()

    @property
    def alive(self) -> bool:
        """Whether the process runs and hasn't let go of its socket, which it does first."""
        poll = select.poll()
        poll.register(self.control, 0)
        return self.process is not None and self.process.poll() is None and not poll.poll(0)

    def _copy_code(self) -> Path:
        """Copy `workers`, which may lie where the process's user can't read it."""
        code = self.folder / "code"
        shutil.copytree(
            Path(workers.__file__).parent,
            code / "workers",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        if self._user is not None:
            for path in (self.folder, code, code / "workers"):
                path.chmod(0o755)
            for path in (code / "workers").iterdir():
                path.chmod(0o644)
        return code

    def _start(self, command: Sequence[str], code: str, config: str) -> None:
        """Start the process.

        Raises:
            BackendError: The command can't be run.
        """
        # -s -S -P and not -I, which would ignore PYTHONHASHSEED: the same program gets the same
        # hashes of texts each time.
        options = ["-s", "-S", "-P", "-B", "-X", "utf8", "-m", "workers.server"]
        try:
            self.process = subprocess.Popen(
                [*command, *options, config],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                cwd="/",
                env={
                    "PYTHONHASHSEED": "0",
                    "PYTHONPATH": code,
                    # A thread for each processor would be over the limits of a program.
                    "OPENBLAS_NUM_THREADS": "1",
                },
                pass_fds=(self._theirs.fileno(),),
                start_new_session=True,
                user=self._user,
                group=self._user,
                extra_groups=None if self._user is None else (),
            )
        except OSError as error:
            raise BackendError(str(error)) from None
        self._theirs.close()

    def _greet(self) -> dict[str, Any]:
        """The process's first packet.

        Raises:
            BackendError: It didn't come, or refuses.
        """
        self.control.settimeout(_START_SECONDS)
        try:
            data = self.control.recv(1 << 16)
        except TimeoutError:
            raise BackendError(f"nothing within {_START_SECONDS:.0f} s of the start") from None
        finally:
            self.control.settimeout(None)
        if not data:
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            raise BackendError(lines[-1] if lines else "it ended without a word")
        hello: dict[str, Any] = json.loads(data)
        if "refused" in hello:
            raise BackendError(hello["refused"])
        version = tuple(int(part) for part in hello["python"].split(".")[:2])
        if version < _OLDEST_PYTHON:
            raise BackendError(f"Python {hello['python']} is too old")
        return hello

    def _packages(self) -> dict[str, Path]:
        """The folders of `PACKAGES`, where the server's user can read them, by name."""
        (self.folder / "packages").mkdir(mode=0o755)
        found: dict[str, Path] = {}
        for name in PACKAGES:
            spec = importlib.util.find_spec(name)
            if spec is None or not spec.submodule_search_locations:
                continue
            source = Path(spec.submodule_search_locations[0]).resolve()
            for folder in (source, source.with_name(f"{name}.libs")):
                if folder.is_dir():
                    found[folder.name] = folder if self._reads(folder) else self._copied(folder)
        return found

    def _reads(self, path: Path) -> bool:
        if self._user is None:
            return True
        return all(
            one.stat().st_mode & stat.S_IXOTH and one.stat().st_mode & stat.S_IROTH
            if one == path
            else one.stat().st_mode & stat.S_IXOTH
            for one in (path, *path.parents)
        )

    def _copied(self, source: Path) -> Path:
        copy = self.folder / "copies" / source.name
        copy.parent.mkdir(mode=0o755, exist_ok=True)
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "tests"))
        return copy

    def _take(self, limits: Limits, tests: bool) -> Waiting:
        while self._spare:
            waiting = self._spare.pop(0)
            if waiting.limits != limits:
                waiting.close()
                continue
            if not tests:
                waiting.drop_tests()
            elif waiting.tests is None:
                try:
                    waiting.tests = self._ask_tests(limits, waiting.channel)
                except BaseException:
                    waiting.close()
                    raise
            return waiting
        return self._ask(limits, tests)

    def _ask(self, limits: Limits, tests: bool) -> Waiting:
        """Ask for processes; what is sent to them waits until they are there."""
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            report, report_end = _pair(ours, theirs, socket.SOCK_SEQPACKET)
            channel, channel_end = _pair(ours, theirs, socket.SOCK_STREAM)
            stdout, stdout_end = os.pipe()
            stderr, stderr_end = os.pipe()
            stdin, source = os.memfd_create("stdin"), os.memfd_create("source")
            for descriptor in (stdout, stderr, stdin, source):
                ours.callback(os.close, descriptor)
            for descriptor in (stdout_end, stderr_end):
                theirs.callback(os.close, descriptor)
            descriptors = [
                report_end.fileno(), stdin, stdout_end, stderr_end, channel_end.fileno(), source,
            ]  # fmt: skip
            self._send(limits, False, descriptors)
            waiting = Waiting(limits, report, channel, stdout, stderr, stdin, source)
            if tests:
                waiting.tests = self._ask_tests(limits, channel)
            ours.pop_all()
        return waiting

    def _ask_tests(self, limits: Limits, channel: socket.socket) -> WaitingTests:
        """The same for the tests of the program at the other end of a channel."""
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            report, report_end = _pair(ours, theirs, socket.SOCK_SEQPACKET)
            verdict, verdict_end = _pair(ours, theirs, socket.SOCK_SEQPACKET)
            job = os.memfd_create("job")
            ours.callback(os.close, job)
            descriptors = [report_end.fileno(), channel.fileno(), job, verdict_end.fileno()]
            self._send(limits, True, descriptors)
            ours.pop_all()
        return WaitingTests(report, verdict, job)

    def _send(self, limits: Limits, tests: bool, descriptors: Sequence[int]) -> None:
        request = {
            "tests": tests,
            "limits": {
                "AS": limits.memory_bytes,
                "CPU": limits.cpu_seconds,
                # Tests write to no file, whatever they have open.
                "FSIZE": 0 if tests else limits.file_bytes,
                "NOFILE": limits.open_files,
                # The kernel counts those of all programs that run at the same time.
                "NPROC": limits.processes * (self._running + 1),
                # Unlike 0, it holds where the system hands dumps to a program, too.
                "CORE": 1,
            },
        }
        try:
            socket.send_fds(self.control, [json.dumps(request).encode()], list(descriptors))
        except OSError as error:
            raise ServerGoneError(str(error)) from None


def _pair(
    ours: contextlib.ExitStack, theirs: contextlib.ExitStack, kind: socket.SocketKind
) -> tuple[socket.socket, socket.socket]:
    """Two ends of a Unix socket, closed by one stack each."""
    pair = socket.socketpair(socket.AF_UNIX, kind)
    ours.enter_context(pair[0])
    theirs.enter_context(pair[1])
    return pair


def _described(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"


def _bubblewrap(interpreter: str, code: Path, packages: Mapping[str, Path]) -> list[str]:
    """The command that puts a server in a jail.

    Neither /proc, which would show the jail's environment and which containers refuse to mount,
    nor a host name, which they refuse to set.

    Raises:
        BackendError: There is no bubblewrap.
    """
    path = shutil.which("bwrap", path="/usr/local/bin:/usr/bin:/bin")
    if path is None:
        raise BackendError("bwrap isn't installed (Debian's package bubblewrap)")
    command = [path, "--unshare-all", "--new-session", "--ro-bind", "/usr", "/usr"]
    for name in ("/lib", "/lib32", "/lib64"):
        if os.path.islink(name):
            command += ["--symlink", os.readlink(name), name]
        else:
            command += ["--ro-bind-try", name, name]
    command += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    command += ["--tmpfs", "/tmp", "--dev", "/dev"]
    for folder in file_systems("/tmp"):
        command += ["--size", str(FILES_BYTES), "--tmpfs", folder]
    # After /tmp, where an interpreter may lie too.
    prefix = str(Path(interpreter).parent.parent)
    if not Path(prefix).is_relative_to("/usr"):
        command += ["--ro-bind", prefix, prefix]
    for name, source in packages.items():
        command += ["--ro-bind", str(source), f"/packages/{name}"]
    return [*command, "--ro-bind", str(code), "/sandbox", "--chdir", "/tmp"]
