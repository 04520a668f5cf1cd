"""Whether a run's figures follow from what it saved: texts graded, the rest added up again."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from ioa_jax.files import is_there, read_json, read_text
from ioa_jax.graders.base import Grader, Item, Verdict
from ioa_jax.journal import read_journal
from suite.grading import GRADING_THREADS, as_json, open_grader
from suite.probes import OWN_SOURCES, PROBES, ProbeTask, SeedGrader, limits_of
from suite.profile import SandboxSettings, SeedSettings
from suite.report import written
from suite.results import CellResult, RunResult, read_run
from suite.run_files import FilesFound, find_files
from suite.schema import check
from suite.schema.models import TableFile, TaskRecord, TextRow, VerdictRow
from suite.tasks import load_task
from suite.tasks.base import GenerationSettings, Graded, MetricValues, Style, Task
from suite.verify_tokens import flat, verify_spend

if TYPE_CHECKING:
    from suite.data import DataSource

# The version of table.json before means over modules.
EARLIER = 3
# Sums in another order, of another numpy, may differ in their last bits.
TOLERANCE = 1e-9
_MOST_NAMES = 5  # of files that weren't looked at, printed

_NUMBERS = re.compile(r"-?\d+\.\d{6,}(?:e-?\d+)?")  # that nobody rounded


@dataclasses.dataclass(frozen=True)
class Verification:
    """What was looked at, and what isn't as it was saved.

    Attributes:
        texts: Texts that were graded again.
        scores: Lines of scores.jsonl that were computed again.
        spends: Cells whose tokens were added up again, call by call and step by step.
        tables: Files of tables that were made again.
        files: The run's files: those that were read, and the others.
        findings: Place, what was saved and what follows; empty where everything agrees.
        skipped: What couldn't be looked at, and why.
    """

    texts: int
    scores: int
    spends: int
    tables: int
    files: FilesFound
    findings: tuple[str, ...]
    skipped: tuple[str, ...]


def verify_run(
    directory: Path,
    data: DataSource | None,
    seeds: Path | None = None,
    sandbox: SandboxSettings | None = None,
) -> Verification:
    """Read every file, grade the texts again, add up the tokens and make the tables again.

    Where a file isn't what it should be, that is all that is found: nothing follows from it.
    Nothing in the folder is changed. A run may be somebody else's: which files are read and how
    programs are isolated is up to the caller, whatever the run's settings say.

    Args:
        directory: Of a run.
        data: Where the tasks' items come from; None leaves the texts as they were graded.
        seeds: Seed file of a run whose settings name one. Without it, its probes' texts are left
            as they were graded.
        sandbox: How programs are isolated and limited; None is the default of profiles.

    Raises:
        InputError: It isn't a run, cells can't be compared, or data are missing.
        SandboxError: Programs can't be isolated here.
    """
    result = read_run(directory)
    findings: list[str] = []
    skipped: list[str] = []
    with result.files.naming():
        files = find_files(result)
        findings += files.faults
        counts = (0, 0, 0, 0)
        if findings:
            skipped.append("what follows from the files, until these are mended")
        else:
            # Runs without texts needn't have settings of their grading.
            @functools.cache
            def measured() -> _Measured:
                return _measured(result, seeds, sandbox or SandboxSettings(), skipped)

            counts = _follow(result, data, measured, findings, skipped)
    told = [tuple(map(result.files.named, lines)) for lines in (findings, skipped)]
    return Verification(*counts, files, *told)


def _follow(
    result: RunResult,
    data: DataSource | None,
    measured: Callable[[], _Measured],
    findings: list[str],
    skipped: list[str],
) -> tuple[int, int, int, int]:
    """Numbers of texts, scores, cells' tokens and tables that were looked at."""
    texts = scores = 0
    if data is None:
        skipped.append("texts, since only the tables were asked for")
    else:
        for task in result.run.tasks:
            counts = _verify_task(result, task, measured, data, findings, skipped)
            texts, scores = texts + counts[0], scores + counts[1]
    spends = sum(verify_spend(result, cell, findings, skipped) for cell in result.cells)
    tables = _verify_tables(result, findings, skipped)
    return texts, scores, spends, tables


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
    cells = [cell for cell in result.cells if is_there(_folder(cell, record) / "texts.jsonl")]
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
            graded = _grade_again(_folder(cell, record), items, grader, findings)
            texts += sum(len(one.verdicts) for one in graded)
            again = _scores(task, graded)
            lines = cell.lines[record.name]
            place = f"{cell.folder / 'scores.jsonl'}: {record.name}"
            for item in sorted(lines.keys() | again.keys()):
                saved = lines[item].score if item in lines else None
                if not _close(saved, again.get(item)):
                    findings.append(f"{place}: {item}: score {saved}, but {again.get(item)}")
            scores += len(lines)
            texts += _verify_curve(cell, task, items, grader, findings)
    return texts, scores


