"""The figures of a run's tables, from its per-item records."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ioa_jax.bootstrap import percentile_interval
from ioa_jax.errors import InputError
from suite.cells import TEACHER, UNDISTILLED
from suite.probes import PROBES
from suite.results import RunResult
from suite.schema.models import (
    Comparison,
    ModuleComparison,
    ModuleMeans,
    PowerFile,
    Row,
    TableFile,
    WorstModule,
)
from suite.stats import (
    LEVEL,
    RESAMPLES,
    Bootstrap,
    Difference,
    Estimate,
    GroupBootstrap,
    Share,
    difference,
    estimate,
    holm,
    lost_share,
    share,
    share_of_means,
)

REFERENCE = "ioa"
DEFICIENT_BELOW = 0.72  # of the teacher's score, as IOA's diagnosis takes it


class Figures:
    """Figures of a run's methods, all from the same draws of items and seeds."""

    def __init__(self, result: RunResult, seed: int = 0, resamples: int = RESAMPLES) -> None:
        """Draw the items.

        Args:
            result: The run.
            seed: Of the draws.
            resamples: How many.
        """
        self.result = result
        self.seed = seed
        self.resamples = resamples
        self.draws = {
            task: Bootstrap(len(ids), task, seed, resamples) for task, ids in result.ids.items()
        }

    @property
    def averaged(self) -> list[str]:
        """Tasks of the mean: all but the probes, which are of the same source as the seeds; these
        alone where nothing else was measured.
        """
        return [task for task in self.draws if task != PROBES] or list(self.draws)

    def row(self, method: str) -> Row:
        """A method's line of the table."""
        result, draws = self.result, self.draws
        scores = {task: result.scores(method, task) for task in draws}
        teacher, before = (
            {task: result.scores(name, task) for task in draws} if name in result.methods else {}
            for name in (TEACHER, UNDISTILLED)
        )
        logprobs = {task: result.logprobs(method, task) for task in draws}
        cells = result.cells_of(method)
        resampled = [draws[task].means(scores[task]) for task in self.averaged]
        mean = float(np.mean([scores[task].mean() for task in self.averaged]))
        interval = percentile_interval(np.mean(resampled, axis=0), LEVEL)
        assert interval is not None
        is_student = method not in (TEACHER, UNDISTILLED)
        return Row(
            method=method,
            seeds=[seed for seed in result.seeds_of(method) if seed is not None],
            scores={task: estimate(scores[task], draws[task]) for task in draws},
            mean=Estimate(
                mean,
                interval.low,
                interval.high,
                sum(scores[task].size for task in self.averaged),
                sum(scores[task].shape[1] for task in self.averaged),
                "bootstrap",
            ),
            logprob={
                task: estimate(values, draws[task])
                for task, values in logprobs.items()
                if values is not None
            },
            retained={
                task: share(scores[task], teacher[task], draws[task])
                for task in draws
                if teacher and method != TEACHER
            },
            retained_mean=self._retained_mean(mean, resampled, teacher)
            if teacher and method != TEACHER
            else None,
            lost={
                task: lost_share(before[task], scores[task], draws[task])
                for task in draws
                if before and is_student
            },
            teacher_tokens=float(np.mean([cell.file.spend.teacher_tokens for cell in cells])),
            student_tokens=float(np.mean([cell.file.spend.student_tokens for cell in cells])),
            modules=self.module_means(method),
            sweep=result.sweep_of(method),
        )

    # -- modules ---------------------------------------------------------------------------------

    @functools.cached_property
    def modules(self) -> GroupBootstrap | None:
        """The items of the averaged tasks by module; None where one doesn't name its module."""
        if not self.result.cells:
            return None
        places: dict[str, list[int]] = {}
        lines = (
            line for task in self.averaged for line in self.result.cells[0].lines[task].values()
        )
        for place, line in enumerate(lines):
            if line.module is None:
                return None
            places.setdefault(line.module, []).append(place)
        groups = {name: np.array(places[name]) for name in sorted(places)}
        return GroupBootstrap(groups, self.seed, self.resamples)

    @functools.cached_property
    def deficient(self) -> tuple[str, ...] | None:
        """Modules in which the undistilled student is far behind the teacher, by their scores on
        the run's own items: the same for every method. None where one of the two has no cell.
        """
        if self.modules is None or not {TEACHER, UNDISTILLED} <= set(self.result.methods):
            return None
        teacher, student = (
            self.modules.by_group(self.averaged_scores(name)) for name in (TEACHER, UNDISTILLED)
        )
        return tuple(name for name in teacher if student[name] < DEFICIENT_BELOW * teacher[name])

    def averaged_scores(self, method: str, seeds: Sequence[int | None] = ()) -> np.ndarray:
        """Scores of all averaged tasks, [seeds, items], one task after the other."""
        return np.concatenate(
            [self.result.scores(method, task, seeds) for task in self.averaged], axis=1
        )

    def module_means(self, method: str) -> ModuleMeans | None:
        """A method's means over modules; None without modules."""
        if self.modules is None:
            return None
        scores = self.averaged_scores(method)
        by_module = self.modules.by_group(scores)
        worst = min(by_module, key=lambda name: (by_module[name], name))
        deficient = self.deficient
        others = None
        if deficient is not None:
            others = [name for name in by_module if name not in deficient]
        return ModuleMeans(
            all=estimate(scores, self.modules),
            deficient=self._mean_over(scores, deficient),
            others=self._mean_over(scores, others),
            worst=WorstModule(module=worst, score=by_module[worst]),
        )

    def _mean_over(self, scores: np.ndarray, names: Sequence[str] | None) -> Estimate | None:
        if not names or self.modules is None:
            return None
        return estimate(scores[:, self.modules.places(names)], self.modules.only(names))

    def module_comparisons(self, reference: str, others: Sequence[str]) -> list[ModuleComparison]:
        """`reference` minus each other method, corrected over all of them."""
        if self.modules is None:
            return []
        over: dict[Literal["all", "deficient"], Sequence[str]] = {"all": list(self.modules.groups)}
        if self.deficient:
            over["deficient"] = self.deficient
        found: list[tuple[str, Literal["all", "deficient"], Difference]] = []
        for other in others:
            seeds = self._common_seeds(reference, other)
            if seeds is None:
                continue
            first, second = (
                self.averaged_scores(name, own)
                for name, own in zip((reference, other), seeds, strict=True)
            )
            for name, modules in over.items():
                places = self.modules.places(modules)
                draws = self.modules.only(modules)
                value = difference(first[:, places], second[:, places], draws)
                found.append((other, name, value))
        corrected = holm([value.p_bootstrap for _, _, value in found])
        return [
            ModuleComparison(method=other, over=name, difference=value, p_bootstrap_holm=p)
            for (other, name, value), p in zip(found, corrected, strict=True)
        ]

    # -- differences -----------------------------------------------------------------------------

    def _common_seeds(
        self, first: str, second: str
    ) -> tuple[tuple[int | None, ...], tuple[int | None, ...]] | None:
        """Seeds of each of two methods by which they are paired; None without a common one."""
        seeds, other = self.result.seeds_of(first), self.result.seeds_of(second)
        if other != (None,) and seeds != (None,):
            seeds = other = tuple(seed for seed in seeds if seed in other)
        return (seeds, other) if seeds else None

    def difference(self, first: str, second: str, task: str) -> Difference | None:
        """`first` minus `second`; None where they have no seed in common."""
        seeds = self._common_seeds(first, second)
        if seeds is None:
            return None
        return difference(
            self.result.scores(first, task, seeds[0]),
            self.result.scores(second, task, seeds[1]),
            self.draws[task],
        )

    def comparisons(self, reference: str, others: Sequence[str]) -> list[Comparison]:
        """`reference` minus each other method on each task, corrected over all of them."""
        found = [
            (other, task, self.difference(reference, other, task))
            for other in others
            for task in self.draws
        ]
        pairs = [(other, task, value) for other, task, value in found if value is not None]
        bootstrap = holm([value.p_bootstrap for _, _, value in pairs])
        tested = [value.p_mcnemar for _, _, value in pairs if value.p_mcnemar is not None]
        exact = iter(holm(tested))
        return [
            Comparison(
                method=other,
                task=task,
                difference=value,
                p_bootstrap_holm=p,
                p_mcnemar_holm=None if value.p_mcnemar is None else next(exact),
            )
            for (other, task, value), p in zip(pairs, bootstrap, strict=True)
        ]

    def _retained_mean(
        self, mean: float, resampled: Sequence[np.ndarray], teacher: dict[str, np.ndarray]
    ) -> Share:
        """Ratio of the two means over the tasks."""
        return share_of_means(
            mean,
            float(np.mean([teacher[task].mean() for task in self.averaged])),
            np.mean(resampled, axis=0),
            np.mean([self.draws[task].means(teacher[task]) for task in self.averaged], axis=0),
        )


