"""Shapes of mathematical answers: lists, tuples, unions of intervals, conditions and matrices."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from ioa_jax.graders.latex import bare
from ioa_jax.graders.values import real_value

_MATRIX = re.compile(
    r"(.*?)[(\[]?\s*\\begin\{([pbB]?matrix|smallmatrix|array)\}(?:\{[^{}]*\})?(.*?)\\end\{\2\}\s*[)\]]?",
    re.DOTALL,
)
_RELATION = re.compile(r"\\(le|ge|ne|lt|gt)(?![A-Za-z])|[<>]")
_SIGNS = {"<": "<", ">": ">", "lt": "<", "gt": ">", "le": "<=", "ge": ">=", "ne": "!="}
_VARIABLE = re.compile(r"\\?[A-Za-z]+(?:_\{?\w+\}?|\([a-z]\))?")
_EQUALS = re.compile(r"(?<![<>!\\])=")
_REALS = (r"\mathbb{R}", r"\mathbb R", r"\Bbb{R}")
_REALS_IN_WORDS = re.compile(
    r"(?:\\text\{)?\s*(?:(?:all|any)\s+)?real(?:s|\s+numbers?)\s*\}?", re.IGNORECASE
)
_RATIO = re.compile(r"(?<=\d)\s*\\text\{\s*to\s*\}\s*(?=\d)")
# With square brackets turned outwards where an end is open, as by ISO 80000-2.
_OUTWARDS = re.compile(r"([\[\]])(\s*[^\[\](),\s][^\[\](),]*,\s*[^\[\](),\s][^\[\](),]*)([\[\]])")
_SET_OF = re.compile(
    rf"\\\{{\s*(?:{_VARIABLE.pattern})(?:\s*\\in\s*(?:\\mathbb\s*\{{?R\}}?|\\Bbb\{{R\}}))?"
    r"\s*(?:\\mid(?![a-z])|\\colon(?![a-z])|\\[lr]?vert(?![a-z])|[|:])\s*(.*)\\\}",
    re.DOTALL,
)


class Tuple(NamedTuple):
    """Elements in brackets: a point, a vector or an interval."""

    opens: str
    elements: tuple[str, ...]
    closes: str


class Inequality(NamedTuple):
    """A condition on one variable, as the intervals where it holds."""

    variable: str
    intervals: tuple[Tuple, ...]


def in_signs(latex: str) -> str:
    """With signs for the words that have one."""
    return _REALS[0] if _REALS_IN_WORDS.fullmatch(latex) else _RATIO.sub(":", latex)


def _split(latex: str, separators: str) -> list[str]:
    """Parts between separators that stand in no bracket."""
    parts: list[str] = []
    depth, begin = 0, 0
    for match in re.finditer(rf"\\begin|\\end|\\[{{}}]|{separators}|[(\[{{)\]}}]", latex):
        token = match[0]
        if token in (r"\begin", r"\{") or token in "([{":
            depth += 1
        elif token in (r"\end", r"\}") or token in ")]}":
            depth = max(0, depth - 1)
        elif depth == 0:
            parts.append(latex[begin : match.start()])
            begin = match.end()
    return [*parts, latex[begin:]]


def split_elements(latex: str) -> list[str]:
    """Of a list or a set, each; of anything else, itself."""
    latex = bare(latex)
    inner = latex
    if latex.startswith(r"\{") and latex.endswith(r"\}"):
        inner = latex[2:-2]
    elif has_equals(latex) and "," not in latex.split("=")[0]:
        right = right_side(latex)
        if right.startswith(r"\{") and right.endswith(r"\}"):
            inner = right[2:-2]
    parts = [
        bare(part)
        for part in _split(inner, r"[,;]|\\lor(?![a-z])|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])")
    ]
    parts = [part for part in parts if part]
    return [signed for part in parts for signed in _signs(part)] or [latex]


def _signs(latex: str) -> list[str]:
    r"""Both values of `\pm`."""
    if not re.search(r"\\(?:pm|mp)(?![a-z])", latex) or _RELATION.search(latex):
        return [latex]
    upper = re.sub(r"\\pm(?![a-z])", "+", re.sub(r"\\mp(?![a-z])", "-", latex))
    lower = re.sub(r"\\pm(?![a-z])", "-", re.sub(r"\\mp(?![a-z])", "+", latex))
    return [bare(one).removeprefix("+") for one in (upper, lower)]


def _tuple(latex: str) -> Tuple | None:
    latex = bare(latex)
    if len(latex) < 2 or latex[0] not in "([" or latex[-1] not in ")]":
        return None
    depth = 0
    for i, character in enumerate(latex):
        depth += (character in "([") - (character in ")]")
        if depth == 0 and i < len(latex) - 1:
            return None
    parts = [bare(part) for part in _split(latex[1:-1], "[,;]")]
    if len(parts) < 2 or not all(parts):
        return None
    return Tuple(latex[0], tuple(parts), latex[-1])


def is_tuple(latex: str) -> bool:
    """Whether it is several elements in one pair of brackets."""
    return _tuple(latex) is not None


def read_intervals(latex: str) -> tuple[Tuple, ...]:
    """Tuples that are joined to one set, or a condition's intervals; empty if it is neither."""
    latex = bare(re.sub(r"^\s*\\?[A-Za-z]\w*\s*\\in(?![a-z])", "", latex))
    for reals in _REALS:
        if latex == reals:
            return (Tuple("(", (r"-\infty", r"\infty"), ")"),)
        without = re.fullmatch(
            re.escape(reals) + r"\s*(?:\\setminus|\\backslash|-|/)\s*(.*)", latex
        )
        if without:
            return _all_but(split_elements(without[1]))
    condition = read_condition(latex)
    if condition is not None:
        return condition.intervals
    latex = _OUTWARDS.sub(_inwards, latex)
    found: list[Tuple] = []
    for part in _split(latex, r"\\cup(?![a-z])|(?<=[)\]])\s*U\s*(?=[(\[])"):
        one = _tuple(part)
        if one is None:
            return ()
        found.append(one)
    return tuple(found)


