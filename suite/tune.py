"""The best learning rate of each method, from runs whose cells differ in it alone.

They have METHOD and `METHOD@train.learning_rate=RATE` for every other rate of a grid, on
development seeds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ioa_jax.errors import InputError
from ioa_jax.files import write_json, write_text
from suite.profile import check_development_seeds
from suite.report.summary import Figures
from suite.results import RunResult, read_run

SETTING = "train.learning_rate"


@dataclasses.dataclass(frozen=True)
class Point:
    """A method with a learning rate.

    Attributes:
        rate: The peak.
        mean: Over seeds of the mean over modules, in [0, 1].
        by_seed: The mean over modules.
    """

    rate: float
    mean: float
    by_seed: dict[int, float]


# Of a rate that no run has.
MISSING = Point(0.0, 0.0, {})


@dataclasses.dataclass(frozen=True)
class Tuned:
    """Grids of runs.

    Attributes:
        run_id: Of the runs, with commas between.
        profile: Of the first run.
        settings_sha256: Of the first run.
        grid: By method, its points by their rate.
    """

    run_id: str
    profile: str
    settings_sha256: str
    grid: dict[str, tuple[Point, ...]]

    @property
    def best(self) -> dict[str, float]:
        """By method the rate with the highest mean; of equal ones the lowest."""
        return {
            method: max(points, key=lambda point: (point.mean, -point.rate)).rate
            for method, points in self.grid.items()
        }

    @property
    def at_an_end(self) -> tuple[str, ...]:
        """Methods whose best rate is the lowest or the highest of their grid."""
        return tuple(
            method
            for method, points in self.grid.items()
            if self.best[method] in (points[0].rate, points[-1].rate)
        )


def tune(*results: RunResult) -> Tuned:
    """Read the grids of runs, such as a run and one that goes on beyond an end of its grid.

    Raises:
        InputError: A seed is one of results; a cell isn't finished; no method has another rate, or
            one has no cells with its usual rate; items don't name their modules; or runs differ in
            more than their methods.
    """
    grid: dict[str, dict[float, Point]] = {}
    for result in results:
        place = str(result.directory)
        _check(result, results[0])
        figures = Figures(result, resamples=1)
        if figures.modules is None:
            raise InputError(f"{place}: items of its tasks don't name their modules")
        for name in result.methods:
            sweep = result.sweep_of(name)
            if sweep is None or sweep.setting != SETTING:
                continue
            points = grid.setdefault(sweep.of, {})
            points[sweep.value] = _point(figures, sweep.value, name)
            if sweep.of in result.methods:
                points[sweep.default] = _point(figures, sweep.default, sweep.of)
            points.setdefault(sweep.default, MISSING)
    places = ", ".join(str(result.directory) for result in results)
    if not grid:
        raise InputError(f"{places}: has no METHOD@{SETTING}=RATE")
    for method, points in grid.items():
        if MISSING in points.values():
            raise InputError(f"{places}: has no {method!r} with its usual learning rate")
    first = results[0].run
    return Tuned(
        ", ".join(result.run.run_id for result in results),
        first.profile,
        first.settings_sha256,
        {method: tuple(points[rate] for rate in sorted(points)) for method, points in grid.items()},
    )


def _check(result: RunResult, first: RunResult) -> None:
    place = str(result.directory)
    check_development_seeds(result.run.settings["seeds"], place)
    if result.unfinished:
        raise InputError(f"{place}: cell {result.unfinished[0].cell} isn't finished")
    for name, value in first.run.settings.items():
        if name != "methods" and result.run.settings[name] != value:
            raise InputError(f"{place}: another {name!r} than {first.directory}")


def _point(figures: Figures, rate: float, name: str) -> Point:
    assert figures.modules is not None
    scores = figures.averaged_scores(name)
    return Point(
        rate,
        figures.modules.mean(scores),
        {
            seed: figures.modules.mean(scores[i : i + 1])
            for i, seed in enumerate(figures.result.seeds_of(name))
            if seed is not None
        },
    )


def write_tuned(runs: Sequence[Path], output: Path) -> Tuned:
    """Write the grids of runs, and each method's best rate as profiles take it.

    Args:
        runs: Folders of the runs.
        output: File, .json or .yaml.

    Raises:
        InputError: As `read_run` and `tune`; or the file is of another kind, or can't be written.
    """
    if output.suffix not in (".json", ".yaml", ".yml"):
        raise InputError(f"--output {output}: name a .json or .yaml file")
    found = tune(*map(read_run, runs))
    record: dict[str, Any] = {
        "run_id": found.run_id,
        "profile": found.profile,
        "settings_sha256": found.settings_sha256,
        "measure": "mean over seeds of the mean over modules",
        "learning_rates": found.best,
        "grid": {
            method: [dataclasses.asdict(point) for point in points]
            for method, points in found.grid.items()
        },
    }
    if output.suffix == ".json":
        write_json(output, record)
    else:
        write_text(output, yaml.safe_dump(record, sort_keys=False))
    return found
