"""Sphinx builds these pages: `tox -e docs`."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
import textwrap
import typing
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from pydantic import BaseModel

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
# jaxtyping then shows `Float[Array, "B T"]` as it is written. Before anything imports it.
typing.GENERATING_DOCUMENTATION = True

os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

import generated

project = "ioa-jax"
author = copyright = "The IOA-JAX authors"
version = release = importlib.metadata.version("ioa-jax")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["dollarmath", "deflist", "fieldlist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.strikethrough"]

# Docstrings write code in single backticks, as Markdown does.
default_role = "code"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
smartquotes = False
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"ioa-jax {version}"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["static"]
html_css_files = ["pages.css"]

GENERATED = re.compile(r"^<!-- generated: (\w+)(?: ([\w.-]+))? -->$", re.MULTILINE)
# What reStructuredText reads as markup, where a docstring means itself.
LITERAL = re.compile(r"``.*?``|`[^`]*`|\\.|[|*]|(?<=\w)_(?=\W|$)", re.DOTALL)
# Lines with columns, such as a list of files and what is in them.
COLUMNS = re.compile(r"^\S+(?: \S+)*  +\S", re.MULTILINE)
# What a page would load from somewhere else.
EXTERNAL = re.compile(
    r"""<(?:script|link|img|iframe)\b[^>]*(?:src|href)=["'](?:https?:)?//[^>]*>"""
)


def fill_in(app: Any, docname: str, source: list[str]) -> None:
    """Put generated text into a page, where its comments name it."""
    source[0] = GENERATED.sub(lambda found: generated.text(found[1], found[2]), source[0])


def escape(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Keep the signs of a docstring's prose from being markup, and its columns in place."""
    paragraphs = "\n".join(lines).split("\n\n")
    for place, paragraph in enumerate(paragraphs):
        if COLUMNS.search(paragraph):
            paragraphs[place] = "::\n\n" + textwrap.indent(paragraph, "    ")
        else:
            paragraphs[place] = LITERAL.sub(
                lambda found: found[0] if found[0][0] in "`\\" else "\\" + found[0], paragraph
            )
            # A plural of code, such as `Fault`s.
            paragraphs[place] = re.sub(r"(`[^`\n]+`)(?=\w)", r"\1\\ ", paragraphs[place])
    lines[:] = "\n\n".join(paragraphs).split("\n")


def shorten(
    app: Any, what: str, name: str, thing: Any, options: Any, signature: str, returned: str
) -> tuple[str, str | None] | None:
    """Leave out the signature of a record that pydantic checks: its fields are listed below it."""
    if what == "class" and issubclass(thing, BaseModel):
        return "", None
    # JAX's arrays by their public name.
    plain = [text and text.replace("jaxlib._jax.Array", "Array") for text in (signature, returned)]
    return plain[0], plain[1]


def write_formula(self: Any, node: nodes.Node) -> None:
    """A formula as MathML, which browsers show without a script."""
    is_block = isinstance(node, nodes.math_block)
    mathml = tex2mathml(node.astext(), as_block=is_block)
    self.body.append(f'<div class="formula">{mathml}</div>' if is_block else mathml)
    raise nodes.SkipNode


def set_dashes(app: Any, doctree: nodes.document) -> None:
    """A dash between a parameter's name and what it is, where Sphinx writes two hyphens."""
    for node in list(doctree.findall(nodes.Text)):
        if node.astext() == " -- ":
            node.parent.replace(node, nodes.Text(" \u2013 "))


def check_pages(app: Any, error: Exception | None) -> None:
    """See that the pages need no network.

    Raises:
        RuntimeError: One does.
    """
    if error is not None or app.builder.format != "html":
        return
    for page in sorted(Path(app.outdir).rglob("*.html")):
        found = EXTERNAL.search(page.read_text(encoding="utf-8"))
        if found is not None:
            raise RuntimeError(f"{page} loads from the network: {found[0]}")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", fill_in)
    # Before napoleon, whose sections it would take for prose.
    app.connect("autodoc-process-docstring", escape, priority=400)
    app.connect("autodoc-process-signature", shorten)
    app.add_html_math_renderer("mathml", (write_formula, None), (write_formula, None))
    app.connect("doctree-read", set_dashes)
    app.connect("build-finished", check_pages)


html_math_renderer = "mathml"
