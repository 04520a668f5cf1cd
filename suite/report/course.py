"""Figures of what IOA did in one cell: gaps, graph, curriculum, mastery, forgetting."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from suite.report.distilled import Distilled
from suite.report.draw import LIGHT, SERIES, STYLES, Plot, draw_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _of(one: Distilled) -> str:
    return one.cell.name


def gaps(title: str, distilled: Sequence[Distilled]) -> Plot:
    first = distilled[0]
    before = {gap.module: gap for gap in first.diagnosis.gaps}
    after: dict[str, list[float]] = {}
    for one in distilled:
        for module, value in one.record.performance.items():
            after.setdefault(module, []).append((value.teacher - value.after) / value.teacher)
    shown = sorted(
        (gap for gap in before.values() if gap.relative is not None),
        key=lambda gap: (-(gap.relative or 0), gap.module),
    )
    targets = {module for plan in first.plans for stage in plan.stages for module in stage.modules}

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for place, gap in enumerate(shown):
            assert gap.relative is not None
            if gap.interval is not None:
                axis.plot(
                    [gap.interval.low, gap.interval.high],
                    [place, place],
                    color=LIGHT["line"],
                    linewidth=6,
                    solid_capstyle="butt",
                )
            values = after.get(gap.module, [])
            if values:
                mean = float(np.mean(values))
                axis.plot([gap.relative, mean], [place, place], color=LIGHT["soft"], linewidth=1)
                axis.plot(mean, place, "o", color=LIGHT["blue"], markersize=6)
            axis.plot(gap.relative, place, "D", color=LIGHT["orange"], markersize=5)
        axis.plot([], [], "D", color=LIGHT["orange"], label="before")
        axis.plot([], [], "o", color=LIGHT["blue"], label="after")
        axis.axvline(0, color=LIGHT["soft"], linewidth=1)
        axis.set_yticks(
            range(len(shown)),
            [f"{gap.module} •" if gap.module in targets else gap.module for gap in shown],
        )
        axis.set_ylim(len(shown) - 0.4, -0.6)
        axis.set_xlabel("relative gap to the teacher, Δ(k) of Eq. 2")
        axis.grid(axis="x")
        axis.tick_params(length=0)
        figure.legend(loc="outside upper right", ncols=2)

    return draw_plot(
        "gaps",
        title,
        f"Before: the diagnosis of {_of(first)}, with the interval over its probes as a bar. "
        f"After: mean over {len(distilled)} seed{'s' if len(distilled) > 1 else ''}. Modules "
        "with a dot were taught. Left is better; under 0 the student is ahead.",
        (8.5, 0.26 * len(shown) + 1.3),
        draw,
    )


def recovered(
    found: frozenset[tuple[str, str]], true: frozenset[tuple[str, str]]
) -> tuple[int, int, int]:
    """Edges that are in both, and the numbers of each."""
    return len(found & true), len(found), len(true)


def edges_of(one: Distilled) -> frozenset[tuple[str, str]]:
    """(prerequisite, dependent) of the graph that was found."""
    return frozenset(
        (edge.prerequisite, edge.dependent) for edge in one.diagnosis.dependencies.graph.edges
    )


def graph(title: str, one: Distilled, true: frozenset[tuple[str, str]] | None) -> Plot:
    found = edges_of(one)
    modules = set(one.diagnosis.dependencies.graph.modules)
    if true is not None:
        true = frozenset(edge for edge in true if modules.issuperset(edge))
    drawn = found | (true or frozenset())
    if not drawn:
        return Plot("graph", title, f"{_of(one)} found no edge above τ_dep.", None)
    places = _layered(found, true or found)
    # Every other column half a row lower, so that neighbours' names don't meet.
    places = {node: (x, y + 0.5 * (x % 2)) for node, (x, y) in places.items()}
    columns = max(x for x, _ in places.values()) + 1
    rows = max(y for _, y in places.values()) + 1
    panels = [("found", found)] if true is None else [("found", found), ("true", true)]

    def draw(figure: Figure) -> None:
        axes = np.atleast_1d(figure.subplots(1, len(panels)))
        for axis, (name, edges) in zip(axes, panels, strict=True):
            other = found if name == "true" else true
            _nodes_and_edges(axis, places, edges, other)
            axis.set_title("found by the Identifier" if name == "found" else "the world's own")
            axis.set_xlim(-0.5, columns - 0.5)
            axis.set_ylim(rows - 0.4, -0.6)
            axis.axis("off")

    text = f"Eq. 3 in {_of(one)}; an arrow goes from what is needed to what needs it."
    if true is not None:
        both, number, of_true = recovered(found, true)
        text += (
            f" Solid: in both. Dashed: in one alone. Of {number} found edges {both} are true, of "
            f"{of_true} true ones {both} were found."
        )
    alone = len(modules) - len(places)
    if alone:
        text += f" {alone} modules without an edge are left out."
    size = (max(6.0, 1.2 * columns) * len(panels), max(2.6, 0.5 * rows + 0.6))
    return draw_plot("graph", title, text, size, draw)


def _layered(
    found: frozenset[tuple[str, str]], true: frozenset[tuple[str, str]]
) -> dict[str, tuple[int, int]]:
    """Column and row of every node, the same for both graphs: columns are layers of the second,
    and of the first for what the second lacks.
    """
    import networkx as nx

    layers: list[list[str]] = []
    placed: set[str] = set()
    for edges in (true, found):
        graph = nx.DiGraph(sorted(edges))
        for column, layer in enumerate(nx.topological_generations(graph)):
            while len(layers) <= column:
                layers.append([])
            new = sorted(set(layer) - placed)
            layers[column] += new
            placed |= set(new)
    # Near to what they need, so that arrows cross less.
    needs = {node: [a for a, b in true | found if b == node] for node in placed}
    places: dict[str, tuple[int, int]] = {}
    for column, layer in enumerate(layers):

        def key(node: str) -> tuple[float, str]:
            rows = [places[need][1] for need in needs[node] if need in places]
            return (float(np.mean(rows)) if rows else 1e9, node)

        for row, node in enumerate(sorted(layer, key=key)):
            places[node] = (column, row)
    return places


def _nodes_and_edges(
    axis: Axes,
    places: Mapping[str, tuple[int, float]],
    edges: frozenset[tuple[str, str]],
    other: frozenset[tuple[str, str]] | None,
) -> None:
    for a, b in sorted(edges):
        both = other is None or (a, b) in other
        # Around what stands between them.
        bend = 0.08 if places[b][0] - places[a][0] <= 1 else 0.2
        axis.annotate(
            "",
            xy=places[b],
            xytext=places[a],
            arrowprops={
                "arrowstyle": "-|>",
                "color": LIGHT["blue"] if both else LIGHT["orange"],
                "linestyle": "-" if both else "--",
                "linewidth": 1.3,
                "shrinkA": 14,
                "shrinkB": 14,
                "connectionstyle": f"arc3,rad={bend}",
            },
        )
    for node, (x, y) in sorted(places.items()):
        axis.plot(x, y, "o", color=LIGHT["soft"], markersize=5)
        axis.annotate(
            node.split("/")[-1],
            (x, y),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
            # Arrows pass below the name.
            bbox={"facecolor": LIGHT["paper"], "edgecolor": "none", "pad": 1},
        )


def timeline(title: str, one: Distilled) -> Plot:
    parts = one.record.spend.student_tokens_by_part
    if not parts:
        return Plot("timeline", title, f"{_of(one)} was trained on nothing.", None)
    kinds = {"bridge": "purple", "remedial": "orange", "consolidation": "line"}
    modules = {stage.number: stage.modules for plan in reversed(one.plans) for stage in plan.stages}
    # The gate of a remedial round stands after its part.
    gates = {(gate.stage, gate.remedial_round): gate for gate in one.gates}
    stages = sorted({_stage(name) or 0 for name in parts} - {0})
    lanes = {stage: lane for lane, stage in enumerate(stages)}
    others = len(stages)

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        start = 0
        for name, tokens in parts.items():
            stage = _stage(name)
            lane = others if stage is None else lanes[stage]
            kind = next((kind for kind in kinds if kind in name), None)
            colour = LIGHT["blue"] if kind is None else LIGHT[kinds[kind]]
            axis.barh(lane, tokens, left=start, height=0.55, color=colour)
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
        names = [f"stage {stage}: {_some(modules.get(stage, ()))}" for stage in stages]
        if any(_stage(name) is None for name in parts):
            names.append("consolidation")
        axis.set_yticks(range(len(names)), names)
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.set_xlabel("student tokens")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.grid(axis="x")
        axis.set_axisbelow(True)
        axis.tick_params(length=0, pad=8)
        for kind, colour in (("stage", "blue"), *kinds.items()):
            axis.plot([], [], "s", color=LIGHT[colour], label=kind)
        axis.plot([], [], "^", color=LIGHT["green"], label="gate passed")
        axis.plot([], [], "X", color=LIGHT["red"], label="gate not passed")
        figure.legend(loc="outside upper right", ncols=6, fontsize=9)

    return draw_plot(
        "timeline",
        title,
        f"What {_of(one)} trained on, in its order; gates (Eq. 9) stand where they were measured.",
        (10.5, 0.42 * (len(stages) + 1) + 1.3),
        draw,
    )


def _stage(part: str) -> int | None:
    match = re.match(r"stage-(\d+)", part)
    return int(match[1]) if match else None


def _round(part: str) -> int:
    match = re.search(r"remedial-(\d+)", part)
    return int(match[1]) if match else 0


def _some(modules: Sequence[str], most: int = 2) -> str:
    names = [module.split("/")[-1] for module in modules]
    return ", ".join(names[:most]) + (f" + {len(names) - most}" if len(names) > most else "")


def _measured(one: Distilled) -> list[str]:
    """When a finished cell's r(k) were measured."""
    later = one.matrix.stages[1:]
    names = ["first pass"] if one.has_first_pass else [str(stage) for stage in later[:-1]]
    # Where nothing was taught, nothing was measured again.
    return ["before", *names, "end"] if later else ["before"]


