"""The methods that are compared: one file each, one interface (`base.Method`).

An installed package adds a method by an entry point of the group `ioa.methods`, whose name is the
method's and whose object is one. `METHOD@SETTING=VALUE` is a method too: another one with one
number changed (`sweep`).
"""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

from ioa_jax.errors import InputError
from suite.entry_points import find_others, load_other, package_of

if TYPE_CHECKING:
    from suite.methods.base import Method

ENTRY_POINTS = "ioa.methods"

# Modules are imported when they are used: they import JAX.
METHODS = (
    "undistilled",
    "sft",
    "sft_matched",
    "self_instruct",
    "evol_instruct",
    "lamini",
    "lion",
    "dss",
    "cascod",
    "llm2llm",
    "multi_agent",
    "ioa",
    "ioa_paper",
    "ioa_shuffled",
    "ioa_easy_to_hard",
    "ioa_hard_to_easy",
    "ioa_no_identifier",
    "ioa_no_zone",
    "ioa_no_gate",
    "ioa_no_remedial",
    "ioa_no_adapter",
    "ioa_no_retention",
)


def is_sweep(name: str) -> bool:
    """Whether a name is of another method with one setting changed."""
    return "@" in name


def method_names() -> list[str]:
    """Ours in the order of `METHODS`, then others' by name; sweeps aren't listed.

    Raises:
        InputError: Two methods have the same name.
    """
    return [*METHODS, *sorted(_others())]


def load_method(name: str) -> Method:
    """A method by its name.

    Raises:
        InputError: There is none, or an installed package's can't be imported or isn't one; or a
            sweep's name isn't METHOD@SETTING=VALUE.
    """
    if is_sweep(name):
        from suite.methods.sweep import read_sweep

        return read_sweep(name)
    if name in METHODS:
        return importlib.import_module(f"suite.methods.{name}").METHOD
    others = _others()
    if name not in others:
        raise InputError(f"method {name!r} is unknown; there are {', '.join(method_names())}")
    point = others[name]
    method = load_other(point, "method")
    for part in ("summary", "needs", "run"):
        if not hasattr(method, part):
            raise InputError(
                f"method {name!r} of {package_of(point)}: {point.value} has no {part!r}; see "
                "suite.methods.base.Method"
            )
    return method


def _others() -> dict[str, EntryPoint]:
    return find_others(ENTRY_POINTS, METHODS, "method")
