"""How figures are drawn: the same SVG for the same values, and one palette, light and dark."""

from __future__ import annotations

import dataclasses
import io
import re
import warnings
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Light colour and dark colour by the name of the page's variable. In a file of its own a figure has
# the light ones; on the page they are variables.
COLOURS = {
    "paper": ("#fefeff", "#12151c"),
    "panel": ("#f5f6f9", "#1b202a"),
    "mark": ("#e8f0fd", "#1c2c47"),
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
# The smallest text of a figure, in points, and the pixels below which it may not shrink.
SMALLEST, READABLE = 9.0, 11.0
PIXELS_PER_POINT = 4 / 3

_SETTINGS: Any = {
    "svg.fonttype": "none",
    # What stands between dollars in a name isn't a formula.
    "text.parse_math": False,
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
    "legend.fontsize": SMALLEST,
    "grid.color": LIGHT["line"],
}
# Characters that no XML may hold.
_CONTROL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclasses.dataclass(frozen=True)
class Plot:
    """A figure.

    Attributes:
        name: Its file's, without ending; letters, digits and hyphens.
        title: What it shows.
        text: What there is to see and how it was made.
        svg: The picture; None where an input is missing, and then `text` says which.
    """

    block: ClassVar[str] = "plot"
    name: str
    title: str
    text: str
    svg: str | None

    def inline(self) -> str:
        """The picture as a part of a page.

        Its colours are the page's variables, it has a name for those who don't see it, and no ids
        but those that it refers to.
        """
        assert self.svg is not None
        svg = self.svg[self.svg.index("<svg") :]
        svg = re.sub("<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
        for name, light in LIGHT.items():
            svg = svg.replace(light, f"var(--{name})")
        used = set(re.findall(r"#([\w-]+)", svg))
        svg = re.sub(r' id="([^"]*)"', lambda id_: id_[0] if id_[1] in used else "", svg)
        # It shrinks with the window as far as its smallest text can be read, and then scrolls.
        points = re.search(r'width="([\d.]+)pt"', svg)
        width = PIXELS_PER_POINT * float(points[1]) if points else 800
        least = width * READABLE / (PIXELS_PER_POINT * SMALLEST)
        svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
        name = escape(_CONTROL.sub("\ufffd", self.title))
        style = f'style="min-width:{least:.0f}px;max-width:{width:.0f}px"'
        return svg.replace("<svg", f'<svg role="img" aria-label="{name}" {style}', 1).strip()


def draw_plot(
    name: str, title: str, text: str, size: tuple[float, float], draw: Callable[[Figure], object]
) -> Plot:
    """Draw a figure.

    Args:
        name: As in `Plot`.
        title: As there.
        text: As there.
        size: Width and height in inches.
        draw: Called with the empty figure.
    """
    # Here and not above, as commands that draw nothing needn't wait for it.
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    file = io.StringIO()
    # The salt makes the ids of clip paths repeat; one a figure keeps those of a page apart.
    with rc_context({**_SETTINGS, "svg.hashsalt": name}), warnings.catch_warnings():
        # The reader's own fonts show the text, which may have more than the one it is measured by.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0)
        draw(figure)
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    svg = _CONTROL.sub("\ufffd", file.getvalue())
    return Plot(name, title, text, re.sub(r"[ \t]+\n", "\n", svg))


def shorten(text: str, most: int = 44) -> str:
    """A name, cut where it would leave a figure no room."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def series_look(number: int) -> dict[str, str]:
    """Colour and style of a line: the first six differ in colour, the next in style too."""
    colour, style = SERIES[number % len(SERIES)], STYLES[number // len(SERIES) % len(STYLES)]
    return {"color": LIGHT[colour], "linestyle": style}