def _scores(task: Task, graded: Sequence[Graded]) -> dict[str, float]:
    (_, values), *_ = task.metrics(graded).items()
    return mean_by_item(values)


def _verify_curve(
    cell: CellResult,
    task: Task,
    items: Mapping[str, Item],
    grader: Grader,
    findings: list[str],
) -> int:
    """Grade the texts of the points that a task has in a curve; returns their number."""
    texts = 0
    for point in cell.curve:
        folder = cell.point_folder(point)
        # Of curves, small archives keep the texts alone.
        if point.task != task.name or not is_there(folder / "verdicts.jsonl"):
            continue
        graded = _grade_again(folder, items, grader, findings)
        texts += sum(len(one.verdicts) for one in graded)
        scores = _scores(task, graded) if graded else {}
        again = math.fsum(scores.values()) / len(scores) if scores else None
        if not _close(point.score, again) or point.items != len(scores):
            findings.append(
                f"{cell.folder / 'curve.jsonl'}: {task.name} at {point.student_tokens} tokens: "
                f"score {point.score} of {point.items} items, but {again} of {len(scores)}"
            )
    return texts


def _grade_again(
    folder: Path,
    items: Mapping[str, Item],
    grader: Grader,
    findings: list[str],
) -> list[Graded]:
    saved = {
        (row["id"], row["sample"]): row["verdict"]
        for row in read_journal(folder / "verdicts.jsonl", VerdictRow)
    }
    rows: list[dict[str, Any]] = []
    for row in read_journal(folder / "texts.jsonl", TextRow):
        if row["id"] in items:
            rows.append(row)
        else:
            findings.append(f"{folder / 'texts.jsonl'}: the task has no item {row['id']!r}")
    with ThreadPoolExecutor(GRADING_THREADS) as pool:
        verdicts = list(pool.map(lambda row: grader.grade(items[row["id"]], row["text"]), rows))
    without = saved.keys() - {(row["id"], row["sample"]) for row in rows}
    findings += [
        f"{folder / 'verdicts.jsonl'}: {item}, sample {sample}: no text was saved"
        for item, sample in sorted(without)
        if item in items
    ]
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
    table = check(TableFile, saved, str(path))
    reference = table.reference if table.reference in result.methods else None
    # Power is of another run, which it names.
    again = written(result, reference, table.power)
    before, now = flat(saved), flat(as_json(again.table.model_dump()))
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
        elif not _same_text(read_text(path), text):
            findings.append(f"{path}: isn't what the records give")
    return 1 + len(again.texts)


def _is_changed(place: str, now: Mapping[str, Any]) -> bool:
    """Whether a figure of an earlier table means something else today: McNemar's test was of
    several seeds too, and corrected with those.
    """
    name = place.rpartition(".")[2]
    return name in ("version", "p_mcnemar_holm") or (name == "p_mcnemar" and now[place] is None)


def _same_text(before: str, now: str) -> bool:
    """Whether a table's text is another one's; of its unrounded figures the last digits may differ,
    since they depend on how a machine's libraries add.
    """
    if before == now:
        return True
    first, second = (_NUMBERS.split(text) for text in (before, now))
    if first != second:
        return False
    pairs = zip(_NUMBERS.findall(before), _NUMBERS.findall(now), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=1e-9, abs_tol=1e-12) for a, b in pairs)


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
    for what, names in found.files.others.items():
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        print(f"not looked at, {what}: {', '.join(names[:_MOST_NAMES])}{more}")
    print(f"read: {', '.join(f'{count:,} {kind}' for kind, count in found.files.read.items())}")
    verdict = f"differences: {len(found.findings)}" if found.findings else "everything agrees"
    print(
        f"{verdict}: {found.texts:,} texts graded again, {found.scores:,} scores, "
        f"the tokens of {found.spends} cells and {found.tables} tables computed again"
    )
