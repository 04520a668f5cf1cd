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

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
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
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE


def abi(libc: ctypes.CDLL) -> int:
    """The kernel's Landlock ABI; 0 where there is no Landlock or it is switched off."""
    return max(0, libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG))


def open_paths(paths: Sequence[str]) -> list[int]:
    """Descriptors of the paths that exist, to be opened once for many processes."""
    descriptors: list[int] = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            descriptors.append(os.open(path, os.O_PATH | os.O_CLOEXEC))
    return descriptors


def restrict(libc: ctypes.CDLL, version: int, readable: Sequence[int], writable: str) -> None:
    """Leave this process and its children nothing but these paths. `no_new_privs` must be set.

    Args:
        libc: Loaded with `use_errno=True`.
        version: What `abi` found, at least 1.
        readable: Descriptors of files and directories.
        writable: A directory, where regular files, directories and links may also be made and
            removed.

    Raises:
        OSError: The kernel refuses.
    """
    handled = (1 << _RIGHTS[min(version, max(_RIGHTS))]) - 1
    attributes = struct.pack("Q", handled)
    if version >= 4:
        attributes += struct.pack("Q", _NETWORK)
    if version >= 6:
        attributes += struct.pack("Q", _SCOPES)
    size = ctypes.c_size_t(len(attributes))
    ruleset = _call(libc, "landlock_create_ruleset", _CREATE_RULESET, attributes, size, 0)
    own = os.open(writable, os.O_PATH | os.O_CLOEXEC)
    for descriptor in readable:
        _allow(libc, ruleset, descriptor, _READABLE & handled)
    _allow(libc, ruleset, own, _WRITABLE & handled)
    _call(libc, "landlock_restrict_self", _RESTRICT_SELF, ruleset, 0)
    os.close(own)
    os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, descriptor: int, rights: int) -> None:
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        rights &= _OF_FILES
    rule = struct.pack("=Qi", rights, descriptor)
    _call(libc, "landlock_add_rule", _ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)


def _call(libc: ctypes.CDLL, name: str, number: int, *arguments: object) -> int:
    result: int = libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result
