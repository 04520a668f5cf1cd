"""Figures of a run of the method: gaps, graph, curriculum, mastery, forgetting."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ioa_jax.identifier.dependency import edge_ends
from ioa_jax.identifier.diagnosis import Diagnosis
from ioa_jax.organizer.retention import ForgettingMatrix
from ioa_jax.report.charts import (
    WIDTH,
    Arrow,
    Bar,
    Curve,
    Edge,
    bar_chart,
    draw_curves,
    graph_plot,
    name_rows,
)
from ioa_jax.report.draw import LIGHT, SMALLEST, Plot, draw_plot, series_look, shorten
from ioa_jax.report.finished import FinishedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# How dependencies were found.
ESTIMATORS = {"population": "-", "quantile": "--", "prior": ":"}
# Kinds of parts of the curriculum beside a stage's own.
KINDS = {"bridge": "purple", "remedial": "orange", "consolidation": "line"}
# From bad to good, with the bounds between them. The ink is readable on each in both themes.
SHADES = ("#f7d7c4", "#f3e3c0", "#d9e7c3", "#a9d3b4", "#6fb598")
BOUNDS, INK = (0.25, 0.5, 0.75, 0.9), "#10151f"


def gaps(
    title: str, text: str, diagnosis: Diagnosis, after: Mapping[str, float] | None = None
) -> Plot:
    """Eq. 2 of every module, the largest gap first, with intervals and τ_gap.

    Args:
        title: As in `Plot`.
        text: As there.
        diagnosis: Before teaching.
        after: The same gaps after it, by module; drawn as dots.
    """
    known = sorted(
        (gap for gap in diagnosis.gaps if gap.relative is not None),
        key=lambda gap: (-(gap.relative or 0.0), gap.module),
    )
    bars = [
        Bar(
            gap.module,
            gap.relative or 0.0,
            f"{gap.relative:.2f} · {gap.teacher:.2f} to {gap.student:.2f}",
            "red" if gap.module in diagnosis.deficient else "blue",
            None if gap.interval is None else (gap.interval.low, gap.interval.high),
            None if after is None else after.get(gap.module),
        )
        for gap in known
    ]
    x_label = "relative gap to the teacher, Δ(k) of Eq. 2"
    return bar_chart("gaps", title, text, bars, x_label, diagnosis.tau_gap)


def graph(
    title: str, text: str, diagnosis: Diagnosis, true: Collection[Edge] | None = None
) -> Plot:
    """The dependencies above τ_dep, without lone modules; a line's width is its dependency.

    Args:
        title: As in `Plot`.
        text: Likewise.
        diagnosis: Whose.
        true: (prerequisite, dependent) of the modules' own graph, to compare with; None where it
            isn't known.
    """
    found = {edge_ends(edge): edge for edge in diagnosis.graph.edges}
    if not found and not true:
        return Plot("graph", title, "No dependency is above τ_dep.", None)
    arrows = [
        Arrow(
            ends,
            "soft" if true is None else "blue" if ends in true else "orange",
            ESTIMATORS[edge.estimator] if true is None else "-" if ends in true else "--",
            0.8 + 2 * edge.value,
        )
        for ends, edge in found.items()
    ]
    arrows += [Arrow(ends, "purple", ":") for ends in sorted(set(true or ()) - set(found))]
    marked = {module: ("deficient", "orange") for module in diagnosis.deficient}
    marked |= {module: ("target", "red") for module in diagnosis.targets.modules}
    return graph_plot("graph", title, text, arrows, [true or (), found], marked)


def timeline(title: str, run: FinishedRun) -> Plot:
    """What the student was trained on, in its order, with the gates."""
    parts = run.record.spend.student_tokens_by_part
    if not parts:
        return Plot("timeline", title, f"{run.name} was trained on nothing.", None)
    modules = {stage.number: stage.modules for plan in reversed(run.plans) for stage in plan.stages}
    stages = sorted({_stage(name) or 0 for name in parts} - {0})
    names = [f"stage {stage}: {_some(modules.get(stage, ()))}" for stage in stages]
    if any(_stage(name) is None for name in parts):
        names.append("consolidation")

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        _draw_parts(axis, run, stages)
        name_rows(axis, names)
        axis.set_xlabel("student tokens")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        for kind, colour in (("stage", "blue"), *KINDS.items()):
            axis.plot([], [], "s", color=LIGHT[colour], label=kind)
        axis.plot([], [], "^", color=LIGHT["green"], label="gate passed")
        axis.plot([], [], "X", color=LIGHT["red"], label="gate not passed")
        figure.legend(loc="outside upper right", ncols=6)

    return draw_plot(
        "timeline",
        title,
        f"What {run.name} trained on, in its order; gates (Eq. 9) stand where they were measured.",
        (WIDTH + 1, 0.42 * (len(stages) + 1) + 1.3),
        draw,
    )


def _draw_parts(axis: Axes, run: FinishedRun, stages: Sequence[int]) -> None:
    # The gate of a remedial round stands after its part.
    gates = {(gate.stage, gate.remedial_round): gate for gate in run.gates}
    start = 0
    for name, tokens in run.record.spend.student_tokens_by_part.items():
        stage = _stage(name)
        lane = len(stages) if stage is None else stages.index(stage)
        kind = next((kind for kind in KINDS if kind in name), None)
        colour = "blue" if kind is None else KINDS[kind]
        axis.barh(lane, tokens, left=start, height=0.55, color=LIGHT[colour])
        start += tokens
        gate = None if stage is None or kind == "bridge" else gates.get((stage, _round(name)))
        if gate is not None:
            axis.plot(
                start,
                lane,
                "^" if gate.passed else "X",
                color=LIGHT["green" if gate.passed else "red"],
                markersize=9,
                # Set apart from the part's own colour.
                markeredgecolor=LIGHT["paper"],
                markeredgewidth=1.2,
                clip_on=False,
                zorder=3,
            )


def _stage(part: str) -> int | None:
    match = re.match(r"stage-(\d+)", part)
    return int(match[1]) if match else None


def _round(part: str) -> int:
    match = re.search(r"remedial-(\d+)", part)
    return int(match[1]) if match else 0


def _some(modules: Sequence[str], most: int = 2) -> str:
    names = [shorten(module.split("/")[-1], 18) for module in modules]
    return ", ".join(names[:most]) + (f" + {len(names) - most}" if len(names) > most else "")


def moments(matrix: ForgettingMatrix, has_first_pass: bool) -> list[str]:
    """When a finished run's r(k) were measured."""
    # Where nothing was taught, nothing was measured again.
    between = [str(stage) for stage in matrix.stages[1:-1]]
    if has_first_pass and len(between) == 1:
        between = ["first pass"]
    return ["before", *between, "end"][: len(matrix.stages)]


