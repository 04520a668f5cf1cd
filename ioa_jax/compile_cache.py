"""A folder of compiled programs, so that the next process needn't compile them again.

JAX's own persistent cache does the work. What is set here, by environment variables that worker
processes inherit, is that it is on, also for programs that compile quickly: one command compiles
many of them. It has to be set before JAX is imported.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
from pathlib import Path

MAX_BYTES = 2 * 1024**3
SHARE_OF_DISK = 0.25

logger = logging.getLogger(__name__)


def use_compile_cache(on: bool = True) -> None:
    """Set up JAX's persistent compile cache for this process and those that it starts.

    The folder is `ioa-jax/compiled/MACHINE` in `XDG_CACHE_HOME` or `~/.cache`, at most `MAX_BYTES`
    and at most a share of what is free on its disk; the programs that weren't used for longest go
    first. MACHINE is a digest of the processor's name and features: home directories are often
    shared by unequal machines, and a program for one may be an illegal instruction for another.
    What `JAX_COMPILATION_CACHE_DIR` and JAX's other variables say has precedence. Where the folder
    can't be made there is no cache.

    Args:
        on: False: no cache, whatever the environment says.
    """
    if not on:
        os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
        return
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(home) if home else Path.home() / ".cache") / "ioa-jax" / "compiled"
        folder = folder / _machine()
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
        logger.info("programs are compiled anew each time: %s", error)
        return
    if not os.access(folder, os.W_OK):
        logger.info("programs are compiled anew each time: %s can't be written", folder)
        return
    size = min(MAX_BYTES, int(SHARE_OF_DISK * free))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(size))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _machine() -> str:
    """12 hexadecimal digits that differ between machines that can't run each other's programs."""
    told = [platform.machine()]
    info = Path("/proc/cpuinfo")
    if info.is_file():
        wanted = ("model name", "flags", "Features", "CPU part")
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        told += sorted({line for line in lines if line.startswith(wanted)})
    else:
        told.append(platform.processor())
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:12]
