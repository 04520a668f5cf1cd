"""JSON Lines in and out, with errors that name the line and the field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ioa_jax.errors import InputError, first_fault
from ioa_jax.files import read_text, write_text
from ioa_jax.json_text import parse_json

Row = TypeVar("Row", bound=BaseModel)


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of every line that isn't blank.

    Raises:
        InputError: The file can't be read, or a line isn't a JSON object.
    """
    for number, value in _parsed(path):
        if isinstance(value, InputError):
            raise value
        yield number, value


def read_rows(path: Path, row_type: type[Row]) -> dict[int, Row]:
    """Line number (from 1) to the line as a `row_type`.

    The whole file is checked before anything is returned.

    Raises:
        InputError: Names file, line and field of the first bad line; or the file has no line.
    """
    rows, faults = find_rows(path, row_type)
    if faults:
        raise InputError(next(iter(faults.values())))
    return rows


def find_rows(path: Path, row_type: type[Row]) -> tuple[dict[int, Row], dict[int, str]]:
    """The lines of a file that can be used, and what is wrong with the others.

    Returns:
        Line number (from 1) to the line as a `row_type`; and to file, line, field and fault.

    Raises:
        InputError: The file can't be read, or has no line.
    """
    rows: dict[int, Row] = {}
    faults: dict[int, str] = {}
    for number, value in _parsed(path):
        if isinstance(value, InputError):
            faults[number] = str(value)
            continue
        try:
            rows[number] = row_type.model_validate(value)
        except ValidationError as error:
            faults[number] = f"{path}:{number}: {first_fault(error, 'line')}"
    if not rows and not faults:
        raise InputError(f"{path}: no lines")
    return rows, faults


def _parsed(path: Path) -> Iterator[tuple[int, dict[str, Any] | InputError]]:
    """Every line that isn't blank: an object, or why it is none."""
    # Not splitlines(): a JSON string may hold U+2028 and other line ends as they are.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = parse_json(line)
        except ValueError as error:
            yield number, InputError(f"{path}:{number}: not JSON: {error}")
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            kind = type(value).__name__
            yield number, InputError(f"{path}:{number}: a JSON object is needed, not {kind}")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write all lines, or leave the old file as it was.

    Raises:
        InputError: The folder can't be written, or a number isn't finite, which JSON has no word
            for.
    """
    lines: list[str] = []
    for number, row in enumerate(rows, start=1):
        try:
            lines.append(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        except ValueError:
            faulty = ", ".join(repr(name) for name, value in row.items() if not _is_json(value))
            raise InputError(
                f"{path}:{number}: not written: field {faulty} holds NaN or infinity"
            ) from None
    write_text(path, "".join(lines))


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True
