"""Runs of shares of one profile's cells, joined into one run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ioa_jax.errors import InputError
from ioa_jax.files import check_no_links, read_object
from ioa_jax.teachers.ledger import Ledger
from suite import table
from suite.cells import VERSION
from suite.schema import check, read_file, write_file
from suite.schema.models import CellFile, RunFile

# What runs have to agree in, to be parts of one.
_SAME = ("profile", "settings_sha256", "models", "seed_items")


def merge_runs(parts: Sequence[Path], output: Path) -> dict[str, Any]:
    """Copy the cells of several runs, and their teachers' calls, into a new one.

    A cell that failed in one run and is complete in another is taken from there.

    Args:
        parts: Folders of runs of the same settings, models and seed items.
        output: Folder of the new run; must not exist.

    Returns:
        The new run's table summary.

    Raises:
        InputError: Names the run and the field in which it isn't a part of the same; or a cell is
            complete in two runs.
    """
    if len(parts) < 2:
        raise InputError("name at least two runs to merge")
    runs = [_read(part) for part in parts]
    for part, run in zip(parts[1:], runs[1:], strict=True):
        for field in (*_SAME, "tasks"):
            if _comparable(field, run[field]) != _comparable(field, runs[0][field]):
                raise InputError(f"{part}: another {field!r} than {parts[0]}: they can't be joined")
    check_no_links(*(part / name for part in parts for name in ("run.json", "cells", "ledger")))
    chosen = _choose(parts)
    try:
        output.mkdir(parents=True)
    except FileExistsError:
        raise InputError(f"{output} exists; name another --output") from None
    # Without a status that says so, nobody takes a half-copied run for a whole one.
    record = runs[0] | {
        "run_id": output.name,
        "status": "merging",
        "error": None,
        "share": None,
        "ledger": "ledger",
        "environments": _environments(runs),
        "merged": [run["run_id"] for run in runs],
        "sandbox": next((run["sandbox"] for run in runs if run["sandbox"]), None),
    }
    for task in record["tasks"]:
        found = [t["metric"] for run in runs for t in run["tasks"] if t["name"] == task["name"]]
        task["metric"] = next((metric for metric in found if metric), None)
    write_file(RunFile, output / "run.json", record)
    for name, folder in chosen.items():
        shutil.copytree(folder, output / "cells" / name)
    ledger = Ledger(output / "ledger")
    for part, run in zip(parts, runs, strict=True):
        if (part / run["ledger"]).is_dir():
            for call in Ledger(part / run["ledger"]):
                ledger.append(call)
    ledger.sync()
    summary = table.write_table(output)
    left = [*summary["failed"], *summary["unfinished"]]
    record["status"] = "failed" if left else "complete"
    record["error"] = f"these cells failed or are missing: {', '.join(left)}" if left else None
    write_file(RunFile, output / "run.json", record)
    return summary


def _read(part: Path) -> dict[str, Any]:
    path = part / "run.json"
    run = read_object(path)
    if run.get("version") != VERSION:
        raise InputError(f"{part}: made by another version of the suite")
    check(RunFile, run, str(path))
    for field in (*_SAME, "tasks"):
        if not run.get(field):
            raise InputError(f"{part}: run.json has no {field!r}: nothing has been done in it yet")
    return run


def _comparable(field: str, value: Any) -> Any:
    """Of the tasks, what doesn't depend on whether they have been measured yet, or where."""
    if field != "tasks":
        return value
    names = ("name", "version", "items", "provenance")
    return [{name: task[name] for name in names} for task in value]


def _choose(parts: Sequence[Path]) -> dict[str, Path]:
    """Folder by cell."""
    chosen: dict[str, Path] = {}
    complete: dict[str, Path] = {}
    for part in parts:
        for path in sorted((part / "cells").glob("*/cell.json")):
            name = path.parent.name
            if read_file(CellFile, path).status != "complete":
                chosen.setdefault(name, path.parent)
                continue
            if name in complete:
                raise InputError(f"cell {name} is complete in {complete[name]} and in {part}")
            complete[name] = part
            chosen[name] = path.parent
    if not chosen:
        raise InputError("none of the runs has a finished cell")
    return chosen


def _environments(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each once."""
    found: list[dict[str, Any]] = []
    for run in runs:
        found += [environment for environment in run["environments"] if environment not in found]
    return found
