"""Errors that a user can act on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class IOAError(Exception):
    """Bad input or an unusable environment, told with what to do about it.

    The command line prints the message alone and exits with `exit_code`; everything else is a
    defect of ours and keeps its traceback.
    """

    exit_code = 2


class InputError(IOAError):
    """A file, field or argument that the user gave is wrong; the message names it."""


class ModelFormatError(IOAError):
    """A checkpoint, configuration or tokenizer that this engine can't read faithfully."""


class MissingDependencyError(IOAError):
    """An optional package is absent; the message holds the one command that gets it."""

    exit_code = 3


class NothingTaught(IOAError):
    """A distillation trained nothing: nothing was lacking, or no example could be used.

    The message says which; the run's record is complete.
    """

    exit_code = 7


class SandboxError(IOAError):
    """Untrusted programs can't be run here as isolated as was asked; the message says why."""

    exit_code = 4


def first_fault(error: ValidationError, whole: str, noun: str = "field") -> str:
    """The first thing that is wrong with a value, such as `field 'a.b': Field required`.

    Args:
        error: Of checking the value.
        whole: What the value is called, where no part of it is to blame.
        noun: What a part of it is called.
    """
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or whole
    return f"{noun} {place!r}: {first['msg']}"