def _inwards(interval: re.Match[str]) -> str:
    opens, closes = "(" if interval[1] == "]" else "[", ")" if interval[3] == "[" else "]"
    return f"{opens}{interval[2]}{closes}"


def _all_but(points: Sequence[str]) -> tuple[Tuple, ...]:
    values = [(real_value(point), point) for point in points]
    if any(value is None for value, _ in values):
        return ()
    ordered = [point for _, point in sorted(values, key=lambda pair: float(pair[0] or 0))]
    ends = [r"-\infty", *ordered, r"\infty"]
    return tuple(Tuple("(", (low, high), ")") for low, high in itertools.pairwise(ends))


def read_condition(latex: str) -> Inequality | None:
    r"""An inequality in one variable, or several of them that are joined by "or".

    Also as the set of what fulfils it.
    """
    built = _SET_OF.fullmatch(bare(latex))
    if built:
        latex = bare(built[1])
    if not _RELATION.search(latex) or r"\begin" in latex:
        return None
    excluded = re.fullmatch(rf"\s*({_VARIABLE.pattern})\s*\\ne(?![a-z])(.*)", latex, re.DOTALL)
    if excluded:
        points = [
            re.sub(rf"^{re.escape(excluded[1])}\s*\\ne", "", one)
            for one in split_elements(excluded[2])
        ]
        intervals = _all_but([bare(point) for point in points])
        return Inequality(excluded[1], intervals) if intervals else None
    found: list[Tuple] = []
    variables: set[str] = set()
    for part in _split(latex, r"\\lor(?![a-z])|(?<![A-Za-z\\])or(?![A-Za-z])|\\cup(?![a-z])"):
        one = _simple_condition(bare(part)) or _between(bare(part))
        if one is None:
            return None
        variables.add(one.variable)
        found += one.intervals
    return Inequality(variables.pop(), tuple(found)) if len(variables) == 1 else None


