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
from collections.abc import Sequence

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

    Args:
        libc: Loaded with `use_errno=True`.
        readable: Paths that may be read; those that don't exist are left out.

    Raises:
        OSError: The kernel has no Landlock, or it is switched off.
    """

    def __init__(self, libc: ctypes.CDLL, readable: Sequence[str]) -> None:
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
        self._rules: list[bytes] = []
        for path in readable:
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
                is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
                self._rules.append(_rule(_READABLE if is_folder else _READ_FILE, descriptor))

    def ruleset(self, writable: str | None) -> int:
        """Descriptor of a ruleset that leaves a process the readable paths and a directory.

        Args:
            writable: The directory, where regular files, directories and links may also be made
                and removed; None for a process that writes nowhere.

        Raises:
            OSError: The kernel refuses.
        """
        size = ctypes.c_size_t(len(self._attributes))
        ruleset = _call(self._libc, "create_ruleset", _CREATE_RULESET, self._attributes, size, 0)
        with contextlib.ExitStack() as kept, contextlib.ExitStack() as passed:
            kept.callback(os.close, ruleset)
            rules = list(self._rules)
            if writable is not None:
                own = os.open(writable, os.O_PATH | os.O_CLOEXEC)
                passed.callback(os.close, own)
                rules.append(_rule(_WRITABLE & self._handled, own))
            for rule in rules:
                _call(self._libc, "add_rule", _ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
            kept.pop_all()
        return ruleset

    def restrict(self, ruleset: int) -> None:
        """Hold this process and its children to a ruleset. `no_new_privs` must be set.

        Raises:
            OSError: The kernel refuses.
        """
        _call(self._libc, "restrict_self", _RESTRICT_SELF, ruleset, 0)


def _rule(rights: int, descriptor: int) -> bytes:
    return struct.pack("=Qi", rights, descriptor)


def _call(libc: ctypes.CDLL, name: str, number: int, *arguments: object) -> int:
    result: int = libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"landlock_{name}: {os.strerror(code)}")
    return result
