"""What a line of each journal has to hold, whoever wrote it; it may hold more."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ioa_jax.errors import InputError, first_fault
from ioa_jax.json_text import parse_json

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
AnyRow = TypeVar("AnyRow", bound="Row")


class Row(BaseModel):
    """A line: a JSON object. Its figures are numbers as they are, and finite."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)


class StepRow(Row):
    """train.jsonl: an optimiser step."""

    part: str
    step: int = Field(ge=1)
    tokens: Count
    seconds: Seconds = 0.0


class UsageRow(Row):
    """What a call took."""

    model_config = ConfigDict(extra="forbid")

    calls: Count
    prompt_tokens: Count
    completion_tokens: Count
    cost: Annotated[float, Field(ge=0)] | None


class CallRow(Row):
    """counted.jsonl and teacher.jsonl: a call that counts as a run's."""

    key: str
    purpose: str
    usage: UsageRow


class SecondsRow(Row):
    """seconds.jsonl: what a step took."""

    step: str
    number: Count
    seconds: Seconds


def parse_row(line: bytes, row: type[Row], place: str) -> dict[str, Any]:
    """A line, checked.

    Args:
        line: UTF-8.
        row: What it has to hold.
        place: File and line, for errors.

    Raises:
        InputError: Names the place, and the field where there is one.
    """
    try:
        record = parse_json(line.decode("utf-8"))
    except ValueError as error:
        raise InputError(f"{place}: not JSON: {error}") from None
    try:
        row.model_validate(record)
    except ValidationError as error:
        raise InputError(f"{place}: {first_fault(error, 'line')}") from None
    return record
