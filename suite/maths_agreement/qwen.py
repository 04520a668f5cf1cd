r"""The rules of Qwen2.5-Math's evaluation for MATH, written anew from their description.

Yang et al., "Qwen2.5-Math Technical Report" (2024), and github.com/QwenLM/Qwen2.5-Math, folder
`evaluation`: its extraction, its normal form (`strip_string`) and its comparison (`math_equal`). As
short as they can be put. Left out are: numbers in words, units of several words, and the conversion
of sets in braces to matrices; `latex2sympy` is that of `latex2sympy2_extended`.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable
from math import isclose
from typing import Any

import sympy
from latex2sympy2_extended import latex2sympy
from sympy.parsing.latex import parse_latex
from sympy.parsing.sympy_parser import parse_expr

_TOLERANCE = 1e-4
_UNITS = (
    "east|degree|mph|kmph|ft|deg|mile|monkey|prime|ratio|rd|o|gm|lb|tile|per|dm|lt|gain|ab|"
    "way|west|t|a|h|men|soldier|pie|bc|excess|st|inches|noon|percent|by|gal|kmh|c|acre|rise|"
    "th|sq|mark|l|toy|coin|gallon|profit|minw|yr|women|feet|am|pm|hr|square|are|rupee|rounds|"
    "cubic|cc|mtr|s|ohm|number|day|hour|minute|min|second|man|woman|sec|cube|mt|mp|hectare|"
    "more|unit|rs|kg|g|month|km|m|cm|mm|apple|liter|loss|yard|pure|year|increase|decrease|d|"
    "less|Surface|litre|metre|meter|inch"
)
_UNIT = re.compile(rf"(^|\W)(?:{_UNITS})s?($|\W)")
_REPLACED = (
    ("^{\\circ}", ""), ("^\\circ", ""), (r"\$", ""), ("$", ""), (r"\(", ""), (r"\)", ""),
)  # fmt: skip
_NAMES = re.compile(r"[xyz](?:=|\\in|\\to)")
_CLOSED = re.compile(r"[(\[].+[)\]]")
_MATRIX = re.compile(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}", re.DOTALL)


def judge(gold: str, text: str) -> tuple[bool, str]:
    """Whether a text's answer is the reference, in LaTeX without delimiters; the answer as read."""
    answer = stripped(stripped(extracted(text)))
    return equal(answer, stripped(stripped(gold))), answer


def extracted(text: str) -> str:
    """What a text answers: in a closing sentence, the last box, after "answer is", or a number."""
    if "final answer is $" in text and "$. I hope" in text:
        found = text.split("final answer is $", 1)[1].split("$. I hope", 1)[0].strip()
    elif "boxed" in text:
        found = _box(text.split("boxed")[-1])
    elif "he answer is" in text or "final answer is" in text:
        found = text.split("answer is")[-1].strip()
    else:
        found = (re.findall(r"-?\d*\.?\d+", text.replace(",", "")) or [""])[-1]
    return re.sub(r"\n\s*", "", found).removeprefix(":").removesuffix(".").removesuffix("/")


def _box(rest: str) -> str:
    if not rest.startswith("{"):
        return rest.split("$")[0].strip()
    depth = 0
    for i, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[1:i]
    return rest[1:]


