"""A run's folder, read: what the report, `compare` and `verify` start from."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ioa_jax.errors import InputError
from ioa_jax.files import is_there, read_json
from ioa_jax.journal import read_journal
from suite.archive import RunCells
from suite.cells import TEACHER, UNDISTILLED, VERSION, is_local
from suite.schema import check, read_file, read_lines
from suite.schema.models import (
    CellFile,
    CurvePoint,
    RunFile,
    ScoreLine,
    Sweep,
    TextRow,
    Unfinished,
)


@dataclasses.dataclass(frozen=True)
class CellResult:
    """A finished cell.

    Attributes:
        name: Its folder's.
        folder: cells/<cell>.
        file: cell.json.
        lines: scores.jsonl by task and item id, in the order of the ids.
        files: The run's, by which errors name them.
    """

    name: str
    folder: Path
    file: CellFile
    lines: dict[str, dict[str, ScoreLine]]
    files: RunCells

    @functools.cached_property
    def curve(self) -> list[CurvePoint]:
        """Points measured during training; none where none were."""
        with self.files.naming():
            return read_lines(CurvePoint, self.folder / "curve.jsonl")

    @functools.cached_property
    def curve_ids(self) -> dict[str, tuple[str, ...]]:
        """By task, the items on which those points were measured, the same at each of them."""
        return {
            point.task: tuple(
                dict.fromkeys(
                    row["id"]
                    for row in read_journal(self.point_folder(point) / "texts.jsonl", TextRow)
                )
            )
            for point in reversed(self.curve)
        }

    def point_folder(self, point: CurvePoint) -> Path:
        """Where the answers of a point are."""
        return self.folder / "curve" / str(point.student_tokens) / point.task

    def scores(self, task: str) -> np.ndarray:
        """Of a task, [1, items], in the order of the ids."""
        return np.array([[line.score for line in self.lines[task].values()]], np.float64)

    @property
    def distill(self) -> Path:
        """The method's own folder; only IOA and its controls have one."""
        return self.folder / "distill"


@dataclasses.dataclass(frozen=True)
class RunResult:
    """A run's finished cells.

    Attributes:
        directory: The run's.
        run: run.json.
        cells: Finished ones, in the order of the profile's methods and seeds.
        unfinished: The others.
        files: The cells', which an archive's end with.
    """

    directory: Path
    run: RunFile
    cells: tuple[CellResult, ...]
    unfinished: tuple[Unfinished, ...]
    files: RunCells

    @functools.cached_property
    def methods(self) -> tuple[str, ...]:
        """Methods with a finished cell, the teacher first."""
        return tuple(dict.fromkeys(cell.file.method for cell in self.cells))

    @functools.cached_property
    def ids(self) -> dict[str, tuple[str, ...]]:
        """Item ids by task, sorted."""
        if not self.cells:
            return {}
        return {task: tuple(lines) for task, lines in self.cells[0].lines.items()}

    def cells_of(self, method: str) -> tuple[CellResult, ...]:
        """A method's finished cells, by seed."""
        return tuple(cell for cell in self.cells if cell.file.method == method)

    def seeds_of(self, method: str) -> tuple[int | None, ...]:
        """Seeds of a method's finished cells; (None,) for a model that no seed changes."""
        return tuple(cell.file.seed for cell in self.cells_of(method))

    def sweep_of(self, method: str) -> Sweep | None:
        """What a method changes of another one; None for most."""
        return self.cells_of(method)[0].file.notes.sweep

    def scores(self, method: str, task: str, seeds: Iterable[int | None] = ()) -> np.ndarray:
        """Scores of a task, [seeds, items], items in the order of `ids`.

        Args:
            method: With finished cells.
            task: Name.
            seeds: Of these seeds alone; () is all.
        """
        chosen = tuple(seeds) or self.seeds_of(method)
        by_seed = {cell.file.seed: cell.scores(task) for cell in self.cells_of(method)}
        return np.concatenate([by_seed[seed] for seed in chosen])

    def logprobs(self, method: str, task: str) -> np.ndarray | None:
        """Log-probabilities of the references, [seeds, items]; None unless every item has one."""
        rows = [
            [line.logprob for line in cell.lines[task].values()] for cell in self.cells_of(method)
        ]
        if any(value is None for row in rows for value in row):
            return None
        return np.array(rows, np.float64)


