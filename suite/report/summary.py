"""The figures of a run's tables, from its per-item records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ioa_jax.bootstrap import percentile_interval
from ioa_jax.errors import InputError
from suite.cells import TEACHER, UNDISTILLED
from suite.probes import PROBES
from suite.results import RunResult
from suite.schema.models import Comparison, Row, TableFile
from suite.stats import (
    LEVEL,
    RESAMPLES,
    Bootstrap,
    Difference,
    Estimate,
    Share,
    difference,
    estimate,
    holm,
    lost_share,
    share,
    share_of_means,
)

REFERENCE = "ioa"


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
            sweep=result.sweep_of(method),
        )

    def difference(self, first: str, second: str, task: str) -> Difference | None:
        """`first` minus `second`; None where they have no seed in common."""
        seeds = self.result.seeds_of(first)
        other = self.result.seeds_of(second)
        if other != (None,) and seeds != (None,):
            seeds = other = tuple(seed for seed in seeds if seed in other)
            if not seeds:
                return None
        return difference(
            self.result.scores(first, task, seeds),
            self.result.scores(second, task, other),
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


def summarize(figures: Figures, reference: str | None = None) -> TableFile:
    """All figures of the tables.

    Args:
        figures: Of the run.
        reference: Method that the others are compared with; None is `choose_reference`'s.

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
        unfinished=list(result.unfinished),
    )
