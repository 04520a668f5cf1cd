"""What a result depends on besides its settings: versions, machine and source."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("ioa-jax", "jax", "jaxlib", "flax", "optax", "numpy", "transformers", "tokenizers")
# The checkout that this file lies in, if it lies in one.
_ROOT = Path(__file__).resolve().parent.parent


def environment() -> dict[str, Any]:
    """Fingerprint of the environment, JSON-able. Initialises JAX's devices.

    Returns:
        `python`; `packages` (version by name, None where one isn't installed); `platform` (kernel,
        machine); `cpu` (model, logical cores that this process may use); `devices` (platform, kind,
        count); `variables` (`XLA_FLAGS`, `LIBTPU_INIT_ARGS` and every `JAX_*` that is set, but for
        the compile cache's folder, which changes no figure and names places of the machine); `git`
        (revision, and whether tracked files differ from it; None where neither a checkout nor the
        container image says); `lock_sha256` (of containers/locks/base.lock, or of the lock that the
        image was made of; None where there is neither) and `image` (target, ID and digest of the
        container image; None outside of one, ID and digest None where it was not started by
        containers/run.sh, since a container can't see them).
    """
    import jax

    devices = jax.devices()
    lock = _ROOT / "containers" / "locks" / "base.lock"
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": {
            "system": platform.system(),
            "kernel": platform.release(),
            "machine": platform.machine(),
        },
        "cpu": {"model": _cpu_model(), "cores": _usable_cores()},
        "devices": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
        },
        "variables": {
            name: value
            for name, value in sorted(os.environ.items())
            if (name.startswith("JAX_") and name != "JAX_COMPILATION_CACHE_DIR")
            or name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
        },
        "git": _git(_ROOT) or _image_revision(),
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest()
        if lock.is_file()
        else os.environ.get("IOA_LOCK_SHA256"),
        "image": _image(),
    }


def _image() -> dict[str, str | None] | None:
    """What containers/Containerfile and containers/run.sh say of the image that this runs in."""
    target = os.environ.get("IOA_IMAGE_TARGET")
    if target is None:
        return None
    # An empty value is an image without one, such as one that was never pushed.
    identifiers = {
        name: os.environ.get(f"IOA_IMAGE_{name.upper()}") or None for name in ("id", "digest")
    }
    return {"target": target, **identifiers}


def _image_revision() -> dict[str, Any] | None:
    """Revision and state of the checkout that the image was built from."""
    text = os.environ.get("IOA_REVISION")
    if not text:
        return None
    return {"revision": text.removesuffix("-dirty"), "dirty": text.endswith("-dirty")}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _usable_cores() -> int | None:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _cpu_model() -> str | None:
    """As the kernel names it; None where it doesn't."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or None
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return None


def _git(root: Path) -> dict[str, Any] | None:
    """Revision and state of a checkout; None if `root` isn't one or git isn't there to ask."""
    if not (root / ".git").exists():
        return None
    try:
        revision = _git_output(root, "rev-parse", "HEAD")
        changes = _git_output(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"revision": revision, "dirty": bool(changes)}


def _git_output(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
