"""Settings from YAML files, with overrides and one mapping laid over another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ioa_jax.errors import InputError, first_fault
from ioa_jax.files import read_text

Settings = TypeVar("Settings", bound=BaseModel)


def read_settings(
    kind: type[Settings],
    path: Path | None,
    overrides: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings from a YAML file and overrides.

    Args:
        kind: Their model.
        path: The file; None begins with `defaults` alone.
        overrides: `a.b=value`, the value read as YAML.
        defaults: What holds where the file says nothing.

    Raises:
        InputError: The file isn't a mapping in YAML; or a setting is unknown, missing or wrong.
    """
    raw: dict[str, Any] = dict(defaults or {})
    source = "settings"
    if path is not None:
        source = str(path)
        raw |= read_mapping(path)
    for override in overrides:
        override_setting(raw, override)
    return check_settings(kind, raw, source)


def read_mapping(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        InputError: It can't be read, or holds something else.
    """
    try:
        raw = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: a mapping of settings is needed")
    return raw


def check_settings(kind: type[Settings], raw: Any, source: str) -> Settings:
    """Settings under their model.

    Args:
        kind: The model.
        raw: As read.
        source: Where from, for the error.

    Raises:
        InputError: Names the source and the first bad setting.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{source}: {first_fault(error, 'settings', 'setting')}") from None


def merge_settings(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `under`, section by section."""
    merged = dict(under)
    for name, value in over.items():
        below = merged.get(name)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[name] = merge_settings(below, value)
        else:
            merged[name] = value
    return merged


def override_setting(raw: dict[str, Any], override: str) -> None:
    """Put `a.b=value` into a mapping of settings; the value is read as YAML.

    Raises:
        InputError: It has another form, or `a` is no section.
    """
    name, separator, text = override.partition("=")
    if not separator or not name:
        raise InputError(f"--set {override!r}: write it as a.b=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {override!r}: {error}") from None
    *parents, last = name.split(".")
    place = raw
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise InputError(f"--set {override!r}: {parent!r} has no settings of its own")
    place[last] = value
