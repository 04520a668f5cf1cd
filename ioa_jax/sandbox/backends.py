"""Finds out which backend and interpreter work on this machine."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import sys

from ioa_jax.errors import SandboxError
from ioa_jax.sandbox.base import STRONG, WEAK, Backend, SandboxInfo
from ioa_jax.sandbox.processes import PACKAGES, BackendError, ForkServer

_LOGGER = logging.getLogger(__name__)


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
            server = ForkServer(backend, interpreter)
        except BackendError as error:
            reasons.append(f"{interpreter}: {error}")
            continue
        server.close()
        if not server.hello["packages"]:
            _LOGGER.warning(
                "programs in the sandbox can't import %s: %s is Python %s, they are installed for "
                "%s or not at all. Let every user read %s and its packages",
                ", ".join(PACKAGES), interpreter, server.hello["python"],
                ".".join(map(str, sys.version_info[:2])), sys.executable,
            )  # fmt: skip
        return SandboxInfo(
            backend=backend,
            landlock_abi=server.hello["landlock_abi"],
            isolation=tuple(server.hello["isolation"]),
            python=server.hello["python"],
            interpreter=interpreter,
            packages=tuple(server.hello["packages"]),
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
