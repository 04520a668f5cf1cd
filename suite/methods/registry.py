"""Methods made from their names. Imports JAX, which the names alone don't need."""

from __future__ import annotations

import importlib

from ioa_jax.errors import InputError
from suite.entry_points import load_other, package_of
from suite.methods import (
    CONTROL_NAMES,
    METHODS,
    ORDERS,
    OWN,
    WORLD,
    is_sweep,
    method_names,
    other_methods,
)
from suite.methods.base import Method
from suite.methods.controls import CONTROLS
from suite.methods.ioa import IOA
from suite.methods.pool import PoolControl
from suite.methods.retained import RetainedMethod
from suite.methods.sweep import read_sweep


def load_method(name: str) -> Method:
    """A method by its name.

    Raises:
        InputError: There is none, or an installed package's can't be imported or isn't one; or a
            sweep's name isn't METHOD@SETTING=VALUE.
    """
    if is_sweep(name):
        return read_sweep(name, load_method)
    if name in METHODS:
        return _load_own(name)
    others = other_methods()
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
    if name in OWN or name in WORLD:
        module, variable = (OWN | WORLD)[name]
        return getattr(importlib.import_module(f"suite.methods.{module}"), variable)
    if name in CONTROL_NAMES:
        return IOA(*CONTROLS[name])
    order = name.removeprefix("ioa_")
    if order in ORDERS:
        return PoolControl(f"what ioa trains on, {order.replace('_', ' ')}", order)
    return RetainedMethod(load_method(name.removesuffix("_retained")))
