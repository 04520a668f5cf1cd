"""What installed packages add by entry points: methods and tasks."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Collection
from typing import Any

from ioa_jax.errors import InputError


def find_others(
    group: str, ours: Collection[str], kind: str
) -> dict[str, importlib.metadata.EntryPoint]:
    """Entry points of a group by name.

    Args:
        group: Of the entry points.
        ours: Names that are taken.
        kind: What they are, for the error.

    Raises:
        InputError: Two have the same name.
    """
    found: dict[str, importlib.metadata.EntryPoint] = {}
    for point in importlib.metadata.entry_points(group=group):
        if point.name in ours or point.name in found:
            other = f"{package_of(found[point.name])}'s" if point.name in found else "ours"
            raise InputError(
                f"{kind} {point.name!r} of {package_of(point)} has the name of {other}; "
                "uninstall one"
            )
        found[point.name] = point
    return found


def load_other(point: importlib.metadata.EntryPoint, kind: str) -> Any:
    """What an entry point names.

    Raises:
        InputError: It can't be imported.
    """
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise InputError(f"{kind} {point.name!r} of {package_of(point)}: {error}") from error


def package_of(point: importlib.metadata.EntryPoint) -> str:
    """Name of the package that an entry point comes from."""
    return point.dist.name if point.dist is not None else point.value
