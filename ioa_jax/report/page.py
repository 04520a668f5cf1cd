"""One self-contained HTML page: nothing is loaded, light and dark, usable from a keyboard.

Every text is escaped, so that nothing that a model wrote is ever markup, and no script runs but the
page's own.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ioa_jax.report.draw import COLOURS, Plot

FOLDER = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph of its own kind; a plain string is one without.

    Attributes:
        text: What it says.
        kind: How it looks: a heading, what stands out, a remark, what is missing, or verbatim.
        name: For links; None for none.
    """

    block: ClassVar[str] = "text"
    text: str
    kind: Literal["plain", "heading", "strong", "note", "absent", "verbatim"] = "plain"
    name: str | None = None


@dataclasses.dataclass(frozen=True)
class View:
    """A table as it is read.

    Attributes:
        name: Short, for anchors.
        title: What it shows.
        header: The first column names the row; the others are figures.
        rows: As many cells each as the header.
        notes: What stands under it.
        marked: First cell of the rows that stand out.
    """

    block: ClassVar[str] = "view"
    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    marked: str | None = None

    @property
    def word_columns(self) -> set[int]:
        """Numbers of the columns, the first aside, whose cells begin with a letter."""
        return {
            column
            for column in range(1, len(self.header))
            if any(row[column][:1].isalpha() for row in self.rows)
        }


@dataclasses.dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    block: ClassVar[str] = "bullets"
    entries: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Names with their values: the main figures as cards, or many as a list."""

    block: ClassVar[str] = "pairs"
    entries: Sequence[tuple[str, str]]
    as_cards: bool = False


@dataclasses.dataclass(frozen=True)
class Details:
    """What is shown when it is asked for."""

    block: ClassVar[str] = "details"
    summary: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True)
class Columns:
    """Groups beside each other where there is room."""

    block: ClassVar[str] = "columns"
    groups: Sequence[Sequence[Block]]


Block = str | Text | View | Bullets | Pairs | Details | Columns | Plot


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        name: For links; letters, digits and hyphens.
        title: Heading.
        blocks: What is under it.
        short: What links to it say; default: the title.
    """

    name: str
    title: str
    blocks: Sequence[Block]
    short: str = ""


def render_page(title: str, subtitles: Sequence[str], sections: Iterable[Section]) -> str:
    """The page as one HTML text.

    Args:
        title: Of the page.
        subtitles: Lines under it.
        sections: In their order.
    """
    return (
        _environment()
        .get_template("page.html.j2")
        .render(title=title, subtitles=subtitles, sections=list(sections))
    )


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _cell
    environment.filters["picture"] = _picture
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Whatever a page has in it: nothing is loaded, and no other script runs.
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    style = _variables() + (FOLDER / "page.css").read_text(encoding="utf-8")
    page: dict[str, Any] = {"policy": policy, "style": Markup(style), "script": Markup(script)}
    environment.globals.update(page)
    return environment


def _picture(plot: Plot) -> Markup:
    return Markup(plot.inline())


def _cell(text: str) -> Markup:
    """A table's cell with its interval set apart."""
    return Markup(
        re.sub(r"(\[[^\]]*\])", r'<span class="interval">\1</span>', str(escape(text)), count=1)
    )


def _variables() -> str:
    """The colours of both themes, for pictures and text alike."""
    light, dark = (
        "".join(f"--{name}:{pair[i]};" for name, pair in COLOURS.items()) for i in (0, 1)
    )
    return (
        f":root{{color-scheme:light;{light}}}"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light])"
        f"{{color-scheme:dark;{dark}}}}}"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}\n"
    )
