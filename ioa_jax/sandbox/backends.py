"""Starts fork servers, and finds out which backend and interpreter work on this machine."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ioa_jax.errors import SandboxError
from ioa_jax.sandbox import workers
from ioa_jax.sandbox.base import Backend, SandboxInfo

NOBODY = 65534
STRONG: tuple[Backend, ...] = ("bubblewrap+landlock+seccomp", "landlock+seccomp")
WEAK: Backend = "rlimits"

_START_SECONDS = 60.0
_FILES_BYTES = 64 << 20
_OLDEST_PYTHON = (3, 11)
Role = Literal["program", "checker"]


class BackendError(Exception):
    """A server can't be started with this backend and interpreter; the message says why."""


class ServerGoneError(Exception):
    """A server ended, or was ended."""


class ForkServer:
    """A fork server of `workers.server` and its folder.

    Args:
        role: Whose processes it forks.
        backend: How it and they are isolated; a checker never is.
        interpreter: Path of a Python.

    Raises:
        BackendError: It didn't start.
    """

    def __init__(self, role: Role, backend: Backend, interpreter: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ioa-sandbox-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            with theirs:
                self._start(role, backend, interpreter, theirs)
            self.hello = self._greet()
        except BaseException:
            self.close()
            raise

    def _start(
        self, role: Role, backend: Backend, interpreter: str, control: socket.socket
    ) -> None:
        code, work = self._folder / "code", self._folder / "work"
        # The package may lie where the programs' user can't read it.
        shutil.copytree(
            Path(workers.__file__).parent,
            code / "workers",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        work.mkdir(mode=0o700)
        user: int | None = None
        if os.geteuid() == 0:
            for path in (self._folder, code, code / "workers"):
                path.chmod(0o755)
            for path in (code / "workers").iterdir():
                path.chmod(0o644)
            os.chown(work, NOBODY, NOBODY)
            user = NOBODY
        isolated = role == "program" and backend != WEAK
        jailed = role == "program" and backend == "bubblewrap+landlock+seccomp"
        config = {
            "control": control.fileno(),
            "role": role,
            "landlock": isolated,
            "seccomp": isolated,
            "namespaces": isolated and not jailed,
            "jailed": jailed,
            "work": "/tmp" if jailed else str(work),
            # A benchmark's own code needn't be watched.
            "files_bounded": role == "checker",
        }
        jail = _bubblewrap(interpreter, code) if jailed else []
        code_seen = "/sandbox" if jailed else str(code)
        # -s -S -P and not -I, which would ignore PYTHONHASHSEED: the same program gets the same
        # hashes of texts each time.
        arguments = ["-s", "-S", "-P", "-B", "-X", "utf8", "-m", "workers.server"]
        try:
            self._process = subprocess.Popen(
                [*jail, interpreter, *arguments, json.dumps(config)],
                stdin=subprocess.DEVNULL,
                stdout=self._stderr,
                stderr=self._stderr,
                cwd="/",
                env={"PYTHONHASHSEED": "0", "PYTHONPATH": code_seen},
                pass_fds=(control.fileno(),),
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=None if user is None else (),
            )
        except OSError as error:
            raise BackendError(str(error)) from None

    def _greet(self) -> dict[str, Any]:
        self._control.settimeout(_START_SECONDS)
        try:
            data = self._control.recv(65536)
        except TimeoutError:
            raise BackendError(f"nothing within {_START_SECONDS:.0f} s of the start") from None
        finally:
            self._control.settimeout(None)
        if not data:
            self._stderr.seek(0)
            lines = self._stderr.read().decode(errors="replace").strip().splitlines()
            raise BackendError(lines[-1] if lines else "it ended without a word")
        hello: dict[str, Any] = json.loads(data)
        if "refused" in hello:
            raise BackendError(hello["refused"])
        version = tuple(int(part) for part in hello["python"].split(".")[:2])
        if version < _OLDEST_PYTHON:
            raise BackendError(f"Python {hello['python']} is too old")
        return hello

    def submit(self, request: dict[str, Any], descriptors: Sequence[int]) -> socket.socket:
        """Have a process forked.

        Args:
            request: Besides what the role needs, `limits`.
            descriptors: What it gets as descriptors 0, 1 and so on.

        Returns:
            The socket of its reports, to be closed by the caller.

        Raises:
            ServerGoneError: There is nobody to do it.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                packet = json.dumps(request).encode()
                socket.send_fds(self._control, [packet], [theirs.fileno(), *descriptors])
            except OSError as error:
                ours.close()
                raise ServerGoneError(str(error)) from None
        return ours

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """End the server and everything that it forked, and remove its folder."""
        self._control.close()
        if self._process is not None:
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._stderr.close()
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._folder)


def _bubblewrap(interpreter: str, code: Path) -> list[str]:
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
    prefix = str(Path(interpreter).parent.parent)
    if not Path(prefix).is_relative_to("/usr"):
        command += ["--ro-bind", prefix, prefix]
    command += ["--ro-bind", str(code), "/sandbox", "--dev", "/dev"]
    return [*command, "--size", str(_FILES_BYTES), "--tmpfs", "/tmp", "--chdir", "/tmp"]


def _interpreters() -> list[str]:
    """This interpreter, and the system's: root's own often lies in its home, closed to nobody."""
    found = (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin"))
    # The file itself: a virtual environment's link leads out of what a program may read.
    return list(dict.fromkeys(os.path.realpath(path) for path in found if path))


@functools.cache
def find(backend: Backend) -> SandboxInfo:
    """The first interpreter that works with a backend. Found once a process.

    Raises:
        BackendError: None does, or this isn't Linux; the message says why.
    """
    if sys.platform != "linux":
        raise BackendError(f"Linux is needed, this is {sys.platform}")
    reasons: list[str] = []
    for interpreter in _interpreters():
        try:
            server = ForkServer("program", backend, interpreter)
        except BackendError as error:
            reasons.append(f"{interpreter}: {error}")
            continue
        server.close()
        return SandboxInfo(
            backend=backend,
            landlock_abi=server.hello["landlock_abi"],
            isolation=tuple(server.hello["isolation"]),
            python=server.hello["python"],
            interpreter=interpreter,
        )
    raise BackendError("; ".join(reasons))


def choose(backend: Backend | None, allow_weak: bool) -> SandboxInfo:
    """The backend that was asked for, or the strongest that works here.

    Raises:
        SandboxError: It doesn't work here, or is weak and that wasn't allowed.
    """
    if backend is not None and backend not in (*STRONG, WEAK):
        raise SandboxError(f"sandbox backend {backend!r}: one of {', '.join((*STRONG, WEAK))}")
    if backend == WEAK and not allow_weak:
        raise SandboxError(
            f"sandbox backend {WEAK!r} keeps programs neither from files nor from the network; to "
            "run them so all the same, say allow_weak=True"
        )
    wanted = (backend,) if backend else (*STRONG, *((WEAK,) if allow_weak else ()))
    reasons: list[str] = []
    for one in wanted:
        try:
            return find(one)
        except BackendError as error:
            reasons.append(f"{one}: {error}")
    raise SandboxError(
        "untrusted programs can't be isolated here. "
        + "; ".join(reasons)
        + ". Use Linux 5.13 or newer with Landlock, and a Python 3.11 or newer that every user can "
        "read; or accept no isolation by name: allow_weak=True"
    )
