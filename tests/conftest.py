"""Strict JAX for every test: two fake devices, no implicit dtype or rank promotion.

This has to run before anything initialises JAX, so it sets the environment at import.
"""

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=2"]
).strip()
# What tests compile is kept beside the project, not among the user's own programs.
_project = pathlib.Path(__file__).parents[1]
if os.access(_project, os.W_OK):
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_project / ".cache" / "jax"))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from jaxtyping import install_import_hook  # noqa: E402

# Shape annotations of the package are checked while its tests run.
_hook = install_import_hook("ioa_jax", "beartype.beartype")

import hypothesis  # noqa: E402
import jax  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# A busy machine is no failure.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


def pytest_collection_modifyitems(items):
    """Files with slow tests first, since workers take whole files and none should end with one."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