def read_run(directory: Path) -> RunResult:
    """Read a run's folder and check it against the schemas.

    Raises:
        InputError: It isn't a run of this version, a file doesn't fit its schema, or the cells
            weren't measured on the same items.
    """
    path = directory / "run.json"
    raw = read_json(path)
    if not isinstance(raw, dict) or raw.get("version") != VERSION:
        raise InputError(
            f"{path}: made by another version of the suite; take the revision that it names"
        )
    run = check(RunFile, raw, str(path))
    files = RunCells(directory)
    with files.naming():
        cells, unfinished = _read_cells(run, path, files)
    return RunResult(directory, run, tuple(cells), tuple(unfinished), files)


def _read_cells(
    run: RunFile, path: Path, files: RunCells
) -> tuple[list[CellResult], list[Unfinished]]:
    """Finished cells of a run.json at `path`, and the others."""
    cells: list[CellResult] = []
    unfinished: list[Unfinished] = []
    for method, seed in _expected(run, path):
        name = method if seed is None else f"{method}-seed{seed}"
        folder = files.path / name
        if not (folder / "cell.json").is_file():
            unfinished.append(Unfinished(cell=name, reason="not done yet"))
            continue
        file = read_file(CellFile, folder / "cell.json")
        if (file.method, file.seed) != (method, seed):
            raise InputError(
                f"{folder / 'cell.json'}: is of method {file.method!r} and seed {file.seed}"
            )
        if file.status == "failed":
            unfinished.append(Unfinished(cell=name, reason=f"failed: {file.error}"))
        else:
            lines = _lines(folder / "scores.jsonl", run)
            cells.append(CellResult(name, folder, file, lines, files))
    for cell in cells[1:]:
        for task, lines in cell.lines.items():
            other = cells[0].lines[task]
            if lines.keys() != other.keys():
                item = min(lines.keys() ^ other.keys())
                raise InputError(
                    f"{cell.folder / 'scores.jsonl'}: task {task!r}: item {item!r} was measured of "
                    f"only one of {cells[0].name} and {cell.name}"
                )
    return cells, unfinished


def _expected(run: RunFile, path: Path) -> list[tuple[str, int | None]]:
    try:
        methods, seeds = list(run.settings["methods"]), list(run.settings["seeds"])
    except (KeyError, TypeError):
        raise InputError(
            f"{path}: field 'settings': lists of 'methods' and 'seeds' are needed"
        ) from None
    # A teacher that runs elsewhere can't be measured here, and has no cell.
    spec = run.settings.get("teacher", {}).get("spec", "")
    expected: list[tuple[str, int | None]] = [(TEACHER, None)] if is_local(spec) else []
    for method in methods:
        expected += [
            (method, seed) for seed in ((None,) if method == UNDISTILLED else sorted(seeds))
        ]
    return expected


def _lines(path: Path, run: RunFile) -> dict[str, dict[str, ScoreLine]]:
    if not is_there(path):
        raise InputError(f"{path}: the cell is complete, but has no such file")
    found: dict[str, dict[str, ScoreLine]] = {task.name: {} for task in run.tasks}
    for line in read_lines(ScoreLine, path):
        if line.task not in found:
            raise InputError(f"{path}: task {line.task!r} isn't in run.json")
        if line.id in found[line.task]:
            raise InputError(f"{path}: task {line.task!r}: item {line.id!r} occurs twice")
        found[line.task][line.id] = line
    for task, lines in found.items():
        if not lines:
            raise InputError(f"{path}: the cell is complete, but has no item of task {task!r}")
    # In the order of the ids: cells are measured in any order, and sums shouldn't depend on it.
    return {task: dict(sorted(lines.items())) for task, lines in found.items()}
