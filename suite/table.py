"""The short table of a run, for the terminal: means, without the report's intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite.cells import TEACHER
from suite.schema import read_file
from suite.schema.models import CellFile

if TYPE_CHECKING:
    from suite.results import CellResult


def summarize(directory: Path) -> dict[str, Any]:
    """What the cells of a run come to.

    Returns:
        `tasks` (names), `rows` (one a method, means over its seeds), `cells` (one a complete cell),
        `failed` (cell to error) and `unfinished` (names), which two runs of the same settings agree
        in; and `seconds` by cell.

    Raises:
        InputError: `directory` isn't a run, is of another version, or lacks a cell's records.
    """
    from suite.results import read_run

    result = read_run(directory)
    cells = [_measure(cell) for cell in result.cells]
    failed: dict[str, str] = {}
    unfinished: list[str] = []
    for one in result.unfinished:
        path = result.files.path / one.cell / "cell.json"
        if path.is_file():
            failed[one.cell] = read_file(CellFile, path).error or "not told"
        else:
            unfinished.append(one.cell)
    seconds = {
        cell.name: cell.file.spend.seconds.get("method", 0.0)
        + cell.file.spend.seconds.get("evaluation", 0.0)
        for cell in result.cells
    }
    return {
        "profile": result.run.profile,
        "run_id": result.run.run_id,
        "tasks": list(dict.fromkeys(task for cell in cells for task in cell["scores"])),
        "rows": [
            _row([cell for cell in cells if cell["method"] == name]) for name in result.methods
        ],
        "cells": cells,
        "failed": failed,
        "unfinished": unfinished,
        "seconds": seconds,
    }


def _measure(cell: CellResult) -> dict[str, Any]:
    lines = [line for own in cell.lines.values() for line in own.values()]
    logprobs = [line.logprob for line in lines if line.logprob is not None]
    return {
        "method": cell.file.method,
        "seed": cell.file.seed,
        "scores": {
            task: _mean([line.score for line in own.values()]) for task, own in cell.lines.items()
        },
        "logprob": _mean(logprobs) if logprobs else None,
        "teacher_tokens": cell.file.spend.teacher_tokens,
        "student_tokens": cell.file.spend.student_tokens,
    }


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _row(cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds of a method."""
    logprobs = [cell["logprob"] for cell in cells if cell["logprob"] is not None]
    return {
        "method": cells[0]["method"],
        "seeds": [cell["seed"] for cell in cells if cell["seed"] is not None],
        "scores": {
            task: _mean([cell["scores"][task] for cell in cells]) for task in cells[0]["scores"]
        },
        "logprob": _mean(logprobs) if logprobs else None,
        "teacher_tokens": _mean([cell["teacher_tokens"] for cell in cells]),
        "student_tokens": _mean([cell["student_tokens"] for cell in cells]),
    }


def header(summary: dict[str, Any]) -> tuple[str, ...]:
    """Names of the columns."""
    tokens = ("probe log-prob", "teacher tokens", "student tokens", "seconds")
    return ("method", *summary["tasks"], *tokens)


def lines(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table's lines as text, in the order of `header`."""
    result: list[tuple[str, ...]] = []
    for row in summary["rows"]:
        method = row["method"]
        own = [
            summary["seconds"][name]
            for name in summary["seconds"]
            if name == method or name.rpartition("-seed")[0] == method
        ]
        is_teacher = method == TEACHER
        result.append(
            (
                "teacher (reference)" if is_teacher else method,
                *(f"{100 * row['scores'][task]:.1f}" for task in summary["tasks"]),
                "-" if row["logprob"] is None else f"{row['logprob']:.3f}",
                "-" if is_teacher else f"{row['teacher_tokens']:,.0f}",
                "-" if is_teacher else f"{row['student_tokens']:,.0f}",
                f"{_mean(own):.0f}",
            )
        )
    return result


def remarks(summary: dict[str, Any]) -> list[str]:
    """A sentence on each cell that the table lacks."""
    return [
        *(f"Failed: {name}: {error}" for name, error in summary["failed"].items()),
        *(f"Not finished: {name}." for name in summary["unfinished"]),
    ]


def write_table(directory: Path) -> dict[str, Any]:
    """Write the report of a run, its tables and page; returns the summary."""
    from suite.report import write_report

    write_report(directory)
    return summarize(directory)


def print_table(summary: dict[str, Any]) -> None:
    """The table on standard output."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{summary['profile']}, run {summary['run_id']}")
    for i, name in enumerate(header(summary)):
        table.add_column(name, justify="right" if i else "left")
    for line in lines(summary):
        table.add_row(*line)
    console = Console()
    if not console.is_terminal:
        # rich would assume 80 columns and break the cells.
        console.width = 140
    console.print(table)
    for remark in remarks(summary):
        console.print(remark)
