"""Landlock: a process gives up the file system, but for what it names (Linux 5.13 and newer).

The system calls and their structures are those of the kernel's `include/uapi/linux/landlock.h`.
What Landlock doesn't govern (a file's mode, owner, times and attributes, and whether a path exists)
is left to `seccomp`, which forbids changing any of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import struct
from collections.abc import Iterable, Sequence

# The same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_FILE, _MAKE_LINK = (
    1 << 4,
    1 << 5,
    1 << 7,
    1 << 8,
    1 << 12,
)
_TRUNCATE = 1 << 14
# How many of the file system's rights an ABI knows.
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_NETWORK = 0b11  # bind and connect of TCP, from ABI 4
_SCOPES = 0b11  # abstract Unix sockets and signals, from ABI 6

# What holds installed packages, which may be benchmarks with their solutions.
_PACKAGES = ("site-packages", "dist-packages")
_MOST_ENTRIES = 1000  # of a folder that is taken apart; each is a rule

_READABLE = _READ_FILE | _READ_DIR
_WRITABLE = (
    _READABLE
    | _WRITE_FILE
    | _REMOVE_DIR
    | _REMOVE_FILE
    | _MAKE_DIR
    | _MAKE_FILE
    | _MAKE_LINK
    | _TRUNCATE
)


def abi(libc: ctypes.CDLL) -> int:
    """The kernel's Landlock ABI; 0 where there is no Landlock or it is switched off."""
    return max(0, libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG))


class Landlock:
    """Makes rulesets. What is the same in each is made once.

    Rights only add up below a folder, so that a ruleset can't take installed packages out of the
    standard library's. It names what is beside them, which is much: one such ruleset is made for
    all processes, and each process's own, with its directory, has the few folders whole. A process
    is held to both.

    Args:
        libc: Loaded with `use_errno=True`.
        readable: Paths that may be read; those that don't exist are left out. Of installed packages
            in them only names can be listed, unless the path is a package's own.
        work: Directory that holds those of `ruleset`.

    Raises:
        OSError: The kernel has no Landlock, or it is switched off.
    """

    def __init__(self, libc: ctypes.CDLL, readable: Sequence[str], work: str) -> None:
        self._libc = libc
        self.abi: int = abi(libc)
        if not self.abi:
            raise OSError("the kernel has no Landlock, or it is switched off")
        self._handled = (1 << _RIGHTS[min(self.abi, max(_RIGHTS))]) - 1
        attributes = [self._handled]
        if self.abi >= 4:
            attributes.append(_NETWORK)
        if self.abi >= 6:
            attributes.append(_SCOPES)
        self._attributes = struct.pack(f"{len(attributes)}Q", *attributes)
        self._rules = _rules((path, _READABLE) for path in readable)
        beside = [rule for path in readable for rule in _beside_packages(path)]
        with contextlib.ExitStack() as opened:
            self._common = self._made(
                [*_rules(beside, opened), *_rules([(work, _WRITABLE & self._handled)], opened)]
            )

    def ruleset(self, writable: str | None) -> int:
        """Descriptor of a ruleset that leaves a process the readable paths and a directory.

        Args:
            writable: The directory, where regular files, directories and links may also be made
                and removed; None for a process that writes nowhere.

        Raises:
            OSError: The kernel refuses.
        """
        if writable is None:
            return self._made(self._rules)
        with contextlib.ExitStack() as opened:
            return self._made(
                [*self._rules, *_rules([(writable, _WRITABLE & self._handled)], opened)]
            )

    def restrict(self, ruleset: int) -> None:
        """Hold this process and its children to a ruleset. `no_new_privs` must be set.

        Raises:
            OSError: The kernel refuses.
        """
        for one in (self._common, ruleset):
            _call(self._libc, "restrict_self", _RESTRICT_SELF, one, 0)

    def _made(self, rules: Sequence[bytes]) -> int:
        size = ctypes.c_size_t(len(self._attributes))
        ruleset = _call(self._libc, "create_ruleset", _CREATE_RULESET, self._attributes, size, 0)
        with contextlib.ExitStack() as kept:
            kept.callback(os.close, ruleset)
            for rule in rules:
                _call(self._libc, "add_rule", _ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
            kept.pop_all()
        return ruleset


def _rules(
    paths: Iterable[tuple[str, int]], opened: contextlib.ExitStack | None = None
) -> list[bytes]:
    """Rules that give rights below paths, those of files where the path is one.

    Args:
        paths: With rights. What doesn't exist is left out.
        opened: Takes the descriptors that the rules name, to be closed; None to leave them open.
    """
    found: list[bytes] = []
    for path, rights in paths:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if opened is not None:
            opened.callback(os.close, descriptor)
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        found.append(struct.pack("=Qi", rights if is_folder else rights & _READ_FILE, descriptor))
    return found


def _beside_packages(path: str, depth: int = 2) -> list[tuple[str, int]]:
    """What leaves installed packages out: the path or, where it holds some, what is beside them.

    Args:
        path: Such as a prefix's `lib`.
        depth: How far down packages are looked for, in folders that Pythons are called by.
    """
    whole = [(path, _READABLE)]
    try:
        names = sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return whole
    apart = [(path, _READ_DIR)]
    for name in names:
        # A link that leads elsewhere would give what is there.
        inner = os.path.join(path, name)
        if name in _PACKAGES or os.path.realpath(inner) != inner:
            continue
        below = depth > 1 and name.startswith("py")
        apart += _beside_packages(inner, depth - 1) if below else [(inner, _READABLE)]
    holds = any(name in _PACKAGES for name in names)
    taken_apart = any(rights == _READ_DIR for _, rights in apart[1:])
    return apart if (holds or taken_apart) and len(names) <= _MOST_ENTRIES else whole


def _call(libc: ctypes.CDLL, name: str, number: int, *arguments: object) -> int:
    result: int = libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"landlock_{name}: {os.strerror(code)}")
    return result
