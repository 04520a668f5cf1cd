"""A filter of system calls: what a Python program of one process needs, and nothing else.

Numbers are the kernel's, from `arch/x86/entry/syscalls/syscall_64.tbl` and
`include/uapi/asm-generic/unistd.h`. Not allowed are, among others: new processes and programs,
sockets, signals to others, tracing, namespaces, mounts, shared memory, keys, io_uring, and changes
of a file's mode, owner, times and attributes, which Landlock doesn't govern.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import NamedTuple

_PR_SET_SECCOMP = 22
_MODE_FILTER = 2

# Of struct seccomp_data; both architectures are little-endian.
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_JUMP, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST = 0x05, 0x15, 0x35
_FARTHEST = 255  # that a conditional jump goes
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_ANY_PID = 0x7E5A3C1F  # above any process's number, and nothing else in the filter

# Value of AUDIT_ARCH, and column of the table below.
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

# Name: number on x86_64, on aarch64 (None: it has no such call).
ALLOWED: dict[str, tuple[int | None, int | None]] = {
    # Reading and writing.
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "lseek": (8, 62),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "readv": (19, 65),
    "writev": (20, 66),
    "preadv": (295, 69),
    "pwritev": (296, 70),
    "preadv2": (327, 286),
    "pwritev2": (328, 287),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "pipe": (22, None),
    "pipe2": (293, 59),
    "eventfd2": (290, 19),
    "close_range": (436, 436),
    "flock": (73, 32),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "ftruncate": (77, 46),
    # Waiting.
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "epoll_create": (213, None),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "pause": (34, None),
    # Paths; Landlock says which.
    "open": (2, None),
    "openat": (257, 56),
    "creat": (85, None),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getcwd": (79, 17),
    "chdir": (80, 49),
    "fchdir": (81, 50),
    "getdents": (78, None),
    "getdents64": (217, 61),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "umask": (95, 166),
    # Memory.
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    # Signals and timers of its own.
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137),
    "rt_sigsuspend": (130, 133),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "alarm": (37, None),
    "getitimer": (36, 102),
    "setitimer": (38, 103),
    # Threads and its own end.
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "get_robust_list": (274, 100),
    "set_tid_address": (218, 96),
    "rseq": (334, 293),
    "membarrier": (324, 283),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "arch_prctl": (158, None),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "wait4": (61, 260),
    "waitid": (247, 95),
    # Questions.
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getppid": (110, 173),
    "getpgrp": (111, None),
    "getpgid": (121, 155),
    "getsid": (124, 156),
    "getuid": (102, 174),
    "getgid": (104, 176),
    "geteuid": (107, 175),
    "getegid": (108, 177),
    "getresuid": (118, 148),
    "getresgid": (120, 150),
    "getgroups": (115, 158),
    "getcpu": (309, 168),
    "getrlimit": (97, 163),
    "getrusage": (98, 165),
    "sysinfo": (99, 179),
    "uname": (63, 160),
    "times": (100, 153),
    "time": (201, None),
    "gettimeofday": (96, 169),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "getrandom": (318, 278),
    # Of socket pairs, which event loops wake themselves with; see CONDITIONAL.
    "recvfrom": (45, 207),
    "shutdown": (48, 210),
    "getsockname": (51, 204),
    "getpeername": (52, 205),
    "getsockopt": (55, 209),
}


class Condition(NamedTuple):
    """Holds if `argument & mask` is one of `values`; only the lower 32 bits are looked at."""

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    upper: bool = False  # look at the upper 32 bits instead


# Allowed if all of its conditions hold.
CONDITIONAL: dict[str, tuple[int, int, tuple[Condition, ...]]] = {
    # CLONE_THREAD: a thread, not a process.
    "clone": (56, 220, (Condition(0, (0x10000,), mask=0x10000),)),
    # F_DUPFD, F_{GET,SET}{FD,FL}, locks, F_DUPFD_CLOEXEC; not F_SETOWN, which sends signals.
    "fcntl": (72, 25, (Condition(1, (0, 1, 2, 3, 4, 5, 6, 7, 1030)),)),
    # TCGETS, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX.
    "ioctl": (16, 29, (Condition(1, (0x5401, 0x541B, 0x5421, 0x5450, 0x5451)),)),
    # PR_SET_NAME, PR_GET_NAME, PR_SET_VMA.
    "prctl": (157, 167, (Condition(0, (15, 16, 0x53564D41)),)),
    # AF_UNIX and SOCK_STREAM: a datagram socket could write to any Unix socket by its path.
    "socketpair": (53, 199, (Condition(0, (1,)), Condition(1, (1,), mask=0xF))),
    # To no address.
    "sendto": (44, 206, (Condition(4, (0,)), Condition(4, (0,), upper=True))),
}

# Allowed with the caller's own number as first argument.
OWN: dict[str, tuple[int, int]] = {"kill": (62, 129), "tgkill": (234, 131)}
# The same, or 0, which means the caller.
_PRLIMIT64 = (302, 261)
# Not there, rather than forbidden: the C library then takes clone, whose flags can be looked at.
_CLONE3 = (435, 435)


def supported() -> bool:
    """Whether there is a table for this machine."""
    return platform.machine() in _ARCHITECTURES


class Filter:
    """The filter but for the number of the process, which a forked one alone has to fill in."""

    def __init__(self) -> None:
        code = assemble(platform.machine(), _ANY_PID)
        number = struct.pack("I", _ANY_PID)
        self._places = [at for at in range(0, len(code), 4) if code[at : at + 4] == number]
        self._code = ctypes.create_string_buffer(code, len(code))
        self._program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(self._code))

    def restrict(self, libc: ctypes.CDLL) -> None:
        """Filter this process's system calls from now on. `no_new_privs` must be set.

        Args:
            libc: Loaded with `use_errno=True`.

        Raises:
            OSError: The kernel refuses.
        """
        pid = os.getpid()
        for place in self._places:
            struct.pack_into("I", self._code, place, pid)
        if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, self._program, 0, 0) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"prctl(SET_SECCOMP): {os.strerror(error)}")


def assemble(machine: str, pid: int) -> bytes:
    """The filter in the kernel's classic BPF, 8 bytes an instruction.

    A binary search: the kernel runs a new filter once for each call that there is, to know which
    ones it always allows.

    Args:
        machine: `x86_64` or `aarch64`.
        pid: The process's number, for calls that it may only aim at itself.
    """
    architecture, column = _ARCHITECTURES[machine]
    allow, refuse = [_instruction(_RETURN, _ALLOW)], [_instruction(_RETURN, _ERRNO | _EPERM)]
    blocks: dict[int | None, list[bytes]] = {row[column]: allow for row in ALLOWED.values()}
    for *numbers, conditions in CONDITIONAL.values():
        blocks[int(numbers[column])] = _if_all(conditions)
    blocks |= {row[column]: _if_all((Condition(0, (pid,)),)) for row in OWN.values()}
    blocks[_PRLIMIT64[column]] = _if_all((Condition(0, (0, pid)),))
    blocks[_CLONE3[column]] = [_instruction(_RETURN, _ERRNO | _ENOSYS)]
    # Where another block begins to hold, in order of numbers.
    ranges = [(0, refuse)]
    for number in sorted(number for number in blocks if number is not None):
        if ranges[-1][0] == number:
            ranges.pop()
        if not ranges or blocks[number] is not ranges[-1][1]:
            ranges.append((number, blocks[number]))
        ranges.append((number + 1, refuse))
    return b"".join(
        [
            _instruction(_LOAD, _ARCHITECTURE_AT),
            _instruction(_JUMP_IF_EQUAL, architecture, 1, 0),
            _instruction(_RETURN, _KILL_PROCESS),
            _instruction(_LOAD, _NUMBER_AT),
            *_search(ranges),
        ]
    )


def _search(ranges: list[tuple[int, list[bytes]]]) -> list[bytes]:
    """Code that goes to the block of the last range that begins at the number or before it.

    Each block ends in a return; the accumulator holds the number.
    """
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    below, above = _search(ranges[:middle]), _search(ranges[middle:])
    first = ranges[middle][0]
    if len(below) <= _FARTHEST:
        return [_instruction(_JUMP_IF_AT_LEAST, first, len(below), 0), *below, *above]
    jump = _instruction(_JUMP, len(below))
    return [_instruction(_JUMP_IF_AT_LEAST, first, 0, 1), jump, *below, *above]


def _if_all(conditions: tuple[Condition, ...]) -> list[bytes]:
    code: list[bytes] = []
    for condition in conditions:
        offset = _ARGUMENTS_AT + 8 * condition.argument + 4 * condition.upper
        code += [_instruction(_LOAD, offset), _instruction(_AND, condition.mask)]
        count = len(condition.values)
        for i, value in enumerate(condition.values):
            # Over the rest of the comparisons and the refusal after them.
            code.append(_instruction(_JUMP_IF_EQUAL, value, count - i, 0))
        code.append(_instruction(_RETURN, _ERRNO | _EPERM))
    return [*code, _instruction(_RETURN, _ALLOW)]


def _instruction(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", operation, if_true, if_false, value)
