"""A run's figures: methods compared, budgets, sensitivity, and what IOA did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ioa_jax.report import course
from ioa_jax.report.charts import WIDTH, Curve, Edge, draw_curves, name_rows
from ioa_jax.report.draw import LIGHT, SMALLEST, Plot, draw_plot, series_look
from ioa_jax.report.finished import FinishedRun
from suite.cells import TEACHER, UNDISTILLED
from suite.report.tables import label
from suite.results import CellResult, RunResult
from suite.schema.models import Row, TableFile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def all_plots(
    result: RunResult,
    table: TableFile,
    runs: Sequence[FinishedRun],
    true_edges: frozenset[Edge] | None,
) -> list[Plot]:
    """Every figure, in the page's order.

    Args:
        result: The run.
        table: Its figures.
        runs: Of the method that the report shows, one a seed; () where none has left a folder.
        true_edges: (prerequisite, dependent) of the world's own modules, where it has them.
    """
    return [
        _methods(table),
        *_budgets(result, table),
        *course_plots(runs, true_edges),
        _sensitivity(table),
    ]


def course_plots(runs: Sequence[FinishedRun], true_edges: frozenset[Edge] | None) -> list[Plot]:
    """What the method did, in its first run, and where its runs led to; as of `all_plots`."""
    titles = {
        "gaps": "How far the student was behind, before and after",
        "graph": "Which module needs which",
        "timeline": "The curriculum, with its gates",
        "mastery": "Mastery by stage",
        "forgetting": "What was forgotten on the way",
    }
    if not runs:
        why = "No finished cell has the folder that IOA and its controls leave (distill/)."
        return [Plot(name, title, why, None) for name, title in titles.items()]
    first = runs[0]
    return [
        _gaps(titles["gaps"], runs),
        _graph(titles["graph"], first, true_edges),
        course.timeline(titles["timeline"], first),
        course.mastery(titles["mastery"], first),
        course.forgetting(titles["forgetting"], first.name, first.forgetting, first.has_first_pass),
    ]


def _gaps(title: str, runs: Sequence[FinishedRun]) -> Plot:
    after: dict[str, list[float]] = {}
    for run in runs:
        for module, value in run.record.performance.items():
            # The teacher's is 0 where it can't teach the module, and then there is no gap.
            if value.teacher:
                after.setdefault(module, []).append((value.teacher - value.after) / value.teacher)
    diagnosis = runs[0].diagnosis
    text = (
        f"Bars: the diagnosis of {runs[0].name}, with the interval over its probes; red bars are "
        f"deficient, and behind them stand the gap, and the teacher's and the student's score. "
        f"Dots: after, mean over {len(runs)} seed{'s' if len(runs) > 1 else ''}. The dashed line "
        f"is τ_gap ({diagnosis.tau_gap:g}). Left is better; under 0 the student is ahead. Taught "
        f"were {', '.join(sorted(runs[0].taught)) or 'no modules'}."
    )
    means = {module: float(np.mean(values)) for module, values in after.items()}
    return course.gaps(title, text, diagnosis, means)


def recovered(found: frozenset[Edge], true: frozenset[Edge]) -> tuple[int, int, int]:
    """Edges that are in both, and the numbers of each."""
    return len(found & true), len(found), len(true)


def _graph(title: str, run: FinishedRun, true: frozenset[Edge] | None) -> Plot:
    modules = set(run.diagnosis.graph.modules)
    text = f"Eq. 3 in {run.name}; an arrow goes from what is needed to what needs it."
    used = set(run.edges)
    if true is not None:
        true = frozenset(edge for edge in true if modules.issuperset(edge))
        used |= true
        both, number, of_true = recovered(run.edges, true)
        text += (
            f" Solid: in this graph and in the world's own. Dashed: found alone. Dotted: missed. "
            f"Of {number} found edges {both} are true, of {of_true} true ones {both} were found."
        )
    alone = len(modules.difference(*used))
    if alone:
        text += f" {alone} modules without an edge are left out."
    return course.graph(title, text, run.diagnosis, true)


def _look(method: str, table: TableFile) -> dict[str, Any]:
    """The reference is blue, the teacher and the undistilled student are ink and soft."""
    if method == table.reference:
        return {"color": LIGHT["blue"], "linestyle": "-"}
    if method in (TEACHER, UNDISTILLED):
        return {"color": LIGHT["ink" if method == TEACHER else "soft"], "linestyle": "-"}
    plain = (TEACHER, UNDISTILLED, table.reference)
    others = [row.method for row in table.rows if row.method not in plain]
    return series_look(others.index(method))


# -- methods -------------------------------------------------------------------------------------


def _methods(table: TableFile) -> Plot:
    panels = [*((task.name, f"{task.name}, {task.metric or 'score'}") for task in table.tasks)]
    if len(panels) > 1:
        panels.append(("", "mean of tasks"))

    def draw(figure: Figure) -> None:
        axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
        for axis, (task, title) in zip(axes, panels, strict=True):
            _intervals(axis, table, task)
            # Room at both ends, so that the numbers of two panels don't meet.
            axis.margins(x=0.12)
            axis.locator_params(axis="x", nbins=3)
            # Below each other, as wide as a panel is.
            axis.set_title(title.replace(", ", ",\n"), fontsize=SMALLEST)
            axis.set_xlabel("%")

    return draw_plot(
        "methods",
        "Methods compared",
        "Means over seeds and items with 95 % intervals; further right is better. The dashed line "
        f"is {table.reference or 'the teacher'}.",
        (1.65 * len(panels) + 1.5, 0.3 * len(table.rows) + 1.2),
        draw,
    )


def _intervals(axis: Axes, table: TableFile, task: str) -> None:
    def found(row: Row) -> Any:
        return row.scores[task] if task else row.mean

    for place, row in enumerate(table.rows):
        value, colour = found(row), _look(row.method, table)["color"]
        axis.plot([100 * value.low, 100 * value.high], [place, place], color=colour, linewidth=2.2)
        axis.plot(100 * value.mean, place, "o", color=colour, markersize=6)
    name_rows(axis, [label(row.method) for row in table.rows])
    reference = [row for row in table.rows if row.method == (table.reference or TEACHER)]
    for row in reference:
        axis.axvline(100 * found(row).mean, color=LIGHT["blue"], linestyle="--", linewidth=1)


# -- budgets -------------------------------------------------------------------------------------


def _budgets(result: RunResult, table: TableFile) -> list[Plot]:
    plots: list[Plot] = []
    for field, words in (
        ("student_tokens", "student tokens"),
        ("teacher_tokens", "teacher tokens"),
    ):
        name, title = f"budget-{field.split('_')[0]}", f"Score against {words}"
        curves = {
            row.method: curve
            for row in table.rows
            if len(curve := mean_curve(result, row.method, field)) > 1
        }
        if not curves:
            why = "No score was measured during training (curve.jsonl is empty)."
            plots.append(Plot(name, title, why, None))
            continue
        plots.append(_curves(name, title, words, curves, table))
    return plots


def mean_curve(result: RunResult, method: str, field: str) -> list[tuple[float, float]]:
    """Score against tokens, before training, at each point that every seed has, and after it.

    Args:
        result: Of the run.
        method: Name.
        field: `student_tokens` or `teacher_tokens`.

    Returns:
        (tokens, score) by point: means over the seeds, of the mean over tasks on the items that the
        points were measured on. Empty where none were.
    """
    cells = [cell for cell in result.cells_of(method) if cell.curve]
    by_seed = [_points(cell, field) for cell in cells]
    length = min(map(len, by_seed), default=0)
    curve = [_mean([points[i] for points in by_seed]) for i in range(length)]
    if not curve:
        return []
    after = _mean(
        [(float(getattr(cell.file.spend, field)), _part_score(cell, cell)) for cell in cells]
    )
    before = [
        (0.0, float(np.mean([_part_score(untrained, cell) for cell in cells])))
        for untrained in result.cells_of(UNDISTILLED)
    ]
    return [*before, *curve, after]


def _points(cell: CellResult, field: str) -> list[tuple[float, float]]:
    points: dict[int, dict[str, float]] = {}
    tokens: dict[int, int] = {}
    spend = cell.file.spend
    for point in cell.curve:
        points.setdefault(point.student_tokens, {})[point.task] = point.score
        tokens[point.student_tokens] = getattr(point, field)
        if field == "teacher_tokens" and spend.teacher_of is not None:
            # All that the other cell's data cost was spent before this training began.
            tokens[point.student_tokens] = spend.teacher_tokens
    return [
        (float(tokens[at]), float(np.mean(list(scores.values()))))
        for at, scores in sorted(points.items())
    ]


def _part_score(scored: CellResult, measured: CellResult) -> float:
    """Mean over tasks of one cell's final scores on the items of another's points."""
    return float(
        np.mean(
            [
                np.mean([scored.lines[task][item].score for item in items])
                for task, items in measured.curve_ids.items()
            ]
        )
    )


def _mean(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    tokens, scores = np.mean(points, axis=0)
    return float(tokens), float(scores)


def _curves(
    name: str,
    title: str,
    words: str,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    table: TableFile,
) -> Plot:
    lines = [
        Curve(
            label(method),
            [(tokens, 100 * score) for tokens, score in curve],
            _look(method, table)
            | {"linewidth": 2.6 if method == table.reference else 1.5, "marker": "o"}
            | {"markersize": 3},
        )
        for method, curve in curves.items()
    ]

    def draw(figure: Figure) -> None:
        axis = draw_curves(figure, lines)
        axis.set_xlabel(words)
        axis.set_ylabel("mean of tasks, %")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")

    return draw_plot(
        name,
        title,
        f"Measured before, during and after training on a fixed part of the items, mean over tasks "
        f"and seeds: what a number of {words} buys. Beside each name what it ends at.",
        (WIDTH, max(3.6, 0.24 * len(curves) + 0.5)),
        draw,
    )


# -- sensitivity ---------------------------------------------------------------------------------


def _sensitivity(table: TableFile) -> Plot:
    title = "Sensitivity to the settings"
    settings: dict[tuple[str, str], list[Row]] = {}
    for row in table.sweeps:
        assert row.sweep is not None
        settings.setdefault((row.sweep.of, row.sweep.setting), []).append(row)
    if not settings:
        why = "The run has no cells with single settings changed."
        return Plot("sensitivity", title, why, None)
    usual = {row.method: row for row in table.rows}
    columns = min(3, len(settings))
    lines = -(-len(settings) // columns)

    def draw(figure: Figure) -> None:
        panels = figure.subplots(lines, columns, squeeze=False, sharey=True).flat
        for axis, ((of, setting), rows) in zip(panels, sorted(settings.items()), strict=False):
            points = [(row.sweep.value, row) for row in rows if row.sweep is not None]
            sweep = rows[0].sweep
            assert sweep is not None
            if of in usual:
                points.append((sweep.default, usual[of]))
                axis.axvline(sweep.default, color=LIGHT["soft"], linestyle="--", linewidth=1)
            points.sort(key=lambda point: point[0])
            middle = np.array([100 * row.mean.mean for _, row in points])
            ends = np.array([[100 * row.mean.low, 100 * row.mean.high] for _, row in points]).T
            axis.errorbar(
                [value for value, _ in points],
                middle,
                # A percentile interval may, rarely, leave its mean out.
                np.maximum(np.abs(ends - middle), 0),
                color=LIGHT["blue"],
                marker="o",
                capsize=3,
            )
            axis.set_title(f"{of}@{setting}")
            axis.grid(axis="y")
        for number, axis in enumerate(figure.axes):
            if number % columns == 0:
                axis.set_ylabel("mean of tasks, %")
            axis.set_visible(number < len(settings))

    return draw_plot(
        "sensitivity",
        title,
        "Mean of tasks with 95 % intervals, one setting changed at a time; the dashed line is the "
        "usual value.",
        (3.1 * columns + 0.4, 2.6 * lines + 0.3),
        draw,
    )
