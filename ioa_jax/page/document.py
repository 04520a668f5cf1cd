"""One self-contained HTML page: no script, no external resource, light and dark.

Every text that isn't `Html` is escaped, so that nothing that a model wrote is ever markup.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence

_VOID = ("br", "col", "hr", "img", "link", "meta")

# Nothing may be loaded, whatever a page has in it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_STYLE = """
:root {
  color-scheme: light dark;
  --back: #ffffff; --ink: #1c2024; --soft: #5b6470; --line: #d5dae0; --panel: #f4f6f8;
  --main: #2563a8; --second: #b4540a; --good: #1d7a4f; --bad: #b3261e; --focus: #7b3fe4;
  --c0: #2563a8; --c1: #b4540a; --c2: #1d7a4f; --c3: #8a3fa0; --c4: #93690b; --c5: #0f7b83;
  --c6: #b3261e; --c7: #5b6470;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #15181c; --ink: #e6e9ed; --soft: #9aa4b0; --line: #363d46; --panel: #1e2329;
    --main: #7db2f0; --second: #f0a35e; --good: #63c795; --bad: #f28b82; --focus: #c4a1ff;
    --c0: #7db2f0; --c1: #f0a35e; --c2: #63c795; --c3: #d59be6; --c4: #dcb85c; --c5: #66cbd3;
    --c6: #f28b82; --c7: #9aa4b0;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
main, header, nav { max-width: 72rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 .5rem; border-bottom: 1px solid var(--line); }
p { margin: .5rem 0; max-width: 60rem; }
.soft { color: var(--soft); }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .25rem 1rem; padding: 0; }
a { color: var(--main); }
a:focus-visible, summary:focus-visible, .scroll:focus-visible {
  outline: 3px solid var(--focus); outline-offset: 2px; }
.skip { position: absolute; left: -100rem; }
.skip:focus { left: 1rem; top: .5rem; background: var(--back); padding: .25rem .5rem; }
.scroll { overflow-x: auto; }
.panels { display: flex; flex-wrap: wrap; gap: 1rem; }
.panels figure { flex: 0 1 29rem; }
figure { margin: .5rem 0; }
figcaption { color: var(--soft); font-size: .9rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; }
th:first-child, td:first-child, .text { text-align: left; }
thead th { border-bottom: 2px solid var(--line); }
tbody th { white-space: nowrap; }
details { margin: .5rem 0; }
summary { cursor: pointer; }
pre { background: var(--panel); padding: .6rem; margin: .25rem 0; white-space: pre-wrap;
  overflow-wrap: anywhere; font-size: .85rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem; }
svg { max-width: 100%; height: auto; display: block; }
@media (max-width: 40rem) { .scroll svg { max-width: none; } }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .small { font-size: 11px; fill: var(--soft); }
svg .axis { stroke: var(--line); stroke-width: 1; }
svg .mark { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 4 3; }
svg .whisker { stroke: var(--ink); stroke-width: 1.5; fill: none; }
svg .main { fill: var(--main); } svg .second { fill: var(--second); }
svg .good { fill: var(--good); } svg .bad { fill: var(--bad); } svg .plain { fill: var(--c7); }
svg .node { fill: var(--panel); stroke: var(--soft); }
svg .node.target { stroke: var(--bad); stroke-width: 2.5; }
svg .node.deficient { stroke: var(--second); stroke-width: 2; }
svg .edge { stroke: var(--soft); fill: none; }
svg .quantile { stroke-dasharray: 6 3; } svg .prior { stroke-dasharray: 2 3; }
svg .head { fill: var(--soft); }
"""


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page with a heading of its own.

    Attributes:
        name: For links; letters, digits and hyphens.
        title: Heading.
        body: What is under it.
    """

    name: str
    title: str
    body: Html


def element(name: str, /, *children: str, **attributes: str | int | float | None) -> Html:
    """An HTML or SVG element; children that aren't `Html` and attributes are escaped.

    Args:
        name: Of the element.
        children: Its content.
        attributes: By name; `_` stands for `-`, and one at the end is dropped (`class_`). Without
            those that are None.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def join(parts: Sequence[str]) -> Html:
    """Parts one after another; those that aren't `Html` are escaped."""
    return Html("".join(p if isinstance(p, Html) else html.escape(p) for p in parts))


def _plain(value: str | int | float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> Html:
    """A table that scrolls sideways, by keyboard too, where it is wider than the page.

    Args:
        head: Column names; the first column names the row.
        rows: Cells.
        caption: What the table has, for those who can't see it.
    """
    # Columns of words stand at the left, those of figures at the right.
    classes = [
        "text" if any(row[column][:1].isalpha() for row in rows) else None
        for column in range(len(head))
    ]
    body = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(
                element("td", cell, class_=class_)
                for cell, class_ in zip(row[1:], classes[1:], strict=True)
            ),
        )
        for row in rows
    ]
    names = (
        element("th", name, scope="col", class_=class_)
        for name, class_ in zip(head, classes, strict=True)
    )
    return element(
        "div",
        element(
            "table",
            element("thead", element("tr", *names)),
            element("tbody", *body),
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def render_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The page as one HTML text.

    Args:
        title: Of the page.
        subtitle: A line under it.
        sections: In their order.
    """
    links = [
        element("li", element("a", section.title, href=f"#{section.name}")) for section in sections
    ]
    parts = [
        element("section", element("h2", section.title), section.body, id=section.name)
        for section in sections
    ]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", title),
        element("link", rel="icon", href="data:,"),
        element("style", Html(_STYLE)),
    )
    body = element(
        "body",
        element("a", "Skip to the content", href="#content", class_="skip"),
        element("header", element("h1", title), element("p", subtitle, class_="soft")),
        element("nav", element("ul", *links), aria_label="Sections"),
        element("main", *parts, id="content"),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"
