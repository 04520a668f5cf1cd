"""How figures are drawn: the same SVG for the same run, light and dark by the colours' names."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Light colour and dark colour by the name of the page's variable. In a file of its own a figure has
# the light ones; on the page they are variables.
COLOURS = {
    "paper": ("#fefeff", "#12151c"),
    "ink": ("#1c2330", "#e8eaf0"),
    "soft": ("#626b7c", "#a2abbc"),
    "line": ("#d5d9e2", "#39404f"),
    "blue": ("#1d5fd0", "#7db0ff"),
    "orange": ("#b4530a", "#f2a34e"),
    "green": ("#16803c", "#5fd38d"),
    "purple": ("#7d3bec", "#b99dff"),
    "red": ("#c81e3c", "#ff8398"),
    "teal": ("#0f756d", "#50d0c4"),
    "brown": ("#7a5131", "#cfa37c"),
}
LIGHT = {name: light for name, (light, _) in COLOURS.items()}
SERIES = ("orange", "green", "purple", "red", "teal", "brown")
STYLES = ("-", "--", ":", "-.")

SETTINGS: Any = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": LIGHT["ink"],
    "axes.edgecolor": LIGHT["line"],
    "axes.labelcolor": LIGHT["soft"],
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": LIGHT["soft"],
    "ytick.color": LIGHT["soft"],
    "legend.frameon": False,
    "grid.color": LIGHT["line"],
}


@dataclasses.dataclass(frozen=True)
class Plot:
    """A figure.

    Attributes:
        name: Its file's, without ending.
        title: What it shows.
        text: What there is to see and how it was made.
        svg: The picture; None where an input is missing, and then `text` says which.
    """

    name: str
    title: str
    text: str
    svg: str | None


def for_page(svg: str, title: str) -> str:
    """The picture as a part of a page: its colours are the page's variables, it has a name for
    those who don't see it, and no ids but those that it refers to.
    """
    svg = svg[svg.index("<svg") :]
    for name, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var(--{name})")
    svg = re.sub(r' id="([^"]*)"', lambda id_: id_[0] if f"#{id_[1]}" in svg else "", svg)
    # Fixed sizes would keep it from fitting a narrow window; a point is 4/3 of a page's pixel.
    sizes = re.search(r'width="([\d.]+)pt"', svg)
    width = float(sizes[1]) * 4 / 3 if sizes else 800
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    name = f'role="img" aria-label="{escape(title)}" style="max-width:{width:.0f}px"'
    return svg.replace("<svg", f"<svg {name}", 1)


def draw_plot(
    name: str, title: str, text: str, size: tuple[float, float], draw: Callable[[Figure], None]
) -> Plot:
    """Draw a figure.

    Args:
        name: As in `Plot`.
        title: As there.
        text: As there.
        size: Width and height in inches.
        draw: Called with the empty figure.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    file = io.StringIO()
    # The salt makes the ids of clip paths repeat; one a figure keeps those of a page apart.
    with rc_context({**SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0)
        draw(figure)
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    return Plot(name, title, text, re.sub(r"[ \t]+\n", "\n", file.getvalue()))
