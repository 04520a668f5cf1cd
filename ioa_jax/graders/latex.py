r"""Answers in LaTeX: where they stand in a text, and one way to write each of them.

Fonts, sizes, spaces, delimiters and a full stop at the end say nothing of a value. All of this is
linear in a text's length, but for braces in braces.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# A command, an escaped character, a brace; what begins a box first. Two backslashes before "boxed"
# are an escape too many, as in JSON, and elsewhere a line break.
_TOKEN = re.compile(r"\\{1,2}(?:boxed|fbox)\s{0,9}\{|\\.|[{}]", re.DOTALL)
_BOX_START = re.compile(r"\\{1,2}(?:boxed|fbox)\s{0,9}\{")
_BARE_BOX = re.compile(r"\\boxed[ \t]{1,9}(-?\d[\d.,]*\d|-?\d|[A-Za-z])")

_CHARACTERS = str.maketrans(
    {
        "\ufeff": "",
        "\u200b": "",
        **dict.fromkeys("\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f", " "),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-"),
        **dict.fromkeys("\u00b7\u00d7\u22c5\u2217", r"\cdot "),
        **dict.fromkeys("\u00b0\u00ba", r"^\circ "),
        **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
        "\uff0c": ",",
        "\u3002": ".",
        "\uff0e": ".",
        "\uff1a": ":",
        "\uff1b": ";",
        "\uff08": "(",
        "\uff09": ")",
        "\u00f7": "/",
        "\u03c0": r"\pi ",
        "\u221a": r"\sqrt ",
        "\u221e": r"\infty ",
        "\u2264": r"\le ",
        "\u2265": r"\ge ",
        "\u2260": r"\ne ",
        "\u2248": r"\approx ",
        "\u00b1": r"\pm ",
        "\u222a": r"\cup ",
        "\u2208": r"\in ",
        "\u2205": r"\emptyset ",
        "\u211d": r"\mathbb{R}",
        "\u00b2": "^2",
        "\u00b3": "^3",
        "\u00bd": r"\frac{1}{2}",
        "\u00bc": r"\frac{1}{4}",
        "\u00be": r"\frac{3}{4}",
    }
)

_SIZES = (
    "tiny|scriptsize|footnotesize|small|normalsize|large|Large|LARGE|huge|Huge|displaystyle|"
    "textstyle|scriptstyle|bf|rm|it|sf|tt|bfseries|itshape|limits|nolimits|centering|"
    "[bB]igg?[lrm]?|left|right|middle"
)
_DROPPED = re.compile(
    rf"\\(?:{_SIZES})(?![A-Za-z])(?:(?<=left)\s*\.|(?<=right)\s*\.)?"
    r"|\\[()\[\]](?![A-Za-z])|(?<!\\)\$|\\(?:text)?color\s*\{[^{}]*\}"
    r"|\\[hv]?phantom\s*(?:\{[^{}]*\}|[^\s\\])"
)
_SPACE = re.compile(
    r"(?<!\\)(?:\\\\)*(?:\\[,;:> ]|~|\\(?:q?quad|thinspace|enspace|,)(?![A-Za-z])|"
    r"\\[hv]space\*?\{[^{}]*\})"
)
_FONT = re.compile(
    r"\\(text(?:bf|it|rm|sf|tt|sc|sl|up|md|normal)?|mbox|hbox|emph|underline|ensuremath|"
    r"math(?:bf|rm|it|sf|tt|normal)|boldsymbol|bm|bold|pmb)\s*\{"
)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_FRACTION = re.compile(r"\\[dtc]?frac(?![A-Za-z])\s*")
_FRACTION_PARTS = re.compile(
    r"\\frac\s*(?:\{([^{}]*)\}|([0-9A-Za-z]|\\[a-z]+))\s*(?:\{([^{}]*)\}|(\d|\\[a-z]+))"
)
_SEPARATED = re.compile(r"(?<=\d)(?:,?\\!|\{,\}|,\\[,;: ])\s*(?=\d{3}(?!\d))")
_SPACED = re.compile(r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d])")
_MIXED = re.compile(
    r"(?<![\d.^_A-Za-z/)}])(?<!\^\{)(?<!_\{)(\d+)(?: ?\\frac\{(\d+)\}\{(\d+)\}| (\d+)/(\d+)(?!\d))"
)
_ORDINAL = re.compile(
    r"(?<=\d)\s*(?:\^\s*)?(?:\{\s*\\text\{\s*(?:st|nd|rd|th)\s*\}\s*\}|\\text\{\s*(?:st|nd|rd|th)\s*\})"
)
_END = re.compile(r"(?:\\\\|\\?[.,;:]|\s)+\Z")
_PERCENT = re.compile(r"\\?%")
_ALIASES = (
    (r"\infinity", r"\infty"), (r"\degree", r"^\circ"), (r"\varnothing", r"\emptyset"),
    ("<=", r"\le "), (">=", r"\ge "), ("!=", r"\ne "),
)  # fmt: skip

MAX_DEPTH = 50


class Box(NamedTuple):
    """A box with something in it.

    Attributes:
        start: Where its command begins.
        end: Where its brace is closed.
        content: What it holds, without spaces around.
    """

    start: int
    end: int
    content: str


def boxes(text: str) -> list[Box]:
    r"""The complete `\boxed{...}` and `\fbox{...}` in a text, in order; of nested ones the inner.

    Of `\boxed 7`, too.
    """
    found: list[Box] = []
    # Of each open brace: where its box begins and its content, and how many boxes came before.
    stack: list[tuple[int, int, int] | None] = []
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token == "{":
            stack.append(None)
        elif token == "}":
            opened = stack.pop() if stack else None
            if opened is None:
                continue
            start, begin, before = opened
            content = text[begin : match.start()].strip()
            if content and len(found) == before:
                found.append(Box(start, match.start(), content))
        elif _BOX_START.fullmatch(token):
            stack.append((match.start(), match.end(), len(found)))
    bare = [Box(m.start(), m.end(), m[1]) for m in _BARE_BOX.finditer(text)]
    return sorted([*found, *bare]) if bare else found


def last_boxed(text: str) -> str | None:
    r"""What the last complete `\boxed{...}` that isn't empty holds, None if there is none."""
    found = boxes(text)
    return found[-1].content if found else None


