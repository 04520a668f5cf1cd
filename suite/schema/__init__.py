"""What the files of a run hold, as models that are checked, and as JSON Schema for other tools.

`*.schema.json` beside this file are made from `models.py` by `python -m suite.schema`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ioa_jax.errors import InputError, first_fault
from ioa_jax.files import is_there, read_json, write_json
from ioa_jax.jsonl import read_objects, write_rows
from suite.schema.models import CellFile, CurvePoint, PowerFile, RunFile, ScoreLine, TableFile

Model = TypeVar("Model", bound=BaseModel)

FOLDER = Path(__file__).parent
SCHEMAS: dict[str, type[BaseModel]] = {
    "run": RunFile,
    "cell": CellFile,
    "score": ScoreLine,
    "curve": CurvePoint,
    "table": TableFile,
    "power": PowerFile,
}


def check(model: type[Model], value: Any, source: str) -> Model:
    """A value under its model.

    Args:
        model: What it has to be.
        value: As read from JSON.
        source: File, and line where there are several, for errors.

    Raises:
        InputError: Names the source and the first bad field.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InputError(f"{source}: {first_fault(error, 'value')}") from None


def read_file(model: type[Model], path: Path) -> Model:
    """A JSON file under its model.

    Raises:
        InputError: As `read_json` and `check`.
    """
    return check(model, read_json(path), str(path))


def read_lines(model: type[Model], path: Path) -> list[Model]:
    """Every line of a JSONL file under its model; [] without a file.

    Raises:
        InputError: As `read_objects` and `check`.
    """
    if not is_there(path):
        return []
    return [check(model, value, f"{path}:{line}") for line, value in read_objects(path)]


def write_file(model: type[BaseModel], path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file by a value that fits its model, or leave the old one.

    Raises:
        InputError: As `check` and `write_json`.
    """
    check(model, value, str(path))
    write_json(path, value)


def write_lines(model: type[BaseModel], path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a JSONL file by rows that fit their model, or leave the old one.

    Raises:
        InputError: As `check` and `write_rows`.
    """
    for line, row in enumerate(rows, start=1):
        check(model, row, f"{path}:{line}")
    write_rows(path, rows)


def check_run_folder(directory: Path, cells: Path | None = None) -> None:
    """Check every file of a run that has a schema.

    Args:
        directory: The run's.
        cells: The folder of its cells' folders; default: its own.

    Raises:
        InputError: Names the file, the line and the field of the first that doesn't fit.
    """
    read_file(RunFile, directory / "run.json")
    for cell in sorted((cells or directory / "cells").glob("*/cell.json")):
        read_file(CellFile, cell)
        read_lines(ScoreLine, cell.with_name("scores.jsonl"))
        read_lines(CurvePoint, cell.with_name("curve.jsonl"))
    if (directory / "table.json").is_file():
        read_file(TableFile, directory / "table.json")


def schema_text(name: str) -> str:
    """The JSON Schema (draft 2020-12) of one of `SCHEMAS`."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **SCHEMAS[name].model_json_schema(),
    }
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
