"""Runs one Python program in a process of its own, cut off from network and environment.

The first and simplest sandbox. Linux; on other systems it refuses unless told that the network may
stay. In force are: a fresh interpreter without site packages, an empty environment, a temporary
working directory that is removed afterwards, no standard input, capped output, resource limits, no
network (a namespace of its own with nothing in it), no capabilities and no new privileges, user
nobody if the caller is root, a kill of the whole process group at the wall limit, and an end with
the caller's end.

What it does NOT protect:

- **The verdict.** Program and tests share a process, so a program that wants to can pass: it may
  look for the nonce in the frames above it, or return objects that are equal to everything. Only a
  program that merely ends early, by `os._exit(0)` say, is caught.
- **Files.** The program sees the whole file system and may read whatever nobody (or the caller, if
  not root) may read, and write wherever that user may: /tmp, and the caller's own files if the
  caller isn't root. Unix sockets in the file system are files too.
- **Other processes of the same user**, which it may signal and, at other times than its own, watch.
- **The machine.** A process that leaves the session outlives the program; memory and disk are
  limited per process and per file, not in all; the kernel is shared.

So it is for programs that a language model wrote without malice, not for hostile ones.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any, Literal

from ioa_jax.errors import SandboxError
from ioa_jax.sandbox import launcher

Status = Literal["passed", "failed", "timeout", "memory", "output_limit", "infra_error"]

NOBODY = 65534
_POLL_SECONDS = 0.02
_VERDICT_LIMIT = 65536


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a program may use.

    Attributes:
        wall_seconds: From the start of its process. Generous: a busy machine must not fail anyone.
        cpu_seconds: Processor time, the limit that is meant to bind; whole seconds.
        memory_bytes: Address space (RLIMIT_AS).
        output_bytes: Of standard output and standard error together.
        file_bytes: Size of any file that it writes.
        open_files: Open descriptors.
        processes: Processes and threads of the program's user in its namespace.
    """

    wall_seconds: float = 30.0
    cpu_seconds: int = 5
    memory_bytes: int = 1 << 30
    output_bytes: int = 1 << 16
    file_bytes: int = 8 << 20
    open_files: int = 64
    processes: int = 64


@dataclasses.dataclass(frozen=True)
class ProgramResult:
    """What became of a program.

    Attributes:
        status: `passed` (ran to its end), `failed` (an exception, an early exit or a signal),
            `timeout` (processor time or wall clock), `memory`, `output_limit`, or `infra_error`:
            the sandbox itself failed, which says nothing about the program.
        detail: The reason in a few words; empty for `passed`.
        exit_code: Exit status, negative for a signal.
        stdout: At most `output_bytes`; undecodable bytes are replaced.
        stderr: As stdout.
        cpu_seconds: Processor time of the process, the interpreter's start included.
        wall_seconds: Wall time.
        isolation: What was in force, as the child reported it before the program began.
        python: Version of the interpreter that ran it.
    """

    status: Status
    detail: str
    exit_code: int
    stdout: str
    stderr: str
    cpu_seconds: float
    wall_seconds: float
    isolation: tuple[str, ...]
    python: str

    @property
    def passed(self) -> bool:
        """Whether the program ran to its end."""
        return self.status == "passed"


def run_program(
    source: str,
    limits: Limits | None = None,
    *,
    allow_network: bool = False,
) -> ProgramResult:
    """Run a program: the code and, after it, the tests that raise if it is wrong.

    The program is a module named `program`, not `__main__`. The same program gets the same hashes
    of strings each time (PYTHONHASHSEED=0).

    Args:
        source: Python.
        limits: Default `Limits()`.
        allow_network: Run although the network can't be cut off. It is then not cut off at all.

    Raises:
        SandboxError: The isolation can't be had here, or no interpreter is usable by nobody.
    """
    result = _run(source, limits or Limits(), allow_network, _interpreter())
    return result


