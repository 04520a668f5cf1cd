"""Whether two values are the same: numbers compared here, expressions by Math-Verify.

Exact values must be equal. Where one side is a decimal and the other a value that has no end as a
decimal, such as 1/3 or the square root of 2, they may differ by 10^-6 of the value (`TOLERANCE`);
there is no absolute tolerance.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any, NamedTuple

import sympy
from latex2sympy2_extended.math_normalization import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify

from ioa_jax.graders.latex import bare
from ioa_jax.graders.units import DEGREE, PLAIN_UNIT, split_unit

TOLERANCE = Fraction(1, 10**6)
# Values that are computed with 30 digits are the same to this.
_SAME = sympy.Float("1e-20", 30)
_DIGITS = 30
_FLOAT_DIGITS = 1e-12  # of a decimal that SymPy read
MAX_NUMBER = 400  # characters of a number that is compared as a fraction
_REPEATING = re.compile(
    r"(-?)(\d*)\.(\d*)(?:\\(?:overline|bar|dot)\s*(?:\{\s*(\d+)\s*\}|(\d))|\((\d+)\))"
)
_NUMBER = re.compile(
    r"(?P<sign>[+-]?)\s*(?:\(?(?P<whole>\d+)\+\\frac\{(?P<a>\d+)\}\{(?P<b>\d+)\}\)?"
    r"|\\frac\{(?P<c>-?\d+)\}\{(?P<d>-?\d+)\}|(?P<e>\d+)\s*/\s*(?P<f>\d+)"
    r"|(?P<decimal>\d+\.?\d*|\.\d+)(?:[eE](?P<exponent>[+-]?\d{1,3}))?)"
)
# Units were taken off here; Math-Verify takes a variable `t` for tons.
_TARGETS = (
    LatexExtractionConfig(
        boxed_match_priority=0,
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all"
        ),
    ),
)


def same_value(gold: str, answer: str) -> bool:
    """Whether two single values are the same, units and scales such as `million` regarded."""
    first, second = split_unit(gold, letters=False), split_unit(answer, letters=False)
    if (r"\text{" in gold or PLAIN_UNIT.search(gold)) and not second.unit:
        second = split_unit(answer, letters=True)
    if first.unit and second.unit and first.unit != second.unit:
        return False
    scaled = (first.scale, second.scale)
    one, other = _number(first.value), _number(second.value)
    if one is not None and other is not None:
        if scaled != (1, 1):
            one, other = one.times(first.scale), other.times(second.scale)
        return _close(one, other)
    if scaled[0] != scaled[1]:
        return False
    return _equal_values(first.value, second.value)


class _Exact(NamedTuple):
    value: Fraction
    is_decimal: bool

    def times(self, factor: int) -> _Exact:
        return _Exact(self.value * factor, self.is_decimal)


def _number(latex: str) -> _Exact | None:
    """The value of a whole number, a decimal, a fraction or a mixed number."""
    latex = bare(latex)
    if len(latex) > MAX_NUMBER:
        return None
    repeating = _REPEATING.fullmatch(latex)
    if repeating:
        sign, whole, start = repeating.groups()[:3]
        end = repeating[4] or repeating[5] or repeating[6]
        nines = 10 ** len(end) - 1
        value = Fraction(int(whole or 0)) + Fraction(
            int(start or 0) * nines + int(end), nines * 10 ** len(start)
        )
        return _Exact(-value if sign else value, is_decimal=False)
    match = _NUMBER.fullmatch(latex)
    if not match:
        return None
    part = match.groupdict()
    try:
        if part["decimal"]:
            value = Fraction(part["decimal"].removesuffix(".")) * Fraction(10) ** int(
                part["exponent"] or 0
            )
        elif part["whole"]:
            value = int(part["whole"]) + Fraction(int(part["a"]), int(part["b"]))
        else:
            value = Fraction(int(part["c"] or part["e"]), int(part["d"] or part["f"]))
    except ZeroDivisionError:
        return None
    is_decimal = "." in (part["decimal"] or "")
    return _Exact(-value if part["sign"] == "-" else value, is_decimal)


def _close(one: _Exact, other: _Exact) -> bool:
    if one.value == other.value:
        return True
    if one.is_decimal == other.is_decimal:
        return False
    exact, decimal = (other, one) if one.is_decimal else (one, other)
    return _is_endless(exact.value) and (
        abs(exact.value - decimal.value) <= TOLERANCE * abs(exact.value)
    )


def _is_endless(value: Fraction) -> bool:
    """Whether it has no end as a decimal."""
    denominator = value.denominator
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator > 1


def _in_degrees(latex: str) -> str:
    """An angle in degrees within an expression as one in radians."""
    return re.sub(
        r"(\d+(?:\.\d+)?|\([^()]*\)|\\frac\{\d+\}\{\d+\})" + DEGREE.pattern,
        r"(\1\\cdot\\frac{\\pi}{180})",
        latex,
    )


def _parsed(latex: str) -> list[Any]:
    found = parse(
        rf"\boxed{{{_in_degrees(latex)}}}",
        _TARGETS,
        parsing_timeout=None,  # pyright: ignore[reportArgumentType]
    )
    return [one for one in found if not isinstance(one, str)]


def real_value(latex: str) -> Any:
    """As a number of SymPy, None if it isn't a real one."""
    for one in _parsed(latex):
        if isinstance(one, sympy.Expr) and not one.free_symbols:
            value = one.doit().evalf(_DIGITS)
            if value.is_real and value.is_number:
                return value
    return None


def _equal_values(gold: str, answer: str) -> bool:
    golds, answers = _parsed(gold), _parsed(answer)
    if not golds or not answers or _differ_in_case(gold, answer):
        return False
    one, other = golds[0], answers[0]
    if isinstance(one, sympy.Expr) and isinstance(other, sympy.Expr):
        if one.free_symbols and other.free_symbols and one.free_symbols != other.free_symbols:
            return False
        if not one.free_symbols and not other.free_symbols:
            close = _close_values(one, other)
            if close is not None:
                return close
    # Not symmetric: the reference comes first.
    return verify(golds, answers, timeout_seconds=None)


def _differ_in_case(gold: str, answer: str) -> bool:
    """Whether the same letters stand for variables, but for their case, which parsing loses."""
    one, other = (
        set(re.findall("[A-Za-z]", re.sub(r"\\[A-Za-z]+|\\text\{[^{}]*\}", " ", latex)))
        for latex in (gold, answer)
    )
    return one != other and {c.lower() for c in one} == {c.lower() for c in other}


def _close_values(one: Any, other: Any) -> bool | None:
    """Whether two values are, by the rule for precision; None if they can't be computed."""
    values = [expression.doit().evalf(_DIGITS) for expression in (one, other)]
    if not all(value.is_number and value.is_finite for value in values):
        return None
    floats = [expression.has(sympy.Float) for expression in (one, other)]
    size = max(abs(value) for value in values)
    if size == 0:
        return True
    error = abs(values[0] - values[1]) / size
    if not any(floats):
        return bool(error < _SAME)
    if all(floats):
        return bool(error < _FLOAT_DIGITS)
    exact = one if floats[1] else other
    rational = exact.doit()
    if rational.is_Rational and not _is_endless(Fraction(int(rational.p), int(rational.q))):
        return bool(error < _FLOAT_DIGITS)
    return bool(error <= float(TOLERANCE) * (1 + 1e-9))
