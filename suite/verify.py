"""Whether a run's figures follow from what it saved: texts graded, the rest added up again."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from ioa_jax.files import is_there, read_json, read_text
from ioa_jax.graders.base import Grader, Item, Verdict
from ioa_jax.journal import read_journal
from suite.cells import FURTHER, TEACHER, Cell, tokens_by_part
from suite.grading import GRADING_THREADS, as_json, open_grader
from suite.probes import OWN_SOURCES, PROBES, ProbeTask, SeedGrader, limits_of
from suite.profile import SandboxSettings, SeedSettings
from suite.report import written
from suite.results import CellResult, RunResult, read_run
from suite.schema import check
from suite.schema.models import TableFile, TaskRecord
from suite.tasks import load_task
from suite.tasks.base import GenerationSettings, Graded, MetricValues, Style, Task

if TYPE_CHECKING:
    from suite.data import DataSource

# The version of table.json before means over modules.
EARLIER = 3
# Sums in another order, of another numpy, may differ in their last bits.
TOLERANCE = 1e-9


@dataclasses.dataclass(frozen=True)
class Verification:
    """What was looked at, and what isn't as it was saved.

    Attributes:
        texts: Texts that were graded again.
        scores: Lines of scores.jsonl that were computed again.
        spends: Cells whose tokens were added up again, call by call and step by step.
        tables: Files of tables that were made again.
        findings: Place, what was saved and what follows; empty where everything agrees.
        skipped: What couldn't be looked at, and why.
    """

    texts: int
    scores: int
    spends: int
    tables: int
    findings: tuple[str, ...]
    skipped: tuple[str, ...]


def verify_run(
    directory: Path,
    data: DataSource | None,
    seeds: Path | None = None,
    sandbox: SandboxSettings | None = None,
) -> Verification:
    """Grade the saved texts again, add up the tokens, and compute the tables' figures again.

    Nothing in the folder is changed. A run may be somebody else's: which files are read and how
    programs are isolated is up to the caller, whatever the run's settings say.

    Args:
        directory: Of a run.
        data: Where the tasks' items come from; None leaves the texts as they were graded.
        seeds: Seed file of a run whose settings name one. Without it, its probes' texts are left
            as they were graded.
        sandbox: How programs are isolated and limited; None is the default of profiles.

    Raises:
        InputError: It isn't a run, or a file doesn't fit its schema, or data are missing.
        SandboxError: Programs can't be isolated here.
    """
    result = read_run(directory)
    findings: list[str] = []
    skipped: list[str] = []
    texts = scores = 0
    with result.files.naming():
        if data is None:
            skipped.append("texts, since only the tables were asked for")
        else:
            # Runs without texts needn't have settings of their grading.
            @functools.cache
            def measured() -> _Measured:
                return _measured(result, seeds, sandbox or SandboxSettings(), skipped)

            for task in result.run.tasks:
                counts = _verify_task(result, task, measured, data, findings, skipped)
                texts, scores = texts + counts[0], scores + counts[1]
        spends = sum(_verify_spend(result, cell, findings, skipped) for cell in result.cells)
        tables = _verify_tables(result, findings, skipped)
    told = [tuple(map(result.files.named, lines)) for lines in (findings, skipped)]
    return Verification(texts, scores, spends, tables, *told)


# -- texts ---------------------------------------------------------------------------------------


class _Measured(BaseModel):
    """The settings by which texts are graded. The others may be of methods that there no longer
    are.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    seed_items: SeedSettings
    sandbox: SandboxSettings


def _measured(
    result: RunResult, seeds: Path | None, sandbox: SandboxSettings, skipped: list[str]
) -> _Measured:
    """The run's settings, but for what the caller has to say: paths, and the sandbox."""
    place = f"{result.directory / 'run.json'}: settings"
    saved = check(_Measured, result.run.settings, place)
    if saved.sandbox != sandbox:
        skipped.append(f"{place}.sandbox: programs were run by the sandbox's settings given here")
    source = saved.seed_items.source
    if source not in OWN_SOURCES and seeds is not None:
        source = str(seeds)
    items = saved.seed_items.model_copy(update={"source": source})
    return saved.model_copy(update={"sandbox": sandbox, "seed_items": items})