def mastery(title: str, run: FinishedRun) -> Plot:
    """r(k) of every module at each measurement; those that weren't taught are grey."""
    matrix = run.forgetting
    taught = [module for module in matrix.modules if module in run.taught]
    curves: list[Curve] = []
    for column, module in enumerate(matrix.modules):
        points = [
            (float(stage), ratio)
            for stage, row in zip(matrix.stages, matrix.ratios, strict=True)
            if (ratio := row[column]) is not None
        ]
        if module in taught:
            look = series_look(taught.index(module)) | {"marker": "o"}
            curves.append(Curve(module, points, look))
        else:
            curves.insert(0, Curve(None, points, {"color": LIGHT["line"], "linewidth": 1}))

    def draw(figure: Figure) -> None:
        axis = draw_curves(figure, curves, 1.0)
        axis.set_xticks(matrix.stages, moments(matrix, run.has_first_pass))
        axis.set_xlabel("measured" if run.has_first_pass else "after stage")
        axis.set_ylabel("r(k), share of the teacher's")

    return draw_plot(
        "mastery",
        title,
        f"Every module's score in {run.name} as a share of the teacher's (the dashed line), by its "
        "probes; modules that were not taught are grey.",
        (WIDTH + 1, max(3.6, 0.22 * len(taught) + 0.6)),
        draw,
    )


def forgetting(title: str, name: str, matrix: ForgettingMatrix, has_first_pass: bool) -> Plot:
    """r(k) of every module at each measurement, on a ground that says how good it is.

    Args:
        title: As in `Plot`.
        name: What the run is called.
        matrix: Of a finished run, whose last measurement is the one at its end.
        has_first_pass: All modules are measured after the first pass; else after each stage.
    """
    if not matrix.stages:
        return Plot("forgetting", title, "Nothing was measured.", None)
    when = "the first pass through the stages and at the end" if has_first_pass else "each stage"
    text = f"r(k) after {when} of {name}: a fall to the right of a rise was forgotten."
    falls = matrix.forgetting()
    worst = max(falls, key=lambda module: (falls[module], module), default=None)
    if worst is not None and falls[worst] > 0:
        text += f" {worst} ended {falls[worst]:.2f} under its best, the most of all."

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for x, row in enumerate(matrix.ratios):
            for y, value in enumerate(row):
                if value is not None:
                    shade = SHADES[int(np.searchsorted(BOUNDS, value, side="right"))]
                    axis.bar(x, 0.92, width=0.94, bottom=y - 0.46, color=shade)
                    own: dict[str, Any] = {"color": INK, "fontsize": SMALLEST}
                    axis.text(x, y, f"{value:.2f}", ha="center", va="center", **own)
        name_rows(axis, matrix.modules)
        axis.grid(visible=False)
        axis.set_xticks(range(len(matrix.stages)), moments(matrix, has_first_pass))
        axis.set_xlim(-0.5, len(matrix.stages) - 0.5)
        axis.set_xlabel("measured" if has_first_pass else "after stage")
        axis.spines[:].set_visible(False)

    size = (max(5.5, 0.62 * len(matrix.stages) + 3.2), 0.28 * len(matrix.modules) + 0.9)
    return draw_plot("forgetting", title, text, size, draw)
