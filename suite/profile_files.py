"""Profiles from YAML files, with overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ioa_jax.errors import InputError
from ioa_jax.settings import check_settings, merge_settings, override_setting, read_mapping
from suite.methods import is_sweep
from suite.profile import PROFILES, Profile


def profile_names() -> list[str]:
    """Profiles that come with the suite."""
    # What begins with an underscore is a base of others.
    return sorted(path.stem for path in PROFILES.glob("[!_]*.yaml"))


def load_profile(name: str, overrides: Sequence[str] = ()) -> tuple[str, Profile]:
    """A profile by name, or from a file.

    Args:
        name: One of `profile_names()`, or the path of a YAML file.
        overrides: `a.b=value`; the value is read as YAML.

    Returns:
        Its name (a file's without folder and ending) and the settings.

    Raises:
        InputError: There is no such profile; or a setting is unknown, missing or wrong.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(profile_names())
        raise InputError(f"profile {name!r} is unknown; choose from {known}, or name a YAML file")
    raw = _read(path)
    for override in overrides:
        override_setting(raw, override)
    return path.stem, validate(raw, str(path))


def _read(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A file's settings over those of the file beside it that its `base` names."""
    raw = read_mapping(path)
    base = raw.pop("base", None)
    if base is None:
        return raw
    if not isinstance(base, str) or Path(f"{base}.yaml").name != f"{base}.yaml":
        raise InputError(f"{path}: setting 'base': {base!r:.60} is no name of a file beside it")
    under = path.with_name(f"{base}.yaml")
    if under in (path, *above):
        raise InputError(f"{path}: setting 'base': {base!r} is built on this one")
    return merge_settings(_read(under, (path, *above)), raw)


def validate(raw: Any, source: str) -> Profile:
    """Settings under the schema, and a sweep's under its method.

    Raises:
        InputError: Names the source and the first bad field.
    """
    profile = check_settings(Profile, raw, source)
    sweeps = [name for name in profile.methods if is_sweep(name)]
    if sweeps:
        # It imports JAX, and most profiles are read in a moment without.
        from suite.methods.registry import load_method
        from suite.methods.sweep import read_sweep
    for name in sweeps:
        try:
            read_sweep(name, load_method).check(profile)
        except InputError as error:
            raise InputError(f"{source}: setting 'methods': {name!r}: {error}") from None
    return profile


def check_options(profile: Profile, source: str) -> None:
    """See that a profile's options are settings of the methods that take them.

    Apart from `validate`, since it imports JAX.

    Raises:
        InputError: Names the source, the method and the first bad setting.
    """
    from suite.methods.ioa import IOA
    from suite.methods.registry import load_method

    for name in profile.methods:
        method = None if is_sweep(name) else load_method(name)
        if isinstance(method, IOA):
            try:
                method.config(profile)
            except InputError as error:
                raise InputError(f"{source}: {name}: {error}") from None