@contextlib.contextmanager
def _open_task(
    record: TaskRecord, profile: _Measured, data: DataSource
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
    measured: Callable[[], _Measured],
    data: DataSource,
    findings: list[str],
    skipped: list[str],
) -> tuple[int, int]:
    """Numbers of texts and of scores that were looked at."""
    cells = [
        cell for cell in result.cells if _journal(_folder(cell, record) / "texts.jsonl") is not None
    ]
    without = [cell.name for cell in result.cells if cell not in cells]
    if without:
        of = ", ".join(without) if cells else "any cell"
        skipped.append(f"{record.name}: no texts were saved of {of}")
        _check_probabilities(result, record, without, findings)
    if not cells:
        return 0, 0
    profile = measured()
    own = result.run.settings["seed_items"]["source"]
    if record.name == PROBES and profile.seed_items.source == own not in OWN_SOURCES:
        skipped.append(
            f"{PROBES}: their items are of a file that the run names, {own!r}, which isn't read "
            "on its word; name yours by --seeds"
        )
        return 0, 0
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


# -- tokens --------------------------------------------------------------------------------------


def _verify_spend(
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
        calls = _journal(_asking(result, cell) / "teacher.jsonl")
        if calls is None:
            trusted += ["teacher_tokens", "teacher_requests", "by_purpose"]
        else:
            again |= _teacher_spend(calls)
        steps = _journal(cell.folder / "train.jsonl")
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
    before, now = _flat(saved.model_dump(include=set(again))), _flat(again)
    findings += [
        f"{path}: spend{place}: {before.get(place)}, but {now.get(place)}"
        for place in sorted(before.keys() | now.keys())
        if before.get(place) != now.get(place)
    ]
    if trusted:
        skipped.append(f"{path}: {', '.join(trusted)}: taken on trust, since no file says so")
    return not trusted


def _journal(path: Path) -> list[dict[str, Any]] | None:
    """Its records; None where it wasn't kept."""
    return read_journal(path) if is_there(path) else None


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


def _further_tokens(cell: CellResult) -> int | None:
    """Tokens of no step in train.jsonl, as IOA's diagnosis says; None if only cell.json does."""
    path = cell.distill / "diagnosis.json"
    if is_there(path):
        return read_json(path)["dependencies"]["student_tokens"]
    return None if FURTHER in cell.file.spend.student_tokens_by_part else 0


# -- tables --------------------------------------------------------------------------------------


def _verify_tables(result: RunResult, findings: list[str], skipped: list[str]) -> int:
    """Make the tables again from the per-item records; how many there were to compare with."""
    path = result.directory / "table.json"
    if not path.is_file():
        skipped.append(f"{path}: there is none; `report` writes it")
        return 0
    saved = read_json(path)
    table = check(TableFile, saved, str(path))
    reference = table.reference if table.reference in result.methods else None
    # Power is of another run, which it names.
    again = written(result, reference, table.power)
    before, now = _flat(saved), _flat(as_json(again.table.model_dump()))
    places = before.keys() | now.keys()
    if table.version == EARLIER:
        places = {place for place in before if not _is_changed(place, now)}
    findings += [
        f"{path}: {place[1:]}: {before.get(place)}, but {now.get(place)}"
        for place in sorted(places)
        if before.get(place) != now.get(place)
    ]
    if table.version == EARLIER:
        names = ", ".join(again.texts)
        skipped.append(
            f"{names}: their words are of version {EARLIER} of the tables, whose figures in "
            "table.json were looked at; `report` writes all of them anew"
        )
        return 1
    for name, text in again.texts.items():
        path = result.directory / name
        if not path.is_file():
            skipped.append(f"{path}: there is none; `report` writes it")
        elif read_text(path) != text:
            findings.append(f"{path}: isn't what the records give")
    return 1 + len(again.texts)


def _is_changed(place: str, now: Mapping[str, Any]) -> bool:
    """Whether a figure of an earlier table means something else today: McNemar's test was of
    several seeds too, and corrected with those.
    """
    name = place.rpartition(".")[2]
    return name in ("version", "p_mcnemar_holm") or (name == "p_mcnemar" and now[place] is None)


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
    """Of a row: its method and task, or modules, rather than its number."""
    if not isinstance(entry, Mapping):
        return str(index)
    names = [str(entry[key]) for key in ("method", "task", "over", "name", "cell") if key in entry]
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
        f"{verdict}: {found.texts:,} texts graded again, {found.scores:,} scores, "
        f"the tokens of {found.spends} cells and {found.tables} tables computed again"
    )