def _run(source: str, limits: Limits, allow_network: bool, python: str) -> ProgramResult:
    nonce = secrets.token_hex(16)
    uid = NOBODY if _is_root() else None
    directory = Path(tempfile.mkdtemp(prefix="ioa-program-"))
    verdict_read, verdict_write = os.pipe()
    request = {
        "source": source,
        "nonce": nonce,
        "verdict": verdict_write,
        "uid": uid,
        "allow_network": allow_network,
        "limits": {
            "AS": limits.memory_bytes,
            "CPU": limits.cpu_seconds,
            "FSIZE": limits.file_bytes,
            "NOFILE": limits.open_files,
            "NPROC": limits.processes,
            "CORE": 0,
        },
    }
    try:
        if uid is not None:
            os.chown(directory, uid, uid)
        with tempfile.TemporaryFile() as stdin:
            stdin.write(json.dumps(request).encode())
            stdin.seek(0)
            began = time.monotonic()
            # -s -S -P and not -I, which would ignore PYTHONHASHSEED. -P also keeps the launcher's
            # own folder, and with it this file's name, off the module path.
            process = subprocess.Popen(
                [python, "-s", "-S", "-P", "-X", "utf8", launcher.__file__],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=directory,
                env={"PYTHONHASHSEED": "0"},
                pass_fds=(verdict_write,),
                start_new_session=True,
            )
        os.close(verdict_write)
        verdict_write = -1
        with process, os.fdopen(verdict_read, "rb", buffering=0) as verdict:
            verdict_read = -1
            return _supervise(process, verdict, nonce, limits, began)
    finally:
        for descriptor in (verdict_read, verdict_write):
            if descriptor >= 0:
                os.close(descriptor)
        _remove(directory)


@dataclasses.dataclass
class _Output:
    """What came through one pipe."""

    data: bytearray
    limit: int

    def read(self, pipe: IO[bytes]) -> bool:
        """Take what is there; False at the end of the pipe."""
        try:
            chunk = os.read(pipe.fileno(), 65536)
        except BlockingIOError:
            return True
        self.data += chunk
        return bool(chunk)

    @property
    def exceeded(self) -> bool:
        return len(self.data) > self.limit


