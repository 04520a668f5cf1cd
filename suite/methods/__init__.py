"""The methods that are compared, by name: a file each, one table of IOA's controls, one interface.

An installed package adds a method by an entry point of the group `ioa.methods`, whose name is the
method's and whose object is one. `METHOD@SETTING=VALUE` is a method too: another one with one
number changed (`sweep`).
"""

from __future__ import annotations

from importlib.metadata import EntryPoint

from suite.entry_points import find_others

ENTRY_POINTS = "ioa.methods"

# By name, its module and its name there. Modules are imported when they are used: they import JAX.
OWN = {
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
ORDERS = ("shuffled", "easy_to_hard", "hard_to_easy")
WORLD = {"uniform_right": ("world", "UNIFORM_RIGHT"), "oracle": ("world", "ORACLE")}
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
    *OWN,
    *(f"{name}_retained" for name in _RETAINED),
    *CONTROL_NAMES,
    *(f"ioa_{order}" for order in ORDERS),
    *WORLD,
)


def is_sweep(name: str) -> bool:
    """Whether a name is of another method with one setting changed."""
    return "@" in name


def method_names() -> list[str]:
    """Ours in the order of `METHODS`, then others' by name; sweeps aren't listed.

    Raises:
        InputError: Two methods have the same name.
    """
    return [*METHODS, *sorted(other_methods())]


def other_methods() -> dict[str, EntryPoint]:
    """Of installed packages, by name."""
    return find_others(ENTRY_POINTS, METHODS, "method")
