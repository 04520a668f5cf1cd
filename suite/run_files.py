"""Every file of a run, read: which are what they should be, and which nothing is known about."""

from __future__ import annotations

import collections
import dataclasses
import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel

from ioa_jax.errors import InputError
from ioa_jax.files import read_bytes, read_json
from ioa_jax.journal import read_journal
from ioa_jax.rows import CallRow, Row, SecondsRow, StepRow
from ioa_jax.teachers.ledger import read_record
from suite.archive import RECORDS
from suite.results import RunResult
from suite.schema import read_file, read_lines
from suite.schema.models import (
    CellFile,
    CurvePoint,
    GroupRow,
    RunFile,
    ScoreLine,
    TableFile,
    TextRow,
    VerdictRow,
)

Read = Callable[[Path], object]


@dataclasses.dataclass(frozen=True)
class FilesFound:
    """The files of a run.

    Attributes:
        read: Numbers of files by kind, each read and held to what its kind has to hold.
        faults: Of each file that isn't that: file, line, field and what is wrong.
        others: Files that weren't looked at, by what they are.
    """

    read: Mapping[str, int]
    faults: tuple[str, ...]
    others: Mapping[str, tuple[str, ...]]


def _file(model: type[BaseModel]) -> Read:
    return lambda path: read_file(model, path)


def _lines(model: type[BaseModel], *key: str) -> Read:
    return lambda path: _once(
        path, key, [{name: getattr(one, name) for name in key} for one in read_lines(model, path)]
    )


def _journal(row: type[Row], *key: str) -> Read:
    return lambda path: _once(path, key, read_journal(path, row))


def _once(path: Path, key: Sequence[str], rows: Sequence[Mapping[str, object]]) -> None:
    seen: set[tuple[object, ...]] = set()
    for row in rows if key else ():
        values = tuple(row[name] for name in key)
        if values in seen:
            raise InputError(f"{path}: {values} occurs twice")
        seen.add(values)


def _ledger(path: Path) -> None:
    data = read_bytes(path)
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].split(b"\n")[:-1], start=1):
        read_record(line, f"{path}:{number}")


def _whole_archive(path: Path) -> None:
    """`read_run` has unpacked it, every line of it."""


_ANSWER = ("id", "sample")
# What the folder of a cell holds, by its names in it; the first that fits counts.
_OF_CELLS: Mapping[str, Read] = {
    "cell.json": _file(CellFile),
    "scores.jsonl": _lines(ScoreLine, "task", "id"),
    "curve.jsonl": _lines(CurvePoint, "student_tokens", "task"),
    "train.jsonl": _journal(StepRow, "part", "step"),
    "teacher.jsonl": _journal(CallRow, "key"),
    "seconds.jsonl": _journal(SecondsRow, "step", "number"),
    "tasks/*/texts.jsonl": _journal(TextRow, *_ANSWER),
    "tasks/*/verdicts.jsonl": _journal(VerdictRow, *_ANSWER),
    "tasks/*/groups.jsonl": _journal(GroupRow, "id"),
    "tasks/*/seconds.jsonl": _journal(Row),
    "curve/*/*/texts.jsonl": _journal(TextRow, *_ANSWER),
    "curve/*/*/verdicts.jsonl": _journal(VerdictRow, *_ANSWER),
    "curve/*/*/groups.jsonl": _journal(GroupRow, "id"),
    "curve/*/*/seconds.jsonl": _journal(Row),
    "distill/train.jsonl": _journal(StepRow, "part", "step"),
    "distill/seconds.jsonl": _journal(SecondsRow, "step", "number"),
    "distill/*.jsonl": _journal(Row),
    "distill/*.json": read_json,
}
_OF_RUNS: Mapping[str, Read] = {
    "run.json": _file(RunFile),
    "table.json": _file(TableFile),
    RECORDS: _whole_archive,
    "ledger/[0-9]*.jsonl": _ledger,
    "shared/*.json": read_json,
}
# What `verify` makes again and compares.
_MADE_AGAIN = ("table.md", "table.csv", "table.tex")
_NO_FIGURES = {
    "pages and figures": ("report.html", "plots/*.svg"),
    "logs and locks": ("workers/*", "*.lock", "ledger/lock", "*.partial"),
    "checkpoints of a cell that isn't finished": ("cells/*checkpoints/*",),
}
_UNKNOWN = "no files of a run"


def find_files(result: RunResult) -> FilesFound:
    """Read every file of a run."""
    counts: collections.Counter[str] = collections.Counter()
    faults: list[str] = []
    others: dict[str, list[str]] = {}
    # By `read_run`, in the same way.
    was_read = {cell.folder / "scores.jsonl" for cell in result.cells}
    for path, name, kinds in _all_files(result):
        kind = _kind(name, kinds)
        if kind is None:
            others.setdefault(_of_others(name), []).append(name)
            continue
        counts[kind] += 1
        try:
            if path not in was_read:
                kinds[kind](path)
        except InputError as error:
            faults.append(str(error))
    faults += _unfit_records(result)
    return FilesFound(
        dict(sorted(counts.items())),
        tuple(faults),
        {what: tuple(sorted(names)) for what, names in sorted(others.items())},
    )


def _all_files(result: RunResult) -> Iterator[tuple[Path, str, Mapping[str, Read]]]:
    """Path, name in the folder of the run or of a cell, and what such a folder holds."""
    own, cells = result.directory, result.files.path
    for path in _below(own):
        name = path.relative_to(own).as_posix()
        if name not in _MADE_AGAIN and not path.is_relative_to(cells):
            yield path, name, _OF_RUNS
    for path in _below(cells):
        cell, _, name = path.relative_to(cells).as_posix().partition("/")
        known = name and _kind(name, _OF_CELLS) is not None
        yield path, name if known else f"cells/{cell}/{name}".rstrip("/"), _OF_CELLS


def _below(folder: Path) -> list[Path]:
    """Files, each by its name without `.gz`."""
    found = {path for path in folder.rglob("*") if path.is_file()}
    return sorted({path.with_suffix("") if path.suffix == ".gz" else path for path in found})


def _kind(name: str, kinds: Mapping[str, Read]) -> str | None:
    return next((kind for kind in kinds if fnmatch.fnmatchcase(name, kind)), None)


def _of_others(name: str) -> str:
    return next(
        (
            what
            for what, patterns in _NO_FIGURES.items()
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        ),
        _UNKNOWN,
    )


def _unfit_records(result: RunResult) -> list[str]:
    """Of what IOA and its controls leave beside their figures, what pages can't be drawn of."""
    told = [cell for cell in result.cells if (cell.distill / "record.json").is_file()]
    if not told:
        return []
    # It imports JAX.
    from ioa_jax.report.finished import read_finished, read_forms

    faults: list[str] = []
    for cell in told:
        try:
            read_finished(cell.distill)
            read_forms(cell.distill)
        except InputError as error:
            faults.append(str(error))
    return faults