def _between(latex: str) -> Inequality | None:
    r"""Two inequalities that a value has to fulfil both, such as `x > 1, x < 2`."""
    parts = _split(latex, r"[,;]|\\(?:land|wedge)(?![a-z])|(?<![A-Za-z\\])and(?![A-Za-z])")
    sides = [_simple_condition(bare(part)) for part in parts]
    if len(sides) != 2 or sides[0] is None or sides[1] is None:
        return None
    if sides[0].variable != sides[1].variable:
        return None
    ((one,), (other,)) = sides[0].intervals, sides[1].intervals
    low, high = (one, other) if other.elements[0] == r"-\infty" else (other, one)
    if (low.elements[1], high.elements[0]) != (r"\infty", r"-\infty"):
        return None
    ends = [real_value(low.elements[0]), real_value(high.elements[1])]
    # Otherwise nothing fulfils both, and either is meant.
    if any(end is None for end in ends) or not ends[0] < ends[1]:
        return None
    both = Tuple(low.opens, (low.elements[0], high.elements[1]), high.closes)
    return Inequality(sides[0].variable, (both,))


def _simple_condition(latex: str) -> Inequality | None:
    sides = [bare(one) for one in _RELATION.split(latex)[::2]]
    signs = [_SIGNS[match[1] or match[0]] for match in _RELATION.finditer(latex)]
    if "!=" in signs or not all(sides) or any("," in side for side in sides):
        return None
    if len(signs) == 1 and _VARIABLE.fullmatch(sides[1]) and not _VARIABLE.fullmatch(sides[0]):
        sides.reverse()
        signs = [signs[0].translate(str.maketrans("<>", "><"))]
    if len(signs) == 1 and _VARIABLE.fullmatch(sides[0]):
        closed = signs[0].endswith("=")
        if signs[0].startswith("<"):
            interval = Tuple("(", (r"-\infty", sides[1]), "]" if closed else ")")
        else:
            interval = Tuple("[" if closed else "(", (sides[1], r"\infty"), ")")
        return Inequality(sides[0], (interval,))
    if len(signs) != 2 or not _VARIABLE.fullmatch(sides[1]) or signs[0][0] != signs[1][0]:
        return None
    if signs[0].startswith(">"):
        sides.reverse()
        signs.reverse()
    opens, closes = ("[" if "=" in signs[0] else "("), ("]" if "=" in signs[1] else ")")
    return Inequality(sides[1], (Tuple(opens, (sides[0], sides[2]), closes),))


def read_matrix(latex: str) -> list[list[str]] | None:
    """A matrix's entries, with the factor before it; None if it is none."""
    match = _MATRIX.fullmatch(bare(latex))
    if not match or r"\begin" in match[3]:
        return None
    factor = bare(match[1]).removesuffix(r"\cdot").strip()
    if re.search(r"[-+]$", factor):
        factor += "1"
    rows = [
        [bare(entry) for entry in row.split("&")]
        for row in re.split(r"\\\\(?:\[[^\]]*\])?", bare(match[3]))
        if row.strip(" \t\n") and row.strip() != r"\hline"
    ]
    if factor:
        rows = [[rf"({factor})\cdot({entry})" for entry in row] for row in rows]
    return rows


def has_equals(latex: str) -> bool:
    """Whether it has an equals sign that isn't a part of a relation."""
    return _EQUALS.search(latex) is not None


def right_side(latex: str) -> str:
    """What stands after the last equals sign."""
    return bare(_EQUALS.split(latex)[-1])


def assigned(latex: str) -> str | None:
    """The value of `x = 2`, where the left side is a name."""
    sides = _EQUALS.split(latex)
    return bare(sides[-1]) if _VARIABLE.fullmatch(bare(sides[0])) else None
