"""Frozen values to and from JSON: what each step of the method leaves for the next one to read."""

from __future__ import annotations

import functools
from typing import Any, ClassVar, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ioa_jax.errors import InputError, first_fault
from ioa_jax.json_text import parse_json

Kind = TypeVar("Kind", bound="Value")

# By this much a computed ratio may miss a threshold that it meets on paper: 0.72 / 0.8 is less than
# 0.9 in floating point.
ROUNDING = 1e-9


class Value:
    """Base of the frozen dataclasses that are written to the run's folder.

    Fields are numbers, strings, tuples, mappings and other values, so that the JSON of one is read
    back as an equal value. JSON has no infinity and no NaN: neither has a value.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    def to_json(self) -> str:
        """Indented JSON text."""
        return str(_adapter(type(self)).dump_json(self, indent=2), "utf-8")

    @classmethod
    def from_json(cls: type[Kind], text: str, source: str) -> Kind:
        """Read what `to_json` wrote.

        Args:
            text: JSON.
            source: The file's name, for errors.

        Raises:
            InputError: Names the source and the first bad field.
        """
        try:
            return _adapter(cls).validate_python(parse_json(text))
        except ValidationError as error:
            raise InputError(f"{source}: {first_fault(error, cls.__name__)}") from None
        except ValueError as error:
            raise InputError(f"{source}: not JSON: {error}") from None


# Making one takes a millisecond, and a run writes thousands of values. Any: beartype can't check
# pydantic's generic class.
@functools.cache
def _adapter(kind: type[Value]) -> Any:
    return TypeAdapter(kind)
