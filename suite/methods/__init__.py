"""The methods that are compared: one file each, one interface (`base.Method`)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from suite.methods.base import Method

# Name to what `list` says of it. Modules are imported when they are used: they import JAX.
METHODS = {
    "undistilled": "the student as it is",
    "sft": "supervised fine-tuning on the teacher's answers, in random order",
    "staged": "the same answers and as many tokens, one stage of modules after the other",
}


def load_method(name: str) -> Method:
    """A method of `METHODS` by its name."""
    return importlib.import_module(f"suite.methods.{name}").METHOD
