"""Whether a cell's tokens are those of its calls and steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ioa_jax.files import is_there, read_json
from ioa_jax.journal import read_journal
from ioa_jax.rows import CallRow, Row, StepRow
from suite.cells import FURTHER, TEACHER, Cell, tokens_by_part
from suite.results import CellResult, RunResult
from suite.schema import check
from suite.schema.models import Count


def verify_spend(
    result: RunResult, cell: CellResult, findings: list[str], skipped: list[str]
) -> bool:
    """Add up a cell's calls and steps again; whether nothing had to be taken on trust."""
    path = cell.folder / "cell.json"
    saved = cell.file.spend
    again: dict[str, Any] = {}
    trusted: list[str] = []
    if cell.file.method == TEACHER:
        # Nobody was asked, and nobody trained.
        again = dict.fromkeys(("teacher_tokens", "teacher_requests", "student_tokens", "steps"), 0)
    else:
        calls = _journal(_asking(result, cell) / "teacher.jsonl", CallRow)
        if calls is None:
            trusted += ["teacher_tokens", "teacher_requests", "by_purpose"]
        else:
            again |= _teacher_spend(calls)
        steps = _journal(cell.folder / "train.jsonl", StepRow)
        further = _further_tokens(cell)
        if steps is None:
            trusted += ["student_tokens", "steps"]
        else:
            again["steps"] = len(steps)
            if further is None:
                trusted.append(f"{saved.student_tokens_by_part[FURTHER]} of student_tokens")
                further = saved.student_tokens_by_part[FURTHER]
            by_part = tokens_by_part(steps)
            again["student_tokens"] = sum(by_part.values()) + further
            # Runs of before they were recorded have none.
            if saved.student_tokens_by_part:
                again["student_tokens_by_part"] = {
                    **by_part,
                    **({FURTHER: further} if further else {}),
                }
    before, now = flat(saved.model_dump(include=set(again))), flat(again)
    findings += [
        f"{path}: spend{place}: {before.get(place)}, but {now.get(place)}"
        for place in sorted(before.keys() | now.keys())
        if before.get(place) != now.get(place)
    ]
    if trusted:
        skipped.append(f"{path}: {', '.join(trusted)}: taken on trust, since no file says so")
    return not trusted


def _journal(path: Path, row: type[Row]) -> list[dict[str, Any]] | None:
    """Its records; None where it wasn't kept."""
    return read_journal(path, row) if is_there(path) else None


def _asking(result: RunResult, cell: CellResult) -> Path:
    """The folder of the cell whose teacher's tokens count for this one: mostly its own."""
    of = cell.file.spend.teacher_of
    if of is None:
        return cell.folder
    return result.files.path / Cell(of, cell.file.seed).name


def _teacher_spend(calls: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    fields = ("calls", "prompt_tokens", "completion_tokens")
    by_purpose: dict[str, dict[str, int]] = {}
    for call in calls:
        own = by_purpose.setdefault(call["purpose"], dict.fromkeys(fields, 0))
        for field in fields:
            own[field] += call["usage"][field]
    return {
        "teacher_tokens": sum(own["completion_tokens"] for own in by_purpose.values()),
        "teacher_requests": sum(own["calls"] for own in by_purpose.values()),
        "by_purpose": by_purpose,
    }


class _Dependencies(BaseModel):
    student_tokens: Count


class _Diagnosis(BaseModel):
    dependencies: _Dependencies


def _further_tokens(cell: CellResult) -> int | None:
    """Tokens of no step in train.jsonl, as IOA's diagnosis says; None if only cell.json does."""
    path = cell.distill / "diagnosis.json"
    if is_there(path):
        return check(_Diagnosis, read_json(path), str(path)).dependencies.student_tokens
    return None if FURTHER in cell.file.spend.student_tokens_by_part else 0


def flat(value: Any, place: str = "") -> dict[str, Any]:
    """Every number and text by its place, numbers rounded."""
    if isinstance(value, Mapping):
        parts = [(f"{place}.{key}", inner) for key, inner in value.items()]
    elif isinstance(value, list):
        parts = [(f"{place}[{_name(inner, i)}]", inner) for i, inner in enumerate(value)]
    else:
        return {place: round(value, 9) if isinstance(value, float) else value}
    return {key: leaf for name, inner in parts for key, leaf in flat(inner, name).items()}


def _name(entry: Any, index: int) -> str:
    """Of a row: its method and task, or modules, rather than its number."""
    if not isinstance(entry, Mapping):
        return str(index)
    names = [str(entry[key]) for key in ("method", "task", "over", "name", "cell") if key in entry]
    return ", ".join(names) or str(index)