def stripped(text: str) -> str:
    """`strip_string`: an answer in its normal form."""
    text = text.strip().replace("\n", "").rstrip(".").replace(r"\!", "")
    text = re.sub(r"\\begin\{array\}\{.*?\}", r"\\begin{pmatrix}", text)
    text = text.replace(r"\end{array}", r"\end{pmatrix}").replace("bmatrix", "pmatrix")
    text = re.sub("[td]frac", "frac", text)
    text = re.sub(r"\\(n|l|g)eq", r"\\\1e", text)
    text = re.sub(r"\\left|\\right", "", text).replace(r"\{", "{").replace(r"\}", "}")
    text = re.sub(r"\\text{.*?}$", "", text).strip() or text
    # Neighbours share a character, so that one pass leaves every other unit.
    for _ in range(4):
        text = _UNIT.sub(r"\1\2", text) or text
    for before, after in _REPLACED:
        text = text.replace(before, after)
    text = re.sub(r"\\text\{(.*?)\}", r"\1", text)
    text = _NAMES.sub("", text).replace(r"\emptyset", "{}")
    text = re.sub(r"\\?%", "", text.replace(r"(-\infty,\infty)", r"\mathbb{R}"))
    text = re.sub(r"([ {])\.", r"\g<1>0.", text).replace("infinity", r"\infty")
    if r"\infty" not in text:
        text = text.replace("inf", r"\infty")
    text = re.sub(r"\\mbox{.*?}", "", text.replace("and", "").replace(r"\mathbf", ""))
    if "i" not in text:
        text = text.replace("j", "i")
    text = re.sub(r"(\d)\.0*(?!\d)", r"\1", text)
    text = re.sub(r"^\.", "0.", text)
    sides = text.split("=")
    if len(sides) == 2 and len(sides[0]) <= 2:
        text = sides[1]
    text = re.sub(r"\\sqrt(\w+)", r"\\sqrt{\1}", text).replace(" ", "")
    text = re.sub(r"\\frac([^{])([^{])", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac([^{])\{", r"\\frac{\1}{", text)
    return re.sub(r"^(-?\d+)/(-?\d+)$", r"\\frac{\1}{\2}", text)


def equal(answer: str, gold: str) -> bool:
    """`math_equal`: by text, as choice, as numbers, by elements, as equations, by SymPy."""
    answer, gold = answer.strip(), gold.strip()
    if answer.lower() == gold.lower():
        return True
    choices = re.findall(r"\b[A-E]\b", answer.upper())
    if gold in [*"ABCDE"] and choices and choices[-1] == gold:
        return True
    one, other = _number(answer), _number(gold)
    if one is not None and other is not None:
        # A percentage is as good as its fraction.
        return any(_close(one, value) for value in (other / 100, other, other * 100))
    if not answer:
        return False
    if _same_within(answer, gold):
        return True
    if _CLOSED.match(answer) and _CLOSED.match(gold):
        return _all_equal(answer[1:-1].split(","), gold[1:-1].split(","))
    first, second = _MATRIX.fullmatch(answer), _MATRIX.fullmatch(gold)
    if first and second:
        return _all_equal(_rows(first[1]), _rows(second[1]), _equal_rows)
    return _equal_equations(answer, gold)


def _number(text: str) -> float | None:
    text = text.replace(",", "")
    with contextlib.suppress(ValueError):
        return float(text)
    with contextlib.suppress(ValueError):
        return float(text.removesuffix("%").removesuffix("\\")) / 100 if "%" in text else None
    return None


def _close(one: float, other: float) -> bool:
    return isclose(other, one, rel_tol=_TOLERANCE)


def _same_within(answer: str, gold: str) -> bool:
    """Whether both are the same text within brackets; `(...)` isn't `[...]`."""

    def enclosed(text: str, pair: str) -> bool:
        return text.startswith(pair[0]) and text.endswith(pair[1])

    if (enclosed(answer, "[]") and not enclosed(gold, "()")) or (
        enclosed(answer, "()") and not enclosed(gold, "[]")
    ):
        answer, gold = answer.strip("[]()"), gold.strip("[]()")
    return re.sub(r"[{}()]", "", answer.lower()) == re.sub(r"[{}()]", "", gold.lower())


def _all_equal(
    answers: list[str], golds: list[str], same: Callable[[str, str], bool] = equal
) -> bool:
    return len(answers) == len(golds) and all(map(same, answers, golds))


def _rows(matrix: str) -> list[str]:
    return [row.strip() for row in matrix.split(r"\\") if row.strip()]


def _equal_rows(answer: str, gold: str) -> bool:
    return _all_equal(answer.split("&"), gold.split("&"))


def _equal_equations(answer: str, gold: str) -> bool:
    sides, others = answer.split("="), gold.split("=")
    if len(sides) == len(others) == 2:
        difference, other = (f"{one[0].strip()} - ({one[1].strip()})" for one in (sides, others))
        return _symbolic(difference, other) or _symbolic(f"-({difference})", other)
    if len(sides) == 2 and len(sides[0].strip()) <= 2 and len(others) == 1:
        return equal(sides[1], gold)
    if len(others) == 2 and len(others[0].strip()) <= 2 and len(sides) == 1:
        return equal(answer, others[1])
    return _symbolic(answer, gold)


def _symbolic(answer: str, gold: str) -> bool:
    one, other = _parsed(answer), _parsed(gold)
    comparisons: tuple[Callable[[], bool], ...] = (
        lambda: str(one) == str(other) or one == other,
        lambda: one.equals(other) or sympy.simplify(one - other) == 0,
        lambda: abs(one.lhs - one.rhs).equals(abs(other.lhs - other.rhs)),
        lambda: _close(float(sympy.N(one)), float(sympy.N(other))),
    )
    for comparison in comparisons:
        # What can't be compared in one way may be in the next.
        with contextlib.suppress(Exception):
            if comparison():
                return True
    return False


# A reference is compared with many answers.
@functools.lru_cache(1000)
def _parsed(text: str) -> Any:
    for parser in (parse_latex, parse_expr, latex2sympy):
        for version in (text.replace("\\\\", "\\"), text):
            with contextlib.suppress(Exception):
                return parser(version)
    return text
