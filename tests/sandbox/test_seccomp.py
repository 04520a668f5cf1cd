"""The filter's table against the kernel's headers, and its code in a small interpreter of BPF."""

import functools
import platform
import re
import struct
from pathlib import Path
from typing import Any

import pytest

from ioa_jax.sandbox.workers import seccomp

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
PID = 4321


def numbers(machine) -> dict[str, Any]:
    """Name to number of every call that the filter knows."""
    column = list(HEADERS).index(machine)
    table = {name: row[column] for name, row in seccomp.ALLOWED.items()}
    table |= {name: row[column] for name, row in seccomp.CONDITIONAL.items()}
    table |= {name: row[column] for name, row in seccomp.OWN.items()}
    return table | {"prlimit64": seccomp._PRLIMIT64[column], "clone3": seccomp._CLONE3[column]}


@pytest.mark.parametrize("machine", HEADERS)
def test_numbers_are_the_kernels(machine):
    if not HEADERS[machine].exists():
        pytest.skip(f"{HEADERS[machine]} isn't there (Debian's package linux-libc-dev)")
    text = HEADERS[machine].read_text()
    kernel = {
        name: int(number)
        for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)
    }
    if machine == "aarch64":
        kernel["newfstatat"] = kernel["fstatat"]
    assert numbers(machine) == {name: kernel.get(name) for name in numbers(machine)}


assembled = functools.cache(seccomp.assemble)


def verdict(machine, number, *arguments, architecture=None, pid=PID):
    """What the filter answers to a call."""
    code = assembled(machine, pid)
    values = [argument & (2**64 - 1) for argument in (*arguments, *[0] * 6)][:6]
    data = struct.pack("IIQ6Q", number, architecture or ARCHITECTURE[machine], 0, *values)
    accumulator = at = 0
    while True:
        operation, if_true, if_false, value = struct.unpack_from("HBBI", code, 8 * at)
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("I", data, value)
            case 0x54:
                accumulator &= value
            case 0x15:
                at += if_true if accumulator == value else if_false
            case 0x35:
                at += if_true if accumulator >= value else if_false
            case 0x05:
                at += value
            case 0x06:
                return value
            case unknown:
                raise AssertionError(f"operation {unknown:#x}")


@pytest.mark.parametrize("machine", HEADERS)
def test_what_is_allowed(machine):
    number = numbers(machine)
    for name in seccomp.ALLOWED:
        if number[name] is not None:
            assert verdict(machine, number[name]) == ALLOW, name
    known = set(number.values())
    for other in (*range(600), 0x40000000, 0x40000000 + number["read"], 2**32 - 1):
        if other not in known:
            assert verdict(machine, other) == EPERM, other
    assert verdict(machine, number["read"], architecture=0x40000003) == KILL
    assert verdict(machine, number["clone3"]) == ENOSYS


@pytest.mark.parametrize("machine", HEADERS)
@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("clone", [(0x3D0F00,)], [(0x11,), (0x01200011,), (0x10000000,)]),
        ("kill", [(PID, 9)], [(0, 9), (-1, 9), (1, 9), (PID + 1, 0), (-PID, 9)]),
        ("tgkill", [(PID, 5, 6)], [(PID + 1, PID + 1, 9), (0, 0, 9)]),
        ("prlimit64", [(0, 7), (PID, 7)], [(1, 7), (PID - 1, 7)]),
        ("fcntl", [(3, 3), (3, 1030)], [(3, 8), (3, 10), (3, 15), (3, 1024)]),
        ("ioctl", [(0, 0x5401)], [(0, 0x5412), (0, 0x8901), (0, 0x5452)]),
        ("prctl", [(15,)], [(1,), (4,), (22,), (38,), (0x59616D61,)]),
        ("socketpair", [(1, 1), (1, 0x80801)], [(1, 2), (1, 5), (2, 1), (16, 1)]),
        ("sendto", [(3, 1, 1, 0, 0)], [(3, 1, 1, 0, 1), (3, 1, 1, 0, 1 << 32)]),
    ],
)  # fmt: skip
def test_arguments(machine, name, allowed, refused):
    number = numbers(machine)[name]
    assert {verdict(machine, number, *arguments) for arguments in allowed} == {ALLOW}
    assert {verdict(machine, number, *arguments) for arguments in refused} == {EPERM}


def test_this_machine_has_a_table():
    assert seccomp.supported() == (platform.machine() in HEADERS)
