"""What a comparison can find: simulated for a test's size, and measured for a profile's world.

Simulated: answers of two methods to the same items with the same seeds, in a crossed design whose
effects are those of a finished run, with a difference or none. The share of simulations in which
the report's test is significant is its type I error, or its power.

Measured: how far right answers alone can take the student within the budgets, spread over all
modules (`UNIFORM`), and how far unlimited, targeted ones can (`ORACLE`), against the standard
deviation over seeds. It is measured on development seeds before methods are compared, and committed
beside the profile.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ioa_jax.errors import InputError
from ioa_jax.files import read_json, write_json, write_text
from ioa_jax.report.page import View
from ioa_jax.streams import stream
from suite.cells import ORACLE, TEACHER, UNDISTILLED, UNIFORM
from suite.profile import PROFILES, check_development_seeds
from suite.report.summary import Figures
from suite.report.tables import ALPHA
from suite.results import RunResult, read_run
from suite.schema import read_file, write_file
from suite.schema.models import PowerFile, ReferencePoint
from suite.stats import Bootstrap, mcnemar, p_of

RESAMPLES = 400
BLOCK = 100  # simulations at a time; each block has draws of its own
SEEDS_MATTER = (0, 1, 3)  # times the measured SD over seeds, where there is no difference


# -- simulated -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Effects:
    """A crossed design: the probability of a right answer, and what moves it.

    An answer is right where `z + item + method's item + method's seed + luck > 0`, all of them
    normal, of variance 1 in all.

    Attributes:
        mean: Share of right answers.
        same: Correlation of one method's answers to an item between seeds.
        other: Correlation of two methods' answers to an item between seeds.
        seed_sd: Standard deviation over seeds of a method's share of right answers that isn't
            answers' luck, in shares.
    """

    mean: float
    same: float
    other: float
    seed_sd: float


@dataclasses.dataclass(frozen=True)
class Simulated:
    """A row of the table.

    Attributes:
        test: `bootstrap`, as the report takes it, or `mcnemar`, of one seed.
        items: Of the test.
        seeds: Of each method.
        seed_sd: As of `Effects`.
        difference: True one of the two methods, in shares; 0 for the type I error.
        significant: Share of the simulations with p under 0.05.
        error: Its standard error.
    """

    test: str
    items: int
    seeds: int
    seed_sd: float
    difference: float
    significant: float
    error: float


def measure_effects(result: RunResult) -> Effects:
    """Effects of a finished run's trained methods, sweeps aside, over all averaged items.

    Raises:
        InputError: Fewer than two trained methods have two or more seeds, or scores aren't right
            or wrong.
    """
    figures = Figures(result, resamples=1)
    scores = {
        method: figures.averaged_scores(method)
        for method in result.methods
        if method not in (TEACHER, UNDISTILLED)
        and result.sweep_of(method) is None
        and len(result.seeds_of(method)) > 1
    }
    if len(scores) < 2:
        raise InputError(f"{result.directory}: two methods with two seeds each are needed")
    # Rewritings are judged by likeness; where the scores are cut hardly matters.
    right = {method: (values >= 0.5).astype(float) for method, values in scores.items()}
    same: list[float] = []
    seed_variance: list[float] = []
    for values in right.values():
        seeds, items = values.shape
        # Products of two different seeds' answers to an item, from sums over the seeds.
        sums = values.sum(axis=0)
        joint = float(((sums**2 - sums) / (seeds * (seeds - 1))).mean())
        same.append(correlation_of(float(values.mean()), float(values.mean()), joint))
        # Analysis of variance without repetition: of the means over seeds, less answers' luck.
        rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
        luck = float((rest**2).sum()) / ((seeds - 1) * (items - 1))
        seed_variance.append(float(values.mean(axis=1).var(ddof=1)) - luck / items)
    means = [values.mean(axis=0) for values in right.values()]
    other = [
        correlation_of(float(a.mean()), float(b.mean()), float((a * b).mean()))
        for a, b in itertools.combinations(means, 2)
    ]
    # Medians, since a control that fails in some seeds says nothing of the others.
    within = float(np.median(same))
    return Effects(
        float(np.median([values.mean() for values in right.values()])),
        within,
        min(float(np.median(other)), within),
        math.sqrt(max(0.0, float(np.median(seed_variance)))),
    )


def correlation_of(first: float, second: float, joint: float) -> float:
    """Of two normals that are over their thresholds with probability `first` and `second`, and
    both with `joint`; 0 where that is less often than by chance.
    """
    from scipy.special import ndtri

    a, b = (float(ndtri(min(max(share, 1e-6), 1 - 1e-6))) for share in (first, second))
    # What the correlation adds to first * second (Plackett, 1954), which grows with it: the
    # integral over its arcsine, up to just under 1.
    angle = np.linspace(0, np.pi / 2 - 1e-3, 2000)
    density = np.exp(-(a * a + b * b - 2 * a * b * np.sin(angle)) / (2 * np.cos(angle) ** 2))
    steps = (density[1:] + density[:-1]) / 2 * np.diff(angle) / (2 * np.pi)
    gained = np.concatenate([[0.0], np.cumsum(steps)])
    return float(np.sin(np.interp(joint - first * second, gained, angle)))


def draw_answers(
    effects: Effects,
    difference: float,
    items: int,
    seeds: int,
    sets: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Answers of two methods, each [sets, seeds, items] of 0 and 1; the first is better by
    `difference` in expectation.

    Raises:
        InputError: A share would leave (0, 1), or the effects add up to more than all there is.
    """
    from scipy.stats import norm

    shares = (effects.mean + difference / 2, effects.mean - difference / 2)
    if not all(0 < share < 1 for share in shares):
        raise InputError(
            f"difference {difference}: from a mean of {effects.mean:.3f} it leaves 0 to 1"
        )
    # A seed's effect of seed_sd in shares moves the threshold by so much.
    seed_variance = (effects.seed_sd / float(norm.pdf(norm.ppf(effects.mean)))) ** 2
    luck = 1 - effects.same - seed_variance
    if luck < 0:
        raise InputError(f"seed_sd {effects.seed_sd}: more than the answers' luck leaves room for")
    common = generator.normal(0, math.sqrt(effects.other), (sets, 1, items))
    answers: list[np.ndarray] = []
    for share in shares:
        value = common + generator.normal(
            float(norm.ppf(share)), math.sqrt(effects.same - effects.other), (sets, 1, items)
        )
        value = value + generator.normal(0, math.sqrt(seed_variance), (sets, seeds, 1))
        value = value + generator.normal(0, math.sqrt(luck), (sets, seeds, items))
        answers.append((value > 0).astype(float))
    return answers[0], answers[1]


