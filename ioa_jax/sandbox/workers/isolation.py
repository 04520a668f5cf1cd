"""What a worker and the processes that it forks give up."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence

from .folders import FILES_BYTES, FILES_COUNT, file_systems
from .landlock import Landlock
from .seccomp import Filter, supported

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNS, _CLONE_NEWIPC = 0x00020000, 0x08000000
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 0x2, 0x4, 0x8, 0x4000, 0x40000
_CAPABILITY_VERSION_3 = 0x20080522

_MOST_OWNERS = 4096


class Isolation:
    """How programs are isolated.

    Attributes:
        in_force: What was achieved, for the record.
        landlock_abi: The kernel's; 0 without Landlock.
        folders: That hold the programs' directories: file systems of `FILES_BYTES` each, or else
            `work` itself.
        files_bounded: Whether their number of files is limited, too.
        sees_open_files: Whether the server has to count what programs hold open: where `work` has
            no limits, and programs can't look into each other.

    Args:
        landlock: Whether each program is confined by Landlock.
        seccomp: Whether each program's system calls are filtered.
        namespaces: Whether the server moves to namespaces of its own where it may.
        jailed: Whether the server is in a jail, with namespaces, already.
        work: Directory that holds `folders`; in a jail they are there.
        readable: Paths that programs may read.
    """

    def __init__(
        self,
        *,
        landlock: bool,
        seccomp: bool,
        namespaces: bool,
        jailed: bool,
        work: str,
        readable: Sequence[str],
    ) -> None:
        self._work = work
        self.folders = [work]
        self.in_force: list[str] = []
        self.landlock_abi = 0
        self.files_bounded = self.sees_open_files = False
        # Whether the kernel counts the jail's processes apart from all others of the same user.
        self._counts_alone = False
        self._owners: dict[tuple[str, int], int] = {}
        self._wanted = (landlock, seccomp, namespaces, jailed)
        self._readable = readable
        self._landlock: Landlock | None = None
        self._filter: Filter | None = None
        self._libc = ctypes.CDLL(None, use_errno=True)
        # The same, for calls during which the interpreter keeps its lock.
        self._python = ctypes.PyDLL(None, use_errno=True)

    def confine_server(self) -> None:
        """To be called once, at the server's start.

        Raises:
            OSError: Something that was asked for can't be had here.
        """
        wants_landlock, wants_seccomp, wants_namespaces, is_jailed = self._wanted
        found: list[str] = []
        if is_jailed:
            found.append("namespaces")
            self._counts_alone = True
            self.folders = file_systems(self._work)
        elif wants_namespaces:
            found += self._enter_namespaces()
        # Only now: what is mounted isn't what was there before.
        if wants_landlock:
            self._landlock = Landlock(self._libc, self._readable, self._work)
            self.landlock_abi = self._landlock.abi
            self.in_force.append(f"landlock:{self.landlock_abi}")
        if wants_seccomp:
            if not supported():
                raise OSError(f"no table of system calls for {os.uname().machine}")
            self._filter = Filter()
            self.in_force.append("seccomp")
        self.in_force += found
        self.sees_open_files = wants_seccomp and self.folders == [self._work]
        self._prctl(_PR_SET_NO_NEW_PRIVS, 1)
        # In a namespace of its own the process has every capability; none is needed any more.
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        self._check(self._libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")
        # Neither traced by others of the same user, nor shown to them in /proc.
        self._prctl(_PR_SET_DUMPABLE, 0)
        self.in_force += ["no_new_privileges", "no_capabilities", f"uid:{os.getuid()}"]

    def fork(self, shown: bool) -> int:
        """As `os.fork`, without what the interpreter and its modules do in the new process.

        They make locks anew, forget other threads and seed `random`, which takes as long as the
        fork: here no other thread holds a lock, and `program` seeds `random`.

        Args:
            shown: Whether processes of the same user may see what the new one holds open, the
                server among them. Those whose calls are filtered may not.

        Raises:
            OSError: The kernel refuses.
        """
        # Inherited, so that the server never finds it hidden.
        self._prctl(_PR_SET_DUMPABLE, int(shown))
        pid: int = self._python.fork()
        code = ctypes.get_errno()
        if pid != 0:
            self._prctl(_PR_SET_DUMPABLE, 0)
        if pid < 0:
            raise OSError(code, f"fork: {os.strerror(code)}")
        return pid

    def ruleset(self, directory: str | None) -> int | None:
        """To be called before a fork.

        Args:
            directory: Where the process will work, and may write; None if it may write nowhere.

        Returns:
            A descriptor for `confine_files`, to be closed afterwards; None without Landlock.

        Raises:
            OSError: The kernel refuses.
        """
        return None if self._landlock is None else self._landlock.ruleset(directory)

    def confine_files(self, directory: str | None, ruleset: int | None, server: int) -> None:
        """To be called in a forked process, first.

        Args:
            directory: The ruleset's.
            ruleset: From `ruleset`.
            server: The server's process number.

        Raises:
            OSError: The kernel refuses, or a ruleset is missing.
        """
        # A group of its own, so that it can be killed whole where it could fork.
        os.setsid()
        self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:
            raise OSError("the server ended")
        os.chdir(directory or "/")
        if self._landlock is not None:
            if ruleset is None:
                raise OSError("no ruleset")
            self._landlock.restrict(ruleset)

    def confine(self) -> None:
        """To be called after that, before the process runs anything untrusted.

        Raises:
            OSError: The kernel refuses.
        """
        if self._filter is not None:
            self._filter.restrict(self._libc)

    def count_processes(self) -> int:
        """How many processes and threads count towards a program's limit beside its own."""
        if self._counts_alone:
            return 1
        uid, count = os.getuid(), 0
        for name in filter(str.isdecimal, os.listdir("/proc")):
            # Any may end meanwhile.
            with contextlib.suppress(OSError):
                found = os.stat(f"/proc/{name}")
                owner = found.st_uid
                if owner == 0 != uid:
                    owner = self._owner(name, found.st_ino)
                if owner == uid:
                    count += len(os.listdir(f"/proc/{name}/task"))
        return count

    def _owner(self, name: str, inode: int) -> int:
        """User of a process that looks like root's, as one that may not be traced does too."""
        key = name, inode
        if key not in self._owners:
            if len(self._owners) >= _MOST_OWNERS:
                self._owners.clear()
            with open(f"/proc/{name}/status", "rb") as file:
                (line,) = (line for line in file if line.startswith(b"Uid:"))
            self._owners[key] = int(line.split()[1])
        return self._owners[key]

    def _enter_namespaces(self) -> list[str]:
        """A second line of defence, which many containers and some distributions refuse.

        Returns:
            What was achieved.
        """
        flags = _CLONE_NEWUSER | _CLONE_NEWNS | _CLONE_NEWNET | _CLONE_NEWIPC
        uid, gid = os.getuid(), os.getgid()
        if self._libc.unshare(flags) != 0:
            return []
        self._counts_alone = True
        try:
            for name, text in (
                ("setgroups", "deny"),
                ("uid_map", f"{uid} {uid} 1"),
                ("gid_map", f"{gid} {gid} 1"),
            ):
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
            self._mount(None, "/", None, _MS_REC | _MS_PRIVATE, None)
            mounted = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
            self._mount("tmpfs", self._work, "tmpfs", mounted, "mode=0700")
            folders = file_systems(self._work)
            options = f"size={FILES_BYTES},nr_inodes={FILES_COUNT},mode=0700"
            for folder in folders:
                os.mkdir(folder)
                self._mount("tmpfs", folder, "tmpfs", mounted, options)
        except PermissionError:
            # Some systems allow the namespace and then nothing in it.
            return ["namespaces"]
        self.folders = folders
        self.files_bounded = True
        return ["namespaces", "files_bounded"]

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


