"""Settings from YAML files, with overrides and one mapping laid over another."""

from __future__ import annotations

import math
import re
import textwrap
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ioa_jax.errors import InputError, first_fault
from ioa_jax.files import read_text
from ioa_jax.json_text import MAX_NESTING, has_half

Settings = TypeVar("Settings", bound=BaseModel)
_BOOL = "tag:yaml.org,2002:bool"


class _Loader(yaml.SafeLoader):
    """Plain values, with YAML 1.2's switches: `off` is a value of some settings, `on` a name."""


_Loader.yaml_implicit_resolvers = {
    first: [one for one in resolvers if one[0] != _BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    _BOOL, re.compile("(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)

MAX_VALUES = 10_000


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
        raw = _parse_yaml(read_text(path))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: a mapping of settings is needed")
    return raw


def _parse_yaml(text: str) -> Any:
    """A YAML value of which JSON could be made.

    Raises:
        ValueError: It isn't YAML; or it is more than settings are, names one of them by something
            that is no text, or holds NaN or infinity.
    """
    try:
        # It builds plain values alone, as its parent does.
        value = yaml.load(text, Loader=_Loader)
    # PyYAML raises what its constructors meet: of a date or a number that is none, for one.
    except Exception as error:
        raise ValueError(f"not YAML: {error or type(error).__name__}") from None
    # An alias may stand for as much as the whole, many times over.
    left, level, inner = MAX_VALUES, 0, [value]
    while inner:
        left, level = left - len(inner), level + 1
        if left < 0 or level > MAX_NESTING:
            raise ValueError(f"more than {MAX_VALUES} values, or nested over {MAX_NESTING} deep")
        parts: list[Any] = []
        for one in inner:
            _check_scalar(one)
            if isinstance(one, dict):
                odd = [key for key in one if not isinstance(key, str)]
                if odd:
                    raise ValueError(f"{odd[0]!r:.60}: put quotation marks around this name")
                parts += [*one, *one.values()]
            elif isinstance(one, list):
                parts += one
            if len(parts) > left:
                break
        inner = parts
    return value


def _check_scalar(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no setting")
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise ValueError("an integer of more than 63 bits")
    if isinstance(value, str) and ("\0" in value or (not value.isascii() and has_half(value))):
        raise ValueError(f"{value[:60]!r} holds what is no character")
    if isinstance(value, set | bytes | tuple):
        raise ValueError(f"a {type(value).__name__} is no setting")


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
        raise InputError(f"{source}: {_fault(error)}") from None


def _fault(error: ValidationError) -> str:
    """The first thing that is wrong, in words of settings."""
    first = error.errors()[0]
    if first["type"] == "extra_forbidden":
        place = ".".join(map(str, first["loc"]))
        return f"setting {place!r}: there is none of this name"
    if first["type"] == "value_error":
        # Our own words; where several settings don't fit each other, they name these.
        words = str(first["ctx"]["error"]) if "ctx" in first else first["msg"]
        place = ".".join(map(str, first["loc"]))
        return f"setting {place!r}: {words}" if place else words
    return first_fault(error, "settings", "setting")


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
        value = _parse_yaml(text)
    except ValueError as error:
        raise InputError(f"--set {override!r}: {error}") from None
    *parents, last = name.split(".")
    place = raw
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise InputError(f"--set {override!r}: {parent!r} has no settings of its own")
    place[last] = value


def settings_lines(kind: type[BaseModel], indent: str = "") -> list[str]:
    """Every setting of a model as YAML, with its default, under a comment that says what it is.

    Settings that have no default, and those of a section that is off by default, are comments too.
    """
    lines: list[str] = []
    for name, field in kind.model_fields.items():
        section = _section(field)
        text = field.description or (section.__doc__ or "").splitlines()[0]
        lines += _comment(text, indent)
        if field.is_required() and section is None:
            lines.append(f"{indent}# {name}:")
            continue
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        if section is None:
            lines.append(f"{indent}{name}: {_as_yaml(kind, name, default)}")
            continue
        inner = settings_lines(section, f"{indent}  ")
        if default is None:
            if not field.is_required():
                lines.append(f"{indent}{name}: null")
            lines.append(f"{indent}# {name}:")
            inner = [f"{indent}# {line.removeprefix(indent)}" for line in inner]
        else:
            lines.append(f"{indent}{name}:")
        lines += inner
    return lines


def find_section(kind: type[BaseModel], place: str) -> type[BaseModel]:
    """The model of a section, such as `organizer.retention`.

    Raises:
        InputError: There is none; names those that there are.
    """
    for name in place.split("."):
        sections = {
            own: found
            for own, field in kind.model_fields.items()
            if (found := _section(field)) is not None
        }
        if name not in sections:
            there = ", ".join(sections) or "none"
            raise InputError(f"section {place!r}: no section {name!r}; there are {there}")
        kind = sections[name]
    return kind


def _section(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that has settings of its own."""
    kinds = (field.annotation, *typing.get_args(field.annotation))
    return next(
        (one for one in kinds if isinstance(one, type) and issubclass(one, BaseModel)), None
    )


def _comment(text: str, indent: str) -> list[str]:
    mark = f"{indent}# "
    return textwrap.wrap(text, 100, initial_indent=mark, subsequent_indent=mark)


def _as_yaml(kind: type[BaseModel], name: str, default: Any) -> str:
    """A default in one line, as a file would have it."""
    plain = kind.model_construct(**{name: default}).model_dump(mode="json", include={name})[name]
    text = yaml.safe_dump(plain, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