def choose_reference(result: RunResult, asked: str | None = None) -> str | None:
    """The method that the others are compared with: what was asked for, else `ioa`, else the first
    trained one; None where nothing was trained.

    Raises:
        InputError: What was asked for has no finished cell.
    """
    if asked is not None:
        if asked not in result.methods:
            raise InputError(
                f"{result.directory}: method {asked!r} has no finished cell; there are "
                f"{', '.join(result.methods)}"
            )
        return asked
    trained = [
        method
        for method in result.methods
        if method not in (TEACHER, UNDISTILLED) and result.sweep_of(method) is None
    ]
    return REFERENCE if REFERENCE in trained else trained[0] if trained else None


def summarize(
    figures: Figures, reference: str | None = None, power: PowerFile | None = None
) -> TableFile:
    """All figures of the tables.

    Args:
        figures: Of the run.
        reference: Method that the others are compared with; None is `choose_reference`'s.
        power: Of the run's settings; None where it isn't known.

    Raises:
        InputError: As `choose_reference`.
    """
    result = figures.result
    reference = choose_reference(result, reference)
    rows = [figures.row(method) for method in result.methods]
    others = [
        row.method for row in rows if row.sweep is None and row.method not in (TEACHER, reference)
    ]
    return TableFile(
        profile=result.run.profile,
        run_id=result.run.run_id,
        settings_sha256=result.run.settings_sha256,
        reference=reference,
        level=LEVEL,
        resamples=figures.resamples,
        tasks=result.run.tasks,
        rows=[row for row in rows if row.sweep is None],
        sweeps=[row for row in rows if row.sweep is not None],
        comparisons=[] if reference is None else figures.comparisons(reference, others),
        modules=[] if figures.modules is None else list(figures.modules.groups),
        deficient_modules=None if figures.deficient is None else list(figures.deficient),
        deficient_below=None if figures.deficient is None else DEFICIENT_BELOW,
        module_comparisons=[]
        if reference is None
        else figures.module_comparisons(reference, others),
        power=power,
        unfinished=list(result.unfinished),
    )
