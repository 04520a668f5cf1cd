"""What a fork server and the programs that it forks give up."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field

from . import landlock, seccomp

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNS, _CLONE_NEWIPC = 0x00020000, 0x08000000
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 0x2, 0x4, 0x8, 0x4000, 0x40000
_CAPABILITY_VERSION_3 = 0x20080522

FILES_BYTES = 64 << 20
FILES_COUNT = 4096


@dataclass
class Isolation:
    """How programs are isolated.

    Attributes:
        landlock: Whether each program is confined by Landlock.
        seccomp: Whether each program's system calls are filtered.
        namespaces: Whether the server moves to namespaces of its own where it may.
        jailed: Whether the server is in a jail, with namespaces, already.
        work: Directory that holds the programs' directories.
        readable: Paths that programs may read.
        in_force: What was achieved, for the record.
        landlock_abi: The kernel's; 0 without Landlock.
        counts_alone: Whether the kernel counts the jail's processes apart from all others of the
            same user.
        files_bounded: Whether `work` is a file system of limited size and number of files.
    """

    landlock: bool
    seccomp: bool
    namespaces: bool
    jailed: bool
    work: str
    readable: list[str]
    in_force: list[str] = field(default_factory=list[str])
    landlock_abi: int = 0
    counts_alone: bool = False
    files_bounded: bool = False

    def __post_init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._readable: list[int] = []
        self._filter = b""

    def confine_server(self) -> None:
        """To be called once, at the server's start.

        Raises:
            OSError: Something that was asked for can't be had here.
        """
        if self.landlock:
            self.landlock_abi = landlock.abi(self._libc)
            if not self.landlock_abi:
                raise OSError("the kernel has no Landlock, or it is switched off")
            self._readable = landlock.open_paths(self.readable)
            self.in_force.append(f"landlock:{self.landlock_abi}")
        if self.seccomp:
            if not seccomp.supported():
                raise OSError(f"no table of system calls for {os.uname().machine}")
            self._filter = seccomp.prepare()
            self.in_force.append("seccomp")
        if self.jailed:
            self.in_force.append("namespaces")
            self.counts_alone = True
        elif self.namespaces:
            self._enter_namespaces()
        self._prctl(_PR_SET_NO_NEW_PRIVS, 1)
        # In a namespace of its own the process has every capability; none is needed any more.
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        self._check(self._libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")
        # Neither traced by others of the same user, nor shown to them in /proc.
        self._prctl(_PR_SET_DUMPABLE, 0)
        self.in_force += ["no_new_privileges", "no_capabilities", f"uid:{os.getuid()}"]

    def confine_files(self, directory: str, server: int) -> None:
        """To be called in a forked process, first.

        Args:
            directory: Where the program works, and may write.
            server: The server's process number.

        Raises:
            OSError: The kernel refuses.
        """
        # A group of its own, so that it can be killed whole where it could fork.
        os.setsid()
        self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:
            raise OSError("the server ended")
        os.chdir(directory)
        if self.landlock:
            landlock.restrict(self._libc, self.landlock_abi, self._readable, directory)

    def confine(self) -> None:
        """To be called after that, before the process runs anything untrusted.

        Raises:
            OSError: The kernel refuses.
        """
        if self.seccomp:
            seccomp.restrict(self._libc, self._filter)

    def count_processes(self) -> int:
        """How many processes and threads count towards a program's limit beside its own."""
        if self.counts_alone:
            return 1
        # Those of root too: one that may not be traced looks like root's here. A limit that is too
        # high by a few is better than one that stops a program's first thread.
        uid, count = os.getuid(), 0
        for name in filter(str.isdecimal, os.listdir("/proc")):
            # Any may end meanwhile.
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}").st_uid in (uid, 0):
                    count += len(os.listdir(f"/proc/{name}/task"))
        return count

    def _enter_namespaces(self) -> None:
        """A second line of defence, which many containers and some distributions refuse."""
        flags = _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWIPC
        uid, gid = os.getuid(), os.getgid()
        if self._libc.unshare(flags) != 0:
            return
        self.in_force.append("namespaces")
        self.counts_alone = True
        try:
            for name, text in (
                ("setgroups", "deny"),
                ("uid_map", f"{uid} {uid} 1"),
                ("gid_map", f"{gid} {gid} 1"),
            ):
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
            self._mount(None, "/", None, _MS_REC | _MS_PRIVATE, None)
            options = f"size={FILES_BYTES},nr_inodes={FILES_COUNT},mode=0700"
            self._mount("tmpfs", self.work, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options)
        except PermissionError:
            # Some systems allow the namespace and then nothing in it.
            return
        self.files_bounded = True
        self.in_force.append("files_bounded")

    def _mount(
        self, source: str | None, target: str, kind: str | None, flags: int, options: str | None
    ) -> None:
        def encoded(text: str | None) -> bytes | None:
            return None if text is None else text.encode()

        result = self._libc.mount(
            encoded(source),
            encoded(target),
            encoded(kind),
            ctypes.c_ulong(flags),
            encoded(options),
        )
        self._check(result, f"mount {target}")

    def _prctl(self, option: int, value: int) -> None:
        self._check(self._libc.prctl(option, value, 0, 0, 0), f"prctl({option})")

    def _check(self, result: int, call: str) -> None:
        if result != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{call}: {os.strerror(code)}")


def set_limits(limits: Mapping[str, int]) -> None:
    """Set resource limits, each no higher than the present hard one.

    Args:
        limits: By the kernel's names without RLIMIT_.
    """
    for name, value in limits.items():
        kind: int = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        # A second more of processor time: a program that ignores the soft limit's signal is killed.
        top = value + 1 if name == "CPU" and hard == resource.RLIM_INFINITY else value
        resource.setrlimit(kind, (value, top))
