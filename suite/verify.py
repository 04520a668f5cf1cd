"""Whether a run's figures follow from what it saved: texts graded again, tables computed again."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ioa_jax.files import read_json
from ioa_jax.graders.base import Grader, Item, Verdict
from ioa_jax.journal import read_journal
from suite.eval import GRADING_THREADS, as_json, open_grader
from suite.probes import PROBES, ProbeTask, SeedGrader, limits_of
from suite.report import written
from suite.results import CellResult, RunResult, read_run
from suite.tasks import load_task
from suite.tasks.base import GenerationSettings, Graded, MetricValues, Style, Task

if TYPE_CHECKING:
    from suite.data import DataSource
    from suite.profile import Profile
    from suite.schema.models import TaskRecord

# Sums in another order, of another numpy, may differ in their last bits.
TOLERANCE = 1e-9


@dataclasses.dataclass(frozen=True)
class Verification:
    """What was looked at, and what isn't as it was saved.

    Attributes:
        texts: Texts that were graded again.
        scores: Lines of scores.jsonl that were computed again.
        tables: Files of tables that were made again.
        findings: Place, what was saved and what follows; empty where everything agrees.
        skipped: What couldn't be looked at, and why.
    """

    texts: int
    scores: int
    tables: int
    findings: tuple[str, ...]
    skipped: tuple[str, ...]


def verify_run(directory: Path, data: DataSource | None) -> Verification:
    """Grade the saved texts again and compute every figure of the tables again.

    Nothing in the folder is changed.

    Args:
        directory: Of a run.
        data: Where the tasks' items come from; None leaves the texts as they were graded.

    Raises:
        InputError: It isn't a run, or a file doesn't fit its schema, or data are missing.
        SandboxError: Programs can't be isolated here.
    """
    result = read_run(directory)
    findings: list[str] = []
    skipped: list[str] = []
    texts = scores = 0
    if data is None:
        skipped.append("texts, since only the tables were asked for")
    else:
        for task in result.run.tasks:
            counts = _verify_task(result, task, data, findings, skipped)
            texts, scores = texts + counts[0], scores + counts[1]
    tables = _verify_tables(result, findings, skipped)
    return Verification(texts, scores, tables, tuple(findings), tuple(skipped))


# -- texts ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _open_task(
    record: TaskRecord, profile: Profile, data: DataSource
) -> Iterator[tuple[Task, Mapping[str, Item], Grader]]:
    """A task, its items and its grader as the run had them."""
    style: Style = (record.model_extra or {}).get("style", "chat")
    if record.name == PROBES:
        from suite.probes import load_seed_items

        probes = load_seed_items(profile.seed_items, data).probes
        task = ProbeTask(
            name=PROBES,
            version=record.version,
            summary="held-out seed items",
            source="the profile's seed items",
            licence="as theirs",
            grader_kind="exact",
            settings=GenerationSettings(0),
            probes=probes,
        )
        with SeedGrader(probes, profile.sandbox) as grader:
            yield task, {probe.id: probe.item() for probe in probes}, grader
        return
    task = load_task(record.name)
    items = task.load(data, (record.model_extra or {}).get("shots", 0)).items
    with open_grader(task, style, profile.sandbox.allow_weak, limits_of(profile.sandbox)) as (
        grader,
        _,
    ):
        yield task, {item.id: item for item in items}, grader


def _verify_task(
    result: RunResult,
    record: TaskRecord,
    data: DataSource,
    findings: list[str],
    skipped: list[str],
) -> tuple[int, int]:
    """Numbers of texts and of scores that were looked at."""
    from suite.profile import validate

    cells = [cell for cell in result.cells if (_folder(cell, record) / "texts.jsonl").is_file()]
    without = [cell.name for cell in result.cells if cell not in cells]
    if without:
        skipped.append(f"{record.name}: no texts were saved of {', '.join(without)}")
        _check_probabilities(result, record, without, findings)
    if not cells:
        return 0, 0
    profile = validate(result.run.settings, f"{result.directory / 'run.json'}")
    texts = scores = 0
    with _open_task(record, profile, data) as (task, items, grader):
        for cell in cells:
            graded = _grade_again(cell, record, items, grader, findings)
            texts += sum(len(one.verdicts) for one in graded)
            (_, values), *_ = task.metrics(graded).items()
            again = mean_by_item(values)
            lines = cell.lines[record.name]
            place = f"{cell.folder / 'scores.jsonl'}: {record.name}"
            for item in sorted(lines.keys() | again.keys()):
                saved = lines[item].score if item in lines else None
                if not _close(saved, again.get(item)):
                    findings.append(f"{place}: {item}: score {saved}, but {again.get(item)}")
            scores += len(lines)
    return texts, scores


def _grade_again(
    cell: CellResult,
    record: TaskRecord,
    items: Mapping[str, Item],
    grader: Grader,
    findings: list[str],
) -> list[Graded]:
    folder = _folder(cell, record)
    saved = {
        (row["id"], row["sample"]): row["verdict"]
        for row in read_journal(folder / "verdicts.jsonl")
    }
    rows: list[dict[str, Any]] = []
    for row in read_journal(folder / "texts.jsonl"):
        if row["id"] in items:
            rows.append(row)
        else:
            findings.append(f"{folder / 'texts.jsonl'}: the task has no item {row['id']!r}")
    with ThreadPoolExecutor(GRADING_THREADS) as pool:
        verdicts = list(pool.map(lambda row: grader.grade(items[row["id"]], row["text"]), rows))
    by_item: dict[str, dict[int, Verdict]] = {}
    for row, verdict in zip(rows, verdicts, strict=True):
        by_item.setdefault(row["id"], {})[row["sample"]] = verdict
        before, now = saved.get((row["id"], row["sample"])), as_json(dataclasses.asdict(verdict))
        place = f"{folder / 'verdicts.jsonl'}: {row['id']}, sample {row['sample']}"
        if before is None:
            findings.append(f"{place}: no verdict was saved")
        else:
            findings += [
                f"{place}: {field} {before[field]!r}, but {now[field]!r}"
                for field in ("correct", "score")
                if before[field] != now[field]
            ]
    return [
        Graded(items[item], tuple(samples[i] for i in sorted(samples)))
        for item, samples in by_item.items()
    ]


def mean_by_item(values: MetricValues) -> dict[str, float]:
    """An item's score: the mean of its values."""
    found: dict[str, list[float]] = {}
    for item, value in zip(values.items, values.values, strict=True):
        found.setdefault(item, []).append(value)
    return {item: math.fsum(own) / len(own) for item, own in found.items()}