def _supervise(
    process: subprocess.Popen[bytes],
    verdict: IO[bytes],
    nonce: str,
    limits: Limits,
    began: float,
) -> ProgramResult:
    """Collect output until the process ends or is ended, and judge it."""
    assert process.stdout is not None
    assert process.stderr is not None
    outputs = {
        process.stdout: _Output(bytearray(), limits.output_bytes),
        process.stderr: _Output(bytearray(), limits.output_bytes),
        verdict: _Output(bytearray(), _VERDICT_LIMIT),
    }
    killed: Status | None = None
    with selectors.DefaultSelector() as selector:
        for pipe in outputs:
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ)
        try:
            # Not until the pipes end: a child of the program may hold them for ever.
            while not _has_ended(process.pid):
                if time.monotonic() - began > limits.wall_seconds:
                    killed = "timeout"
                    break
                for key, _ in selector.select(_POLL_SECONDS):
                    pipe: Any = key.fileobj
                    if not outputs[pipe].read(pipe):
                        selector.unregister(pipe)
                if not selector.get_map():
                    time.sleep(_POLL_SECONDS / 20)
                if _exceeds(outputs, process, limits.output_bytes):
                    killed = "output_limit"
                    break
        finally:
            # Before it is reaped, so that the group's number can't have another owner yet.
            _kill_group(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        while selector.get_map() and not _exceeds(outputs, process, limits.output_bytes):
            ready = selector.select(0)
            if not ready:
                break
            for key, _ in ready:
                pipe = key.fileobj
                if not outputs[pipe].read(pipe):
                    selector.unregister(pipe)
    wall = time.monotonic() - began
    if killed is None and _exceeds(outputs, process, limits.output_bytes):
        killed = "output_limit"
    setup_line, _, rest = bytes(outputs[verdict].data).partition(b"\n")
    stderr = outputs[process.stderr].data[: limits.output_bytes].decode(errors="replace")
    cpu = usage.ru_utime + usage.ru_stime
    setup = _parse_setup(setup_line)
    if "refused" in setup:
        raise SandboxError(
            f"the sandbox can't isolate programs here: {setup['refused']}. Allow unprivileged user "
            "namespaces, or accept untrusted programs with the network by name: allow_network=True"
        )
    status, detail = _judge(
        process.returncode,
        killed,
        "isolation" in setup,
        rest == nonce.encode(),
        cpu,
        limits,
        stderr,
    )
    return ProgramResult(
        status=status,
        detail=detail,
        exit_code=process.returncode,
        stdout=outputs[process.stdout].data[: limits.output_bytes].decode(errors="replace"),
        stderr=stderr,
        cpu_seconds=cpu,
        wall_seconds=wall,
        isolation=tuple(setup.get("isolation", ())),
        python=setup.get("python", ""),
    )


def _judge(
    code: int,
    killed: Status | None,
    isolated: bool,
    reached_end: bool,
    cpu: float,
    limits: Limits,
    stderr: str,
) -> tuple[Status, str]:
    """Status and reason."""
    last_line = next((line for line in reversed(stderr.splitlines()) if line.strip()), "")
    if not isolated:
        if killed == "timeout":
            return "infra_error", f"isn't ready after {limits.wall_seconds:g} s"
        return "infra_error", f"the launcher exited with {code}: {last_line}"
    if killed == "timeout":
        return "timeout", f"{limits.wall_seconds:g} s of wall time"
    if killed == "output_limit":
        return "output_limit", f"more than {limits.output_bytes} bytes"
    if code == launcher.EXIT_MEMORY:
        return "memory", f"more than {limits.memory_bytes} bytes"
    if code == -signal.SIGXCPU or (code < 0 and cpu >= limits.cpu_seconds):
        return "timeout", f"{limits.cpu_seconds} s of processor time"
    if code < 0:
        return "failed", f"killed by {signal.Signals(-code).name}"
    if code == 0 and reached_end:
        return "passed", ""
    if code == 0:
        return "failed", "exited with 0 before its end"
    return "failed", last_line[:500] or f"exited with {code}"


def _parse_setup(line: bytes) -> dict[str, Any]:
    """The launcher's report; empty if it never made one."""
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _exceeds(outputs: dict[Any, _Output], process: subprocess.Popen[bytes], limit: int) -> bool:
    total = len(outputs[process.stdout].data) + len(outputs[process.stderr].data)
    return total > limit or any(output.exceeded for output in outputs.values())


def _has_ended(pid: int) -> bool:
    """Whether a child has ended, without reaping it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # Gone; or, on some systems, nothing but the zombie of the leader is left.
        return


def _remove(directory: Path) -> None:
    """Remove a program's directory, even what it made unreadable."""

    def make_writable_and_retry(function: Any, path: str, _: Any) -> None:
        os.chmod(os.path.dirname(path), 0o700)
        os.chmod(path, 0o700)
        function(path)

    shutil.rmtree(directory, onerror=make_writable_and_retry)


def _is_root() -> bool:
    return os.geteuid() == 0


@functools.cache
def _interpreter() -> str:
    """An interpreter that the program's user can read: this one, or else the system's.

    Root's own interpreters often lie in its home, where nobody can't import from them.

    Raises:
        SandboxError: There is none.
    """
    probe = "import collections, hashlib, math, typing"
    tried: list[str] = []
    system = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")
    for python in (sys.executable, system):
        if python is None or python in tried:
            continue
        tried.append(python)
        # Whether the network can be cut is not the question here.
        if _run(probe, Limits(), True, python).passed:
            return python
    user = "nobody" if _is_root() else "this user"
    raise SandboxError(
        f"no interpreter that {user} can use: tried {', '.join(tried)}. Install Python 3.11 or "
        "newer where every user can read it"
    )