def bounded(limits: Mapping[str, int]) -> list[tuple[int, tuple[int, int]]]:
    """What `resource.setrlimit` takes for limits, each no higher than the present hard one.

    Args:
        limits: By the kernel's names without RLIMIT_.
    """
    found: list[tuple[int, tuple[int, int]]] = []
    for name, value in limits.items():
        kind: int = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        # A second more of processor time: a program that ignores the soft limit's signal is killed.
        top = value + 1 if name == "CPU" and hard == resource.RLIM_INFINITY else value
        found.append((kind, (value, top)))
    return found


def leave_own_code() -> None:
    """Let nobody import this code any more: it isn't for programs, nor for tests."""
    sys.path[:] = [path for path in sys.path if path != os.environ.get("PYTHONPATH")]
    os.environ.pop("PYTHONPATH", None)
    package = __name__.split(".", maxsplit=1)[0]
    for name in [one for one in sys.modules if one.split(".", maxsplit=1)[0] == package]:
        del sys.modules[name]


def readable() -> list[str]:
    """The standard library, and what it and the dynamic linker load."""
    prefix = sys.base_prefix
    libraries = [os.path.join(prefix, "lib"), os.path.join(prefix, "lib64")]
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo"]
    devices = ["/dev/null", "/dev/zero", "/dev/urandom"]
    found: list[str] = []
    for path in sorted({os.path.realpath(path) for path in [*sys.path, *libraries, *system]}):
        # What lies in another one needs no rule of its own.
        if not any(path.startswith(f"{other}/") for other in found):
            found.append(path)
    return [*found, *devices]
