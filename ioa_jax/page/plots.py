"""Plots as inline SVG, drawn from plain values.

Sizes are in CSS pixels, y points down. Colours are the page's, so that plots follow its light and
dark. Every plot has a title that screen readers read in its place.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Sequence

import networkx as nx

from ioa_jax.identifier.dependency import DependencyGraph
from ioa_jax.page.document import Html, element

WIDTH = 860
LABEL_WIDTH = 270
LABEL_CHARACTERS = 38
NOTE_WIDTH = 150
ROW = 24
NODE = (176, 40)
COLOURS = 8

Number = int | float


@dataclasses.dataclass(frozen=True)
class Bar:
    """One row of a bar chart.

    Attributes:
        label: What it is.
        parts: (length, colour class) of the parts, one after another; a single one may be negative.
        note: Figures, written behind the bar.
        interval: Ends of a whisker; None draws none.
    """

    label: str
    parts: tuple[tuple[float, str], ...]
    note: str
    interval: tuple[float, float] | None = None


def bar_chart(title: str, bars: Sequence[Bar], mark: float | None = None) -> Html:
    """Horizontal bars with whiskers.

    Args:
        title: Says what is seen.
        bars: From top to bottom.
        mark: Where to draw a vertical line, such as a threshold.
    """
    ends = [0.0, *(() if mark is None else (mark,))]
    for bar in bars:
        ends += [sum(length for length, _ in bar.parts), *(bar.interval or ())]
    low, high = min(ends), max(ends)
    high = high if high > low else low + 1.0
    room = WIDTH - LABEL_WIDTH - NOTE_WIDTH

    def x(value: float) -> float:
        return LABEL_WIDTH + (value - low) / (high - low) * room

    height = ROW * len(bars) + 26
    drawn: list[Html] = []
    for tick in _ticks(low, high):
        drawn += [
            _line(x(tick), 0, x(tick), height - 20, "axis"),
            _text(x(tick), height - 6, f"{tick:,.10g}", "small", "middle"),
        ]
    if mark is not None:
        drawn.append(_line(x(mark), 0, x(mark), height - 20, "mark"))
    for row, bar in enumerate(bars):
        top, middle = row * ROW + 4, row * ROW + ROW / 2
        drawn.append(_label(LABEL_WIDTH - 8, middle + 4, bar.label, "end"))
        start = 0.0
        for length, colour in bar.parts:
            left, right = sorted((x(start), x(start + length)))
            drawn.append(_rect(left, top, right - left, ROW - 8, colour))
            start += length
        if bar.interval is not None:
            left, right = (x(end) for end in bar.interval)
            path = f"M{left:.1f} {middle - 5}v10m0-5H{right:.1f}m0-5v10"
            drawn.append(element("path", d=path, class_="whisker"))
        drawn.append(_text(WIDTH - NOTE_WIDTH + 8, middle + 4, bar.note, "small", "start"))
    return _svg(title, WIDTH, height, drawn)


def line_chart(
    title: str,
    names: Sequence[str],
    series: Sequence[Sequence[float | None]],
    ticks: Sequence[str],
    mark: float | None = None,
) -> Html:
    """Lines over a few named points, with their names and last values beside their ends.

    Args:
        title: Says what is seen.
        names: Of the lines.
        series: Values of each line; None where there is none.
        ticks: Names of the points.
        mark: Where to draw a horizontal line.
    """
    width, plot, height = 460, 170, 190
    values = [v for line in series for v in line if v is not None]
    high = max([1.0, *values, *(() if mark is None else (mark,))]) * 1.05

    def x(index: int) -> float:
        return 34 + (plot - 44) * (index / max(len(ticks) - 1, 1))

    def y(value: float) -> float:
        return 10 + (height - 40) * (1 - max(value, 0.0) / high)

    drawn: list[Html] = []
    for tick in _ticks(0.0, high):
        drawn += [
            _line(34, y(tick), plot, y(tick), "axis"),
            _text(30, y(tick) + 4, f"{tick:g}", "small", "end"),
        ]
    drawn += [_text(x(i), height - 10, t, "small", "middle") for i, t in enumerate(ticks)]
    if mark is not None:
        drawn.append(_line(34, y(mark), plot, y(mark), "mark"))
    ends: list[tuple[float, int]] = []
    for number, line in enumerate(series):
        points = [(x(i), y(v)) for i, v in enumerate(line) if v is not None]
        if not points:
            continue
        colour = f"var(--c{number % COLOURS})"
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
        drawn.append(element("path", d=path, fill="none", stroke=colour, stroke_width=2))
        drawn += [element("circle", cx=a, cy=b, r=3, fill=colour) for a, b in points]
        ends.append((points[-1][1], number))
    # Names in the order of the lines' ends, with room for each.
    place = 4.0
    for at, number in sorted(ends):
        place = max(place + 14, at + 4)
        last = next(v for v in reversed(series[number]) if v is not None)
        drawn.append(
            element(
                "rect",
                x=plot + 8,
                y=place - 9,
                width=9,
                height=9,
                fill=f"var(--c{number % COLOURS})",
            )
        )
        drawn.append(_label(plot + 21, place, f"{last:.2f} {names[number]}", "start", 40))
    return _svg(title, width, max(height, place + 10), drawn)


def dependency_graph(
    title: str,
    graph: DependencyGraph,
    targets: Collection[str] = (),
    deficient: Collection[str] = (),
) -> Html:
    """Modules from left to right, prerequisites before what needs them; without lone modules.

    A line's width is its dependency; those estimated from thirds of the population are dashed,
    those of the prior dotted.

    Args:
        title: Says what is seen.
        graph: At least one edge.
        targets: Modules with a red frame.
        deficient: Modules with an orange frame.
    """
    layers = _layers(graph)
    joined: nx.DiGraph = nx.DiGraph()
    for number, layer in enumerate(layers):
        joined.add_nodes_from(layer, subset=number)
    # networkx spreads each layer evenly around 0.
    layout = nx.multipartite_layout(joined, subset_key="subset", align="vertical", scale=1)
    tallest = max(len(layer) for layer in layers)
    column = max(NODE[0] + 60, (WIDTH - NODE[0]) / max(len(layers) - 1, 1))
    column = min(column, 320)
    height = tallest * (NODE[1] + 18) + 10
    places: dict[str, tuple[float, float]] = {}
    for number, layer in enumerate(layers):
        order = sorted(layer, key=lambda module: float(layout[module][1]))
        gap = height / len(order)
        for row, module in enumerate(order):
            places[module] = (6 + number * column, gap * (row + 0.5))
    drawn = [
        element(
            "defs",
            element(
                "marker",
                element("path", d="M0 0L8 4L0 8z", class_="head"),
                id="arrow",
                viewBox="0 0 8 8",
                refX=7,
                refY=4,
                markerWidth=8,
                markerHeight=8,
                markerUnits="userSpaceOnUse",
                orient="auto",
            ),
        )
    ]
    for edge in graph.edges:
        (x1, y1), (x2, y2) = places[edge.prerequisite], places[edge.dependent]
        x1 += NODE[0]
        bend = max(40.0, (x2 - x1) / 2)
        handles = f"{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f}"
        path = f"M{x1:.1f} {y1:.1f}C{handles} {x2:.1f} {y2:.1f}"
        about = f"{edge.prerequisite} → {edge.dependent}: {edge.value:.2f} ({edge.estimator})"
        drawn.append(
            element(
                "path",
                element("title", about),
                d=path,
                class_=f"edge {edge.estimator}",
                stroke_width=1 + 3 * edge.value,
                marker_end="url(#arrow)",
            )
        )
    for module, (left, middle) in places.items():
        category, _, name = module.partition("/")
        state = "target" if module in targets else "deficient" if module in deficient else ""
        drawn.append(
            element(
                "g",
                element("title", module),
                element(
                    "rect",
                    x=left,
                    y=middle - NODE[1] / 2,
                    width=NODE[0],
                    height=NODE[1],
                    rx=6,
                    class_=f"node {state}".strip(),
                ),
                _text(left + 8, middle - 5, _short(category, 26), "small", "start"),
                _text(left + 8, middle + 12, _short(name, 24), None, "start"),
            )
        )
    width = 12 + (len(layers) - 1) * column + NODE[0]
    return _svg(title, width, height, drawn)


def _layers(graph: DependencyGraph) -> list[list[str]]:
    """Modules with edges by generation, each in the order of what it is joined with before."""
    joined = graph.digraph.edge_subgraph(graph.digraph.edges)
    layers: list[list[str]] = []
    places: dict[str, float] = {}

    def wish(module: str) -> tuple[float, str]:
        before = [places[other] for other in joined.predecessors(module)]
        return (math.fsum(before) / len(before) if before else 0.0, module)

    for generation in nx.topological_generations(joined):
        layers.append(sorted(generation, key=wish))
        places |= {m: (i + 0.5) / len(layers[-1]) for i, m in enumerate(layers[-1])}
    return layers


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers from `low` to `high`."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= raw)
    first = math.ceil(low / step - 1e-9)
    found = itertools.takewhile(
        lambda value: value <= high + step * 1e-9,
        (round(n * step, 10) for n in itertools.count(first)),
    )
    return list(found)


def _short(text: str, limit: int = LABEL_CHARACTERS) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _svg(title: str, width: Number, height: Number, drawn: Sequence[Html]) -> Html:
    return element(
        "svg",
        element("title", title),
        *drawn,
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=width,
        height=height,
        role="img",
        aria_label=title,
    )


def _line(x1: Number, y1: Number, x2: Number, y2: Number, kind: str) -> Html:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def _rect(x: Number, y: Number, width: Number, height: Number, kind: str) -> Html:
    return element("rect", x=x, y=y, width=width, height=height, class_=kind)


def _text(x: Number, y: Number, text: str, kind: str | None, anchor: str) -> Html:
    return element("text", text, x=x, y=y, class_=kind, text_anchor=anchor)


def _label(x: Number, y: Number, text: str, anchor: str, limit: int = LABEL_CHARACTERS) -> Html:
    """A text that is cut where it is long, and whole where it is pointed at."""
    return element(
        "text", _short(text, limit), element("title", text), x=x, y=y, text_anchor=anchor
    )
