"""The best learning rate of each method, from a run whose cells differ in it alone.

The run has METHOD and `METHOD@train.learning_rate=RATE` for every other rate of a grid, on
development seeds.
"""

from __future__ import annotations

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Tuned:
    """Grids of a run.

    Attributes:
        run_id: Of the run.
        profile: Of the run.
        settings_sha256: Of the run.
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


def tune(result: RunResult) -> Tuned:
    """Read the grids of a run.

    Raises:
        InputError: A seed is one of results; a cell isn't finished; no method has another rate, or
            one has no cells with its usual rate; or items don't name their modules.
    """
    place = str(result.directory)
    settings = result.run.settings
    check_development_seeds(settings["seeds"], place)
    if result.unfinished:
        raise InputError(f"{place}: cell {result.unfinished[0].cell} isn't finished")
    figures = Figures(result, resamples=1)
    if figures.modules is None:
        raise InputError(f"{place}: items of its tasks don't name their modules")
    grid: dict[str, dict[float, str]] = {}
    for name in result.methods:
        sweep = result.sweep_of(name)
        if sweep is not None and sweep.setting == SETTING:
            rates = grid.setdefault(sweep.of, {sweep.default: sweep.of})
            rates[sweep.value] = name
    if not grid:
        raise InputError(f"{place}: has no METHOD@{SETTING}=RATE")
    for method in grid:
        if method not in result.methods:
            raise InputError(f"{place}: has no {method!r} with its usual learning rate")
    return Tuned(
        result.run.run_id,
        result.run.profile,
        result.run.settings_sha256,
        {
            method: tuple(_point(figures, rate, name) for rate, name in sorted(rates.items()))
            for method, rates in grid.items()
        },
    )


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


def write_tuned(run: Path, output: Path) -> Tuned:
    """Write the grids of a run, and each method's best rate as profiles take it.

    Args:
        run: Folder of the run.
        output: File, .json or .yaml.

    Raises:
        InputError: As `read_run` and `tune`; or the file is of another kind, or can't be written.
    """
    if output.suffix not in (".json", ".yaml", ".yml"):
        raise InputError(f"--output {output}: name a .json or .yaml file")
    found = tune(read_run(run))
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