@dataclasses.dataclass(frozen=True)
class SimulationPlan:
    """How much is simulated.

    Attributes:
        simulations: Of each row.
        seed: Of everything random.
        resamples: Of the bootstrap; the report has more, which changes its p by little.
    """

    simulations: int
    seed: int = 0
    resamples: int = RESAMPLES


def simulate(
    effects: Effects,
    difference: float,
    items: int,
    seeds: int,
    plan: SimulationPlan,
) -> list[Simulated]:
    """How often each of the report's tests is significant.

    Args:
        effects: Of the design.
        difference: True one, in shares.
        items: Of the test.
        seeds: Of each method; McNemar's test is of one.
        plan: How many simulations, and of what.

    Returns:
        A row a test.

    Raises:
        InputError: As `draw_answers`.
    """
    simulations, seed = plan.simulations, plan.seed
    significant: dict[str, int] = {}
    done = 0
    while done < simulations:
        sets = min(BLOCK, simulations - done)
        key = (items, seeds, round(1e6 * difference), round(1e6 * effects.seed_sd), done)
        first, second = draw_answers(
            effects, difference, items, seeds, sets, stream(seed, "power", *key)
        )
        differences = first - second
        draws = Bootstrap(items, "power", seed=seed + done, resamples=plan.resamples)
        found = {"bootstrap": p_of(draws.many(differences))}
        if seeds == 1:
            wins, losses = (differences > 0).sum(axis=(1, 2)), (differences < 0).sum(axis=(1, 2))
            found["mcnemar"] = np.array(
                [mcnemar(int(won), int(lost)) for won, lost in zip(wins, losses, strict=True)]
            )
        for test, p in found.items():
            significant[test] = significant.get(test, 0) + int((p < ALPHA).sum())
        done += sets
    return [
        Simulated(
            test,
            items,
            seeds,
            effects.seed_sd,
            difference,
            count / simulations,
            math.sqrt(count / simulations * (1 - count / simulations) / simulations),
        )
        for test, count in significant.items()
    ]


