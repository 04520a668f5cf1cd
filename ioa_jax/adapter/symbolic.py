"""The answer of a problem that is nothing but an expression, without anybody's solution.

Covered are arithmetic with `+ - * / ^` and brackets, in plain text or LaTeX (`Compute 3 + 4 * 2.`),
and linear equations in one unknown (`Solve 3x + 4 = 19.`), where the whole problem is the
expression and a phrase that asks for it: a story around it could change what is asked for. Numbers
are exact fractions. An expression that has both a division and a product without a sign, such as
`1/2x`, can be read in two ways and isn't covered.
"""

from __future__ import annotations

import ast
import dataclasses
import math
import re
from fractions import Fraction

MAX_CHARACTERS = 120
MAX_EXPONENT = 20
# Of numerator and denominator, so that no power of powers fills the memory.
MAX_DIGITS = 200

_ASK = r"(?:compute|calculate|evaluate|work out|what is|find the value of)"
_EXPRESSION = r"[-+*/^().\d\s]*\d[-+*/^().\d\s]*"
_SIDE = r"[-+*/^().\d\sa-z]+"
_ARITHMETIC = re.compile(rf"(?:{_ASK}\s*:?\s*)?({_EXPRESSION}?)\s*(?:=\s*)?[.?]?", re.IGNORECASE)
_EQUATIONS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?:solve|find)(?: for)? (?P<unknown>[a-z])\s*(?::|if|in|when|where)\s*"
        rf"(?P<left>{_SIDE})=(?P<right>{_SIDE}?)[.?]?",
        rf"solve\s*:?\s*(?P<left>{_SIDE}?)=(?P<right>{_SIDE}?)"
        rf"(?:,?\s+for\s+(?P<unknown>[a-z]))?[.?]?",
        rf"if\s+(?P<left>{_SIDE})=(?P<right>{_SIDE}),\s*(?:then\s+)?what is\s+(?P<unknown>[a-z])\?",
    )
)
_LATEX = (
    (r"\\(?:left|right|[,;! ])", ""),
    (r"\\(?:times|cdot)(?![a-z])|[\u00d7\u00b7]", "*"),
    (r"\\div(?![a-z])|\u00f7", "/"),
    (r"\\[dt]?frac\s*\{([-\d.\s]+)\}\s*\{([-\d.\s]+)\}", r"((\1)/(\2))"),
    (r"\u2212", "-"),
    (r"\$|\\[()\[\]]", ""),
    (r"(?<=\d),(?=\d{3}(?!\d))", ""),
)
# "3x", "3(", ")(" and ")x".
_UNSIGNED_PRODUCT = re.compile(r"(?<=[\d)])\s*(?=[a-z(])")
# A decimal of so many digits is rounded when it is read.
_LONG_DECIMAL = re.compile(r"(?=\d*\.)[\d.]{17}")


@dataclasses.dataclass(frozen=True)
class _Linear:
    """slope * unknown + constant."""

    slope: Fraction
    constant: Fraction


class _NotCovered(Exception):
    """The expression isn't one that this module reads."""


def direct_answer(problem: str) -> Fraction | None:
    """The value of the expression, or of the equation's unknown.

    Args:
        problem: Its whole text.

    Returns:
        None where the problem isn't covered, or where an equation has no answer or many.
    """
    if len(problem) > MAX_CHARACTERS:
        return None
    text = problem.strip()
    for pattern, replacement in _LATEX:
        text = re.sub(pattern, replacement, text)
    try:
        if (match := _ARITHMETIC.fullmatch(text)) is not None:
            return _read(match[1], None).constant
        for equation in _EQUATIONS:
            if (match := equation.fullmatch(text)) is not None:
                return _solve(match["left"], match["right"], match["unknown"])
    except _NotCovered:
        pass
    return None


def _solve(left: str, right: str, unknown: str | None) -> Fraction:
    letters = set(re.findall(r"[a-z]", (left + right).lower()))
    if len(letters) != 1 or (unknown is not None and unknown.lower() not in letters):
        raise _NotCovered
    (letter,) = letters
    one, other = _read(left.lower(), letter), _read(right.lower(), letter)
    slope = one.slope - other.slope
    if slope == 0:
        raise _NotCovered
    return (other.constant - one.constant) / slope


def _read(expression: str, unknown: str | None) -> _Linear:
    text, products = _UNSIGNED_PRODUCT.subn("*", expression.strip())
    if (products and "/" in text) or _LONG_DECIMAL.search(text):
        raise _NotCovered
    try:
        tree = ast.parse(text.replace("^", "**"), mode="eval")
        return _evaluate(tree.body, unknown)
    except (SyntaxError, RecursionError, MemoryError):
        raise _NotCovered from None


def _evaluate(node: ast.expr, unknown: str | None) -> _Linear:
    match node:
        case ast.Constant(value=int() | float() as number) if math.isfinite(number):
            # As it is written: 0.1 is a tenth.
            value = _Linear(Fraction(0), Fraction(str(number)))
        case ast.Name(id=name) if name == unknown:
            value = _Linear(Fraction(1), Fraction(0))
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            value = _evaluate(operand, unknown)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = _times(_evaluate(operand, unknown), Fraction(-1))
        case ast.BinOp(left=left, op=operator, right=right):
            value = _combine(_evaluate(left, unknown), operator, _evaluate(right, unknown))
        case _:
            raise _NotCovered
    limit = 10**MAX_DIGITS
    if any(max(abs(part.numerator), part.denominator) > limit for part in vars(value).values()):
        raise _NotCovered
    return value


def _combine(left: _Linear, operator: ast.operator, right: _Linear) -> _Linear:
    match operator:
        case ast.Add():
            return _Linear(left.slope + right.slope, left.constant + right.constant)
        case ast.Sub():
            return _combine(left, ast.Add(), _times(right, Fraction(-1)))
        case ast.Mult() if left.slope == 0:
            return _times(right, left.constant)
        case ast.Mult() if right.slope == 0:
            return _times(left, right.constant)
        case ast.Div() if right.slope == 0 and right.constant != 0:
            return _times(left, 1 / right.constant)
        case ast.Pow() if left.slope == right.slope == 0:
            exponent = right.constant
            if exponent.denominator == 1 and 0 <= exponent <= MAX_EXPONENT:
                return _Linear(Fraction(0), left.constant ** int(exponent))
        case _:
            pass
    raise _NotCovered


def _times(value: _Linear, factor: Fraction) -> _Linear:
    return _Linear(value.slope * factor, value.constant * factor)