def _moment(one: Distilled) -> str:
    return "measured" if one.has_first_pass else "after stage"


def mastery(title: str, one: Distilled) -> Plot:
    matrix = one.matrix
    taught = [
        module
        for module in matrix.modules
        if any(module in stage.modules for plan in one.plans for stage in plan.stages)
    ]

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for module in sorted(matrix.modules, key=lambda name: name in taught):
            column = matrix.modules.index(module)
            points = [
                (stage, ratio)
                for stage, row in zip(matrix.stages, matrix.ratios, strict=True)
                if (ratio := row[column]) is not None
            ]
            known = module in taught
            number = taught.index(module) if known else 0
            axis.plot(
                [stage for stage, _ in points],
                [ratio for _, ratio in points],
                color=LIGHT[(("blue", *SERIES)[number % 7]) if known else "line"],
                linestyle=STYLES[number // 7 % len(STYLES)] if known else "-",
                linewidth=2 if known else 1,
                marker="o" if known else None,
                markersize=4,
                label=module if known else None,
                zorder=2 if known else 1,
            )
        axis.axhline(1, color=LIGHT["soft"], linewidth=1, linestyle="--")
        axis.set_xticks(matrix.stages, _measured(one))
        axis.set_xlabel(_moment(one))
        axis.set_ylabel("r(k), share of the teacher's")
        axis.grid(axis="y")
        if taught:
            figure.legend(loc="outside right upper", fontsize=9)

    return draw_plot(
        "mastery",
        title,
        f"Every module's score in {_of(one)} as a share of the teacher's (the dashed line), by its "
        "probes; modules that were not taught are grey.",
        (9.5, max(3.6, 0.22 * len(taught) + 0.6)),
        draw,
    )


def forgetting(title: str, one: Distilled) -> Plot:
    matrix = one.matrix
    order = list(matrix.modules)
    values = np.array(
        [[np.nan if value is None else value for value in row] for row in matrix.ratios]
    ).T
    # One of the colours of a text is readable on each of these in both themes.
    shades = ("#f7d7c4", "#f3e3c0", "#d9e7c3", "#a9d3b4", "#6fb598")
    bounds = (0.25, 0.5, 0.75, 0.9)

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for y in range(len(order)):
            for x in range(len(matrix.stages)):
                value = values[y, x]
                if np.isnan(value):
                    continue
                shade = shades[int(np.searchsorted(bounds, value, side="right"))]
                axis.bar(x, 0.92, width=0.94, bottom=y - 0.46, color=shade)
                axis.text(
                    x, y, f"{value:.2f}", ha="center", va="center", color="#10151f", fontsize=8.5
                )
        axis.set_xticks(range(len(matrix.stages)), _measured(one))
        axis.set_yticks(range(len(order)), order)
        axis.set_xlim(-0.5, len(matrix.stages) - 0.5)
        axis.set_ylim(len(order) - 0.5, -0.5)
        axis.set_xlabel(_moment(one))
        axis.tick_params(length=0)
        for spine in axis.spines.values():
            spine.set_visible(False)

    falls = matrix.forgetting()
    worst = max(falls, key=lambda module: (falls[module], module), default=None)
    when = (
        "after the first pass through the stages and at the end"
        if one.has_first_pass
        else ("after each stage")
    )
    text = f"r(k) {when} of {_of(one)}: a fall to the right of a rise was forgotten."
    if worst is not None and falls[worst] > 0:
        text += f" {worst} ended {falls[worst]:.2f} under its best, the most of all."
    return draw_plot(
        "forgetting",
        title,
        text,
        (max(5.5, 0.62 * len(matrix.stages) + 3.2), 0.28 * len(order) + 0.9),
        draw,
    )