def tabulate(
    effects: Effects,
    items: Sequence[int],
    seeds: Sequence[int],
    differences: Sequence[float],
    plan: SimulationPlan,
) -> list[Simulated]:
    """Type I error with `SEEDS_MATTER` times the measured effect of seeds; then power with each
    difference and the measured one.

    Raises:
        InputError: As `draw_answers`.
    """
    rows: list[Simulated] = []
    for of, number in ((i, s) for i in items for s in seeds):
        for factor in SEEDS_MATTER:
            moved = dataclasses.replace(effects, seed_sd=factor * effects.seed_sd)
            rows += simulate(moved, 0.0, of, number, plan)
        for difference in differences:
            rows += simulate(effects, difference, of, number, plan)
    return rows


def write_simulation(
    directory: Path,
    run: str,
    effects: Effects,
    rows: Sequence[Simulated],
    simulations: int,
    resamples: int = RESAMPLES,
) -> list[Path]:
    """power.json and power.md.

    Args:
        directory: Made where it isn't there.
        run: Whose effects these are.
        effects: As measured.
        rows: Of `tabulate`.
        simulations: Of each row.
        resamples: Of each simulation.

    Raises:
        InputError: They can't be written.
    """
    record = {
        "run": run,
        "effects": dataclasses.asdict(effects),
        "alpha": ALPHA,
        "simulations": simulations,
        "resamples": resamples,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    paths = [directory / "power.json", directory / "power.md"]
    write_json(paths[0], record)
    write_text(paths[1], _markdown(run, effects, rows, simulations, resamples))
    return paths


def simulation_table(
    seed_sd: float, rows: Sequence[Simulated]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Header and rows of what the tests find, in %; power is at the measured SD over seeds."""
    nulls = sorted({row.seed_sd for row in rows if row.difference == 0})
    differences = sorted({row.difference for row in rows if row.difference != 0})
    found = {
        (row.items, row.seeds, row.test, row.seed_sd, row.difference): row.significant
        for row in rows
    }
    columns = [(sd, 0.0) for sd in nulls] + [(seed_sd, value) for value in differences]
    header = (
        "items",
        "seeds",
        "test",
        *(f"no difference, SD {100 * sd:.2f}" for sd in nulls),
        *(f"{100 * value:g} points" for value in differences),
    )
    return header, tuple(
        (
            f"{items:,}",
            str(seeds),
            test,
            *(f"{100 * found[items, seeds, test, sd, value]:.1f}" for sd, value in columns),
        )
        for items, seeds, test in dict.fromkeys((row.items, row.seeds, row.test) for row in rows)
    )


def _markdown(
    run: str, effects: Effects, rows: Sequence[Simulated], simulations: int, resamples: int
) -> str:
    header, cells = simulation_table(effects.seed_sd, rows)
    lines = [
        "# What the tests find",
        "",
        f"Share of {simulations:,} simulated comparisons of two methods in which p < {ALPHA:g}, in "
        "%. Without a difference it is the type I error and should be 5; with one it is the power.",
        "",
        "| " + " | ".join(header) + " |",
        "|" + " ---: |" * len(header),
        *("| " + " | ".join(row) + " |" for row in cells),
    ]
    return "\n".join(
        [
            *lines,
            "",
            f"- Effects as measured in {run}, medians over its methods: {100 * effects.mean:.1f} % "
            f"of the answers are right; answers to an item correlate by {effects.same:.2f} between "
            f"seeds of a method and by {effects.other:.2f} between methods, on the normal scale "
            "below them; a method's share of right answers has a standard deviation (SD) of "
            f"{100 * effects.seed_sd:.2f} points over seeds, answers' luck aside. Power is at that "
            "SD.",
            f"- The bootstrap has {resamples:,} resamples here and 10,000 in reports. McNemar's "
            "test is of one seed: it takes the two students for the methods, so that its errors "
            "grow with the SD over seeds.",
            "- p of one comparison; reports correct theirs by Holm, which costs power.",
            "",
        ]
    )


# -- measured ------------------------------------------------------------------------------------


# Settings that decide how far students can get; runs that share them have the same power.
_DECISIVE = ("precision", "pack", "teacher", "student", "seed_items", "tasks", "budgets")


def measure_power(result: RunResult) -> PowerFile:
    """Power of the world of a run that has `UNIFORM` and `ORACLE`.

    Raises:
        InputError: A method isn't finished or has another number of seeds, a seed isn't one of
            development, or items don't name their modules.
    """
    settings = result.run.settings
    check_development_seeds(settings["seeds"], str(result.directory))
    figures = Figures(result, resamples=1)
    if figures.modules is None:
        raise InputError(f"{result.directory}: items of its tasks don't name their modules")
    points: dict[str, ReferencePoint] = {}
    for method in (UNDISTILLED, UNIFORM, ORACLE):
        missing = [one.cell for one in result.unfinished if one.cell.startswith(method)]
        if method not in result.methods or missing:
            raise InputError(f"{result.directory}: method {method!r} isn't finished")
        scores = figures.averaged_scores(method)
        points[method] = ReferencePoint(
            mean=figures.modules.mean(scores),
            by_seed={
                seed: figures.modules.mean(scores[i : i + 1])
                for i, seed in enumerate(result.seeds_of(method))
                if seed is not None
            },
        )
    trained = [list(points[method].by_seed.values()) for method in (UNIFORM, ORACLE)]
    if min(map(len, trained)) < 2:
        raise InputError(f"{result.directory}: two seeds are needed for a standard deviation")
    seed_sd = math.sqrt(float(np.mean([np.var(values, ddof=1) for values in trained])))
    if seed_sd == 0:
        raise InputError(f"{result.directory}: all seeds have the same means")
    environments = result.run.environments
    git = environments[-1].get("git") if environments else None
    return PowerFile(
        profile=result.run.profile,
        run_id=result.run.run_id,
        revision=git.get("revision") if isinstance(git, Mapping) else None,
        settings=_decisive(settings),
        untaught=points[UNDISTILLED],
        uniform=points[UNIFORM],
        oracle=points[ORACLE],
        seed_sd=seed_sd,
        ratio=(points[ORACLE].mean - points[UNIFORM].mean) / seed_sd,
    )


def write_power(run: Path, output: Path | None = None) -> tuple[Path, PowerFile]:
    """Measure a run's power and write it for the report.

    Args:
        run: Folder of the run.
        output: File; None is the profile's, among those that come with the suite.

    Raises:
        InputError: As `read_run`, `measure_power` and `write_file`.
    """
    power = measure_power(read_run(run))
    path = PROFILES / f"{power.profile}.power.json" if output is None else output
    write_file(PowerFile, path, power.model_dump(mode="json"))
    return path, power


def find_power(settings: Mapping[str, Any], folder: Path = PROFILES) -> PowerFile | None:
    """What was measured with a run's teacher, student, seeds, tasks and budgets; None if nothing.

    Args:
        settings: Of the run.
        folder: Of the power files.

    Raises:
        InputError: A file there doesn't fit its schema.
    """
    found = _find_power(settings, folder)
    return None if found is None else found[1]


def find_simulation(settings: Mapping[str, Any], folder: Path = PROFILES) -> View | None:
    """What the report's tests find, as it was simulated for the same; None if it wasn't.

    It lies beside the power file, as PROFILE.simulation.json: the simulation's power.json.

    Raises:
        InputError: As of `find_power`, whose arguments these are, or the file isn't JSON.
    """
    found = _find_power(settings, folder)
    if found is None:
        return None
    path = found[0].with_name(found[0].name.replace(".power.", ".simulation."))
    if not path.is_file():
        return None
    record = read_json(path)
    simulated = [Simulated(**row) for row in record["rows"]]
    header, rows = simulation_table(record["effects"]["seed_sd"], simulated)
    notes = (
        f"Share of {record['simulations']:,} simulated comparisons of two methods in which p < "
        f"{record['alpha']:g}, in %, with the effects of items and seeds as measured in "
        f"{record['run']}. Without a difference it is the type I error and should be 5, for SDs "
        "over seeds in points; with one it is the power, before Holm's correction.",
    )
    return View("simulation", "What the report's tests find", header, rows, notes)


def _find_power(settings: Mapping[str, Any], folder: Path) -> tuple[Path, PowerFile] | None:
    decisive = _decisive(settings)
    found = ((path, read_file(PowerFile, path)) for path in sorted(folder.glob("*.power.json")))
    return next((one for one in found if one[1].settings == decisive), None)


def _decisive(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: settings.get(name) for name in _DECISIVE}
