"""Whether a run is consistent with a reference run of the same settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from ioa_jax.bootstrap import percentile_interval
from ioa_jax.errors import InputError
from suite.results import RunResult, read_run
from suite.stats import Bootstrap, Difference, Estimate, difference, estimate

DIFFERENT = 5  # exit code of `compare` and `verify` where something differs
MARGIN = 0.05
SPEND_MARGIN = 0.05
# Two one-sided tests at 5 % each say "equivalent" where the 90 % interval lies within the margin.
EQUIVALENCE_LEVEL = 0.9

Finding = Literal["equivalent", "compatible", "different", "missing"]


@dataclasses.dataclass(frozen=True)
class CellComparison:
    """A cell of the table, a method on a task, in both runs.

    Attributes:
        method: Name.
        task: Name.
        reference: In the reference run.
        mine: In the other; None where it lacks one of the reference's seeds.
        difference: Mine minus the reference's, paired by seed and item; None as `mine`.
        finding: `equivalent`: the 90 % interval of the difference lies within the margin.
            `different`: it doesn't, and the two 95 % intervals don't overlap, or that of the
            difference lies outside the margin. `compatible`: neither is shown. `missing`: not
            finished.
    """

    method: str
    task: str
    reference: Estimate
    mine: Estimate | None
    difference: Difference | None
    finding: Finding


@dataclasses.dataclass(frozen=True)
class RunComparison:
    """Two runs.

    Attributes:
        cells: Every method that is finished in the reference, on every task.
        warnings: What else differs: environments and spends.
        margin: Of equivalence, in scores from 0 to 1.
    """

    cells: tuple[CellComparison, ...]
    warnings: tuple[str, ...]
    margin: float

    @property
    def consistent(self) -> bool:
        """No cell is different or missing."""
        return not any(cell.finding in ("different", "missing") for cell in self.cells)


def compare_runs(reference: Path, mine: Path, margin: float = MARGIN) -> RunComparison:
    """Compare cell by cell of the table.

    Args:
        reference: Folder of the run that is to be reproduced.
        mine: Folder of the run that may reproduce it.
        margin: A difference of means that is of no consequence, in scores from 0 to 1.

    Raises:
        InputError: One isn't a run, the reference has no finished cell, or the two have different
            settings, tasks or items.
    """
    if not 0 < margin < 1:
        raise InputError(f"--margin {margin}: between 0 and 1")
    first, second = read_run(reference), read_run(mine)
    _check_same(first, second)
    draws = {task: Bootstrap(len(ids), task) for task, ids in first.ids.items()}
    cells = [
        _compare_cell(first, second, method, task, draws[task], margin)
        for method in first.methods
        for task in draws
    ]
    return RunComparison(tuple(cells), tuple(_warnings(first, second)), margin)


def _check_same(first: RunResult, second: RunResult) -> None:
    if not first.cells:
        raise InputError(f"{first.directory}: has no finished cell")
    if first.run.settings_sha256 != second.run.settings_sha256:
        changed = list(differences(first.run.settings, second.run.settings))
        raise InputError(
            f"{second.directory}: its settings aren't those of {first.directory}, so it can't "
            f"reproduce it: {'; '.join(changed[:5]) or 'settings_sha256 alone differs'}"
        )
    tasks = [[(task.name, task.version) for task in one.run.tasks] for one in (first, second)]
    if tasks[0] != tasks[1]:
        raise InputError(f"tasks differ: {tasks[0]} in {first.directory}, {tasks[1]} in the other")
    for task, ids in first.ids.items():
        if second.ids and second.ids[task] != ids:
            item = min(set(ids) ^ set(second.ids[task]))
            raise InputError(f"task {task!r}: item {item!r} is in only one of the runs")


def _compare_cell(
    first: RunResult, second: RunResult, method: str, task: str, draws: Bootstrap, margin: float
) -> CellComparison:
    theirs = first.scores(method, task)
    reference = estimate(theirs, draws)
    seeds = first.seeds_of(method)
    if not set(seeds) <= set(second.seeds_of(method)):
        return CellComparison(method, task, reference, None, None, "missing")
    scores = second.scores(method, task, seeds)
    mine, found = estimate(scores, draws), difference(scores, theirs, draws)
    equivalence = percentile_interval(draws.means(scores - theirs), EQUIVALENCE_LEVEL)
    assert equivalence is not None
    apart = mine.low > reference.high or mine.high < reference.low
    finding: Finding = "compatible"
    if -margin < equivalence.low and equivalence.high < margin:
        finding = "equivalent"
    elif apart or found.low > margin or found.high < -margin:
        finding = "different"
    return CellComparison(method, task, reference, mine, found, finding)


def _warnings(first: RunResult, second: RunResult) -> Iterator[str]:
    for one in (first, second):
        if len(one.run.environments) > 1:
            yield (
                f"{one.directory} was made in {len(one.run.environments)} environments; the last "
                "is compared"
            )
    if first.run.environments and second.run.environments:
        yield from differences(first.run.environments[-1], second.run.environments[-1])
    yield from differences({"models": first.run.models}, {"models": second.run.models})
    others = {cell.name: cell for cell in second.cells}
    for cell in first.cells:
        if cell.name in others:
            for field in ("teacher_tokens", "student_tokens"):
                theirs = getattr(cell.file.spend, field)
                mine = getattr(others[cell.name].file.spend, field)
                if abs(mine - theirs) > SPEND_MARGIN * max(mine, theirs):
                    yield f"{cell.name}: {field.replace('_', ' ')}: {theirs:,} and {mine:,}"


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    """`a.b: 1 and 2` for every place at which two nested mappings differ."""
    for name in sorted(first.keys() | second.keys()):
        one, other = first.get(name), second.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from (f"{name}.{line}" for line in differences(one, other))
        elif one != other:
            yield f"{name}: {one} and {other}"


def print_comparison(comparison: RunComparison) -> None:
    """The comparison on standard output."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="reference and mine", title_justify="left")
    for name in ("method", "task", "reference, %", "mine, %", "difference", "finding"):
        table.add_column(name, justify="left" if name in ("method", "task", "finding") else "right")
    for cell in comparison.cells:
        table.add_row(
            cell.method,
            cell.task,
            _percent(cell.reference),
            "-" if cell.mine is None else _percent(cell.mine),
            "-" if cell.difference is None else _percent(cell.difference),
            cell.finding,
        )
    console = Console()
    if not console.is_terminal:
        # rich would assume 80 columns and break the cells.
        console.width = 140
    console.print(table)
    for warning in comparison.warnings:
        print(f"warning: differs: {warning}")
    counts = {
        finding: sum(cell.finding == finding for cell in comparison.cells)
        for finding in ("equivalent", "compatible", "different", "missing")
    }
    told = ", ".join(f"{count} {finding}" for finding, count in counts.items() if count)
    verdict = "consistent" if comparison.consistent else "NOT consistent"
    print(f"{verdict}: {told}; margin {100 * comparison.margin:g} points of 100")


def _percent(value: Estimate | Difference) -> str:
    return f"{100 * value.mean:.1f} [{100 * value.low:.1f}, {100 * value.high:.1f}]"
