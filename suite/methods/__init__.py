"""The methods that are compared: a file each, one table of IOA's controls, one interface.

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

# By name, its module and its name there. Modules are imported when they are used: they import JAX.
_OWN = {
    name: (name, "METHOD")
    for name in (
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
    )
}
_RETAINED = ("sft_matched", "lamini")
_ORDERS = ("shuffled", "easy_to_hard", "hard_to_easy")
_WORLD = {"uniform_right": ("world", "UNIFORM_RIGHT"), "oracle": ("world", "ORACLE")}
CONTROL_NAMES = (
    "ioa_paper",
    "ioa_uniform",
    "ioa_no_identifier",
    "ioa_no_retention",
    "ioa_replay",
    "ioa_no_references",
    "ioa_schema",
    "ioa_easy_levels",
    "ioa_no_adapter",
    "ioa_no_zone",
    "ioa_no_gate",
    "ioa_no_late",
    "ioa_no_stages",
)
METHODS = (
    *_OWN,
    *(f"{name}_retained" for name in _RETAINED),
    *CONTROL_NAMES,
    *(f"ioa_{order}" for order in _ORDERS),
    *_WORLD,
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
        return _load_own(name)
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


def _load_own(name: str) -> Method:
    if name in _OWN or name in _WORLD:
        module, variable = (_OWN | _WORLD)[name]
        return getattr(importlib.import_module(f"suite.methods.{module}"), variable)
    if name in CONTROL_NAMES:
        from suite.methods.controls import CONTROLS
        from suite.methods.ioa import IOA

        return IOA(*CONTROLS[name])
    order = name.removeprefix("ioa_")
    if order in _ORDERS:
        from suite.methods.pool import PoolControl

        return PoolControl(f"what ioa trains on, {order.replace('_', ' ')}", order)
    from suite.methods.retained import RetainedMethod

    return RetainedMethod(load_method(name.removesuffix("_retained")))


def _others() -> dict[str, EntryPoint]:
    return find_others(ENTRY_POINTS, METHODS, "method")