def _check_probabilities(
    result: RunResult, record: TaskRecord, cells: Sequence[str], findings: list[str]
) -> None:
    """Probes without texts have the probability of their reference for a score."""
    if record.name != PROBES:
        return
    for cell in result.cells:
        if cell.name in cells:
            findings += [
                f"{cell.folder / 'scores.jsonl'}: {line.id}: score {line.score}, but its "
                f"log-probability gives {math.exp(min(line.logprob, 0.0))}"
                for line in cell.lines[record.name].values()
                if line.logprob is not None
                and not _close(line.score, math.exp(min(line.logprob, 0.0)))
            ]


def _folder(cell: CellResult, record: TaskRecord) -> Path:
    return cell.folder / "tasks" / record.name


# -- tables --------------------------------------------------------------------------------------


def _verify_tables(result: RunResult, findings: list[str], skipped: list[str]) -> int:
    """Make the tables again from the per-item records; how many there were to compare with."""
    path = result.directory / "table.json"
    if not path.is_file():
        skipped.append(f"{path}: there is none; `report` writes it")
        return 0
    saved = read_json(path)
    reference = saved.get("reference") if isinstance(saved, dict) else None
    again = written(result, reference if reference in result.methods else None)
    before, now = _flat(saved), _flat(as_json(again.table.model_dump()))
    findings += [
        f"{path}: {place[1:]}: {before.get(place)}, but {now.get(place)}"
        for place in sorted(before.keys() | now.keys())
        if before.get(place) != now.get(place)
    ]
    for name, text in again.texts.items():
        path = result.directory / name
        if not path.is_file():
            skipped.append(f"{path}: there is none; `report` writes it")
        elif path.read_text(encoding="utf-8") != text:
            findings.append(f"{path}: isn't what the records give")
    return 1 + len(again.texts)


def _flat(value: Any, place: str = "") -> dict[str, Any]:
    """Every number and text by its place, numbers rounded."""
    if isinstance(value, Mapping):
        parts = [(f"{place}.{key}", inner) for key, inner in value.items()]
    elif isinstance(value, list):
        parts = [(f"{place}[{_name(inner, i)}]", inner) for i, inner in enumerate(value)]
    else:
        return {place: round(value, 9) if isinstance(value, float) else value}
    return {key: leaf for name, inner in parts for key, leaf in _flat(inner, name).items()}


def _name(entry: Any, index: int) -> str:
    """Of a row: its method and task rather than its number."""
    if not isinstance(entry, Mapping):
        return str(index)
    names = [str(entry[key]) for key in ("method", "task", "name", "cell") if key in entry]
    return ", ".join(names) or str(index)


def _close(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=0, abs_tol=TOLERANCE)


def print_verification(found: Verification, most: int = 50) -> None:
    """On standard output."""
    for line in found.findings[:most]:
        print(line)
    if len(found.findings) > most:
        print(f"... {len(found.findings) - most} more")
    for line in found.skipped:
        print(f"not looked at: {line}")
    verdict = f"differences: {len(found.findings)}" if found.findings else "everything agrees"
    print(
        f"{verdict}: {found.texts:,} texts graded again, {found.scores:,} scores and "
        f"{found.tables} tables computed again"
    )
