"""The charts that figures are made of, from plain values: bars, curves and a graph."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import networkx as nx

from ioa_jax.report.draw import LIGHT, SMALLEST, Plot, draw_plot, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 8.5  # of a figure, in inches
# Of a graph's nodes, and from one column and row to the next, in inches.
NODE, PITCH = (1.65, 0.56), (2.1, 0.7)

Edge = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Bar:
    """One row of a bar chart.

    Attributes:
        label: What it is.
        value: Its length, which may be negative.
        note: Figures, written behind it.
        colour: Of the palette.
        interval: Ends of a whisker; None draws none.
        after: Where a dot stands; None draws none.
    """

    label: str
    value: float
    note: str
    colour: str = "blue"
    interval: tuple[float, float] | None = None
    after: float | None = None


@dataclasses.dataclass(frozen=True)
class Curve:
    """A line of a plot.

    Attributes:
        name: For the legend; None leaves it out of that.
        points: (x, y) in their order.
        look: What matplotlib's `plot` takes: colour, style, width.
    """

    name: str | None
    points: Sequence[tuple[float, float]]
    look: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Arrow:
    """An edge of a graph.

    Attributes:
        ends: (where it begins, where it ends).
        colour: Of the palette.
        style: matplotlib's.
        width: In points.
    """

    ends: Edge
    colour: str = "soft"
    style: str = "-"
    width: float = 1.3


def bar_chart(
    name: str, title: str, text: str, bars: Sequence[Bar], x_label: str, mark: float | None = None
) -> Plot:
    """Horizontal bars from top to bottom, with whiskers.

    Args:
        name: As in `Plot`.
        title: As there.
        text: As there.
        bars: From top to bottom.
        x_label: What the lengths are.
        mark: Where a dashed line stands, such as a threshold.
    """

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for row, bar in enumerate(bars):
            axis.barh(row, bar.value, height=0.62, color=LIGHT[bar.colour])
            if bar.interval is not None:
                axis.plot(bar.interval, (row, row), "|-", color=LIGHT["ink"], linewidth=1.3)
            if bar.after is not None:
                own: dict[str, Any] = {"color": LIGHT["green"], "markeredgecolor": LIGHT["paper"]}
                axis.plot(bar.after, row, "o", markersize=9, markeredgewidth=1.2, **own)
        axis.axvline(0, color=LIGHT["soft"], linewidth=1)
        if mark is not None:
            axis.axvline(mark, color=LIGHT["soft"], linewidth=1, linestyle="--")
        name_rows(axis, [bar.label for bar in bars])
        axis.set_xlabel(x_label)
        notes = axis.secondary_yaxis("right")
        notes.set_yticks(range(len(bars)), [bar.note for bar in bars], fontsize=SMALLEST)
        notes.tick_params(length=0, colors=LIGHT["soft"])
        notes.spines["right"].set_visible(False)

    return draw_plot(name, title, text, (WIDTH, 0.27 * len(bars) + 0.75), draw)


def name_rows(axis: Axes, names: Sequence[str]) -> None:
    """Names at the left of a chart whose rows are at 0, 1 and so on from the top."""
    axis.set_yticks(range(len(names)), [shorten(name) for name in names])
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(axis="x")
    axis.set_axisbelow(True)
    axis.tick_params(length=0)


def draw_curves(figure: Figure, curves: Sequence[Curve], mark: float | None = None) -> Axes:
    """Curves, and beside them their names with what each ends at, in the order of that.

    Args:
        figure: Empty.
        curves: Those without points are left out.
        mark: Where a horizontal dashed line stands.

    Returns:
        The axes, to name.
    """
    axis = figure.subplots()
    if mark is not None:
        axis.axhline(mark, color=LIGHT["soft"], linewidth=1, linestyle="--")
    lines: list[tuple[float, str, Any]] = []
    for curve in (one for one in curves if one.points):
        (line,) = axis.plot(*zip(*curve.points, strict=True), **curve.look)
        if curve.name is not None:
            end = curve.points[-1][1]
            lines.append((end, f"{end:.3g}  {shorten(curve.name, 32)}", line))
    lines.sort(key=lambda line: (-line[0], line[1]))
    axis.grid(axis="y")
    if lines:
        figure.legend(
            [line for _, _, line in lines],
            [text for _, text, _ in lines],
            loc="outside right upper",
        )
    return axis


def graph_plot(
    name: str,
    title: str,
    text: str,
    arrows: Sequence[Arrow],
    graphs: Sequence[Collection[Edge]],
    marked: Mapping[str, tuple[str, str]],
) -> Plot:
    """Nodes from left to right, each behind what it needs.

    Args:
        name: As in `Plot`.
        title: As there.
        text: As there.
        arrows: At least one; `ends` are ids of the form `category/name`.
        graphs: The arrows' ends as graphs without a circle; the first that has a node places it.
        marked: (word, colour) that a node is framed with, by id.
    """
    rows = _layers(graphs)
    tallest = max(map(len, rows))
    places = {
        node: (PITCH[0] * column, PITCH[1] * (row + (tallest - len(layer)) / 2))
        for column, layer in enumerate(rows)
        for row, node in enumerate(layer)
    }
    width = PITCH[0] * (len(rows) - 1) + NODE[0] + 0.2
    height = PITCH[1] * (tallest - 1) + NODE[1] + 0.4

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        axis.set_xlim(-0.1, width - 0.1)
        axis.set_ylim(height - NODE[1] / 2 - 0.2, -NODE[1] / 2 - 0.2)
        axis.axis("off")
        for arrow in arrows:
            _draw_arrow(axis, arrow, places)
        for node, place in places.items():
            _draw_node(axis, node, place, marked.get(node))

    return draw_plot(name, title, text, (width, height), draw)


def _layers(graphs: Sequence[Collection[Edge]]) -> list[list[str]]:
    """Nodes by column: generations of the first graph, and of the next for what that one lacks."""
    layers: list[list[str]] = []
    places: dict[str, float] = {}
    for edges in graphs:
        graph: nx.DiGraph = nx.DiGraph(sorted(edges))
        for column, generation in enumerate(nx.topological_generations(graph)):
            layers += [[]] * (column == len(layers))
            layers[column] = layers[column] + [one for one in generation if one not in places]
        places |= dict.fromkeys(graph.nodes, 0.0)
    needs = [edge for edges in graphs for edge in edges]

    # Near to what they need, so that arrows cross less.
    def wish(node: str) -> tuple[float, str]:
        before = sorted(places[a] for a, b in needs if b == node)
        return (math.fsum(before) / len(before) if before else 0.0, node)

    for layer in layers:
        layer.sort(key=wish)
        places |= {node: (row + 0.5) / len(layer) for row, node in enumerate(layer)}
    return [layer for layer in layers if layer]


def _draw_arrow(axis: Axes, arrow: Arrow, places: Mapping[str, tuple[float, float]]) -> None:
    """From the right side of one node to the left side of the other."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    (x1, y1), (x2, y2) = (places[node] for node in arrow.ends)
    x1 += NODE[0]
    bend = max(0.35, (x2 - x1) / 2)
    points = [(x1, y1), (x1 + bend, y1), (x2 - bend, y2), (x2, y2)]
    axis.add_patch(
        FancyArrowPatch(
            path=Path(points, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]),
            arrowstyle="-|>",
            mutation_scale=9,
            color=LIGHT[arrow.colour],
            linestyle=arrow.style,
            linewidth=arrow.width,
            shrinkA=0,
            shrinkB=0,
        )
    )


def _draw_node(
    axis: Axes, node: str, place: tuple[float, float], mark: tuple[str, str] | None
) -> None:
    """A frame with the category, what the node is marked as, and the name in two lines at most."""
    from matplotlib.patches import FancyBboxPatch

    x, y = place
    word, colour = mark or ("", "soft")
    category, _, name = node.partition("/")
    lines = textwrap.wrap(name, 18, max_lines=2, placeholder="…")
    above = f"{shorten(category, 19 - len(word))} · {word}" if word else shorten(category, 20)
    axis.add_patch(
        FancyBboxPatch(
            (x, y - NODE[1] / 2),
            *NODE,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=LIGHT["panel"],
            edgecolor=LIGHT[colour],
            linewidth=2 if word else 1,
            zorder=2,
        )
    )
    own: dict[str, Any] = {"fontsize": SMALLEST, "zorder": 3}
    axis.text(x + 0.07, y - 0.16, above, va="center", color=LIGHT["soft"], **own)
    axis.text(x + 0.07, y + 0.09, "\n".join(lines), va="center", linespacing=1.05, **own)