def plain(latex: str) -> str:
    r"""An answer in one way to write it, for a parser.

    Words stay in `\text{...}`; numbers and signs come out of it, as of other fonts. Thousands are
    no longer set apart (but by a comma alone, which may separate answers). A mixed number is a sum.
    """
    latex = _PERCENT.sub("", latex.translate(_CHARACTERS))
    latex = _SEPARATED.sub("", latex)
    latex = _DROPPED.sub("", latex).replace("\\!", "")
    latex = _ORDINAL.sub("", _unwrapped(_SPACE.sub(" ", latex)))
    latex = re.sub(r"\s+", " ", _FRACTION.sub(r"\\frac", latex))
    latex = _FRACTION_PARTS.sub(
        lambda m: rf"\frac{{{m[1] if m[2] is None else m[2]}}}{{{m[3] if m[4] is None else m[4]}}}",
        latex,
    )
    latex = re.sub(r"\*\*", "^", latex).replace("*", r"\cdot ")
    latex = re.sub(r"(?<![\\A-Za-z])(pi|theta|infinity|infty)(?![A-Za-z])", r"\\\1 ", latex)
    for command, same in _ALIASES:
        latex = latex.replace(command, same)
    latex = re.sub(r"\\(?:leqslant|leq)(?![A-Za-z])", r"\\le", latex)
    latex = re.sub(r"\\(?:geqslant|geq)(?![A-Za-z])", r"\\ge", latex)
    latex = re.sub(r"\\neq(?![A-Za-z])", r"\\ne", latex)
    latex = _SPACED.sub(lambda m: m[0].replace(" ", ""), latex)
    latex = _MIXED.sub(lambda m: rf"({m[1]}+\frac{{{m[2] or m[4]}}}{{{m[3] or m[5]}}})", latex)
    return bare(latex)


def bare(latex: str) -> str:
    """Without spaces, braces and punctuation around it."""
    while True:
        stripped = _END.sub("", latex).lstrip()
        if stripped.startswith("{") and closing(stripped, 0) == len(stripped) - 1:
            stripped = stripped[1:-1]
        if stripped == latex:
            return latex
        latex = stripped


def closing(latex: str, at: int) -> int:
    """Where the brace that is opened there is closed; -1 if it isn't."""
    depth = 0
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(latex, at):
        if match[0] in "{}":
            depth += 1 if match[0] == "{" else -1
            if depth == 0:
                return match.start()
    return -1


def _unwrapped(latex: str, depth: int = 0) -> str:
    r"""Fonts taken off; words are left in `\text{...}`, and "or" and "and" are no words."""
    parts: list[str] = []
    position = 0
    while depth < MAX_DEPTH and (match := _FONT.search(latex, position)):
        end = closing(latex, match.end() - 1)
        if end < 0:
            break
        content = _unwrapped(latex[match.end() : end], depth + 1)
        parts += [latex[position : match.start()], _inner(content)]
        position = end + 1
    return "".join([*parts, latex[position:]])


def _inner(content: str) -> str:
    joint = content.strip(" ,").lower()
    if joint == "or":
        return r" \lor "
    if joint == "and":
        return " , "
    # A letter after a space is a unit's, of which parsers would make a variable.
    if re.fullmatch(r" +[mgslhL]", content):
        return rf"\text{{{content}}}"
    # With signs of a formula in it, two letters are a product.
    if re.search(r"[=+^_\\]", content) or not _WORD.search(content):
        return content
    number = re.match(r"\s*[-+]?\\?\$?\d[\d.,]*\s*(?=[A-Za-z])", content)
    if number:
        return rf"{number[0]}\text{{{content[number.end() :]}}}"
    return rf"\text{{{content}}}"
