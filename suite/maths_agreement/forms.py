r"""Answers made from a reference: right ones in many forms, and wrong ones."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from fractions import Fraction

_PLAIN = re.compile(r"[\w\s.,()+/-]+")
_DIGITS = re.compile(r"\d+")
_LONG_NUMBER = re.compile(r"(?<![\d.,!])\d{4,}(?![\d.])")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\s*(?:\{(\d+)\}|(\d))\s*(?:\{(\d+)\}|(\d))")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
# Not the comma that sets thousands apart.
_SPACEABLE = re.compile(r"\s*([=+]|(?<![\\{]),(?!\d{3}(?!\d)|\\!|\}))\s*")


@dataclasses.dataclass(frozen=True)
class Case:
    """A reference, with others that may be given for it.

    Attributes:
        reference: In LaTeX, without delimiters.
        neighbour: The next item's.
        similar: The next in the order of their texts.
    """

    reference: str
    neighbour: str
    similar: str


@dataclasses.dataclass(frozen=True)
class Form:
    """A way to answer.

    Attributes:
        name: In the tables, in Markdown.
        right: Whether such an answer is right; another item's reference is, where it is equal.
        make: The text; None where the form doesn't apply.
    """

    name: str
    right: bool
    make: Callable[[Case], str | None]


def exact_value(reference: str) -> Fraction | None:
    """A whole number, a decimal or a fraction of whole numbers; None for anything else."""
    if _NUMBER.fullmatch(reference):
        return Fraction(reference)
    match = _FRACTION.fullmatch(reference)
    if match is None or not int(match[4] or match[5]):
        return None
    value = Fraction(int(match[2] or match[3]), int(match[4] or match[5]))
    return -value if match[1] else value


def has_end(value: Fraction) -> bool:
    """Whether it has an end as a decimal."""
    # Its denominator divides a power of ten.
    return pow(10, value.denominator.bit_length(), value.denominator) == 0


def _boxed(answer: str) -> str:
    return rf"So we get $\boxed{{{answer}}}$."


def _two(first: str, last: str) -> str:
    return rf"At first $\boxed{{{first}}}$ seems right. Then we get $\boxed{{{last}}}$."


def _in_font(reference: str, command: str) -> str | None:
    r"""In a font of texts, which takes no formula with commands."""
    return _boxed(rf"\{command}{{{reference}}}") if _PLAIN.fullmatch(reference) else None


def _spaced(reference: str, space: str) -> str:
    inner = _SPACEABLE.sub(lambda match: f"{space}{match[1]}{space}", reference)
    return _boxed(f"{space}{inner}{space}")


def _grouped(reference: str, space: str) -> str | None:
    grouped = _LONG_NUMBER.sub(lambda match: f"{int(match[0]):,}".replace(",", space), reference)
    return _boxed(grouped) if grouped != reference else None


def _dfrac(reference: str) -> str | None:
    return _boxed(reference.replace(r"\frac", r"\dfrac")) if r"\frac" in reference else None


def _decimal(reference: str, digits: int, error: Fraction, endless: bool) -> str | None:
    """A number's value with a relative error, as a decimal."""
    value = exact_value(reference)
    if not value or has_end(value) == endless:
        return None
    decimal = f"{float(value * (1 + error)):.{digits}g}"
    return _boxed(decimal) if "e" not in decimal else None


def _next_number(reference: str) -> str | None:
    other = _DIGITS.sub(lambda match: str(int(match[0]) + 1), reference, count=1)
    return _boxed(other) if other != reference else None


FORMS = (
    Form("box", True, lambda case: _boxed(case.reference)),
    Form("full stop in the box", True, lambda case: _boxed(f"{case.reference}.")),
    Form("comma in the box", True, lambda case: _boxed(f"{case.reference},")),
    Form("comma after the box", True, lambda case: rf"So $\boxed{{{case.reference}}}$, at last."),
    Form(r"`\text{}`", True, lambda case: _in_font(case.reference, "text")),
    Form(r"`\textbf{}`", True, lambda case: _in_font(case.reference, "textbf")),
    Form(r"`\mathbf{}`", True, lambda case: _boxed(rf"\mathbf{{{case.reference}}}")),
    Form("thin spaces", True, lambda case: _spaced(case.reference, r"\,")),
    Form("plain spaces", True, lambda case: _spaced(case.reference, " ")),
    Form("thousands, thin space", True, lambda case: _grouped(case.reference, r"\,")),
    Form("thousands, plain space", True, lambda case: _grouped(case.reference, " ")),
    Form("display style", True, lambda case: rf"\[\boxed{{\displaystyle {case.reference}}}\]"),
    Form(r"`\dfrac`", True, lambda case: _dfrac(case.reference)),
    Form("no box", True, lambda case: f"The answer is ${case.reference}$."),
    Form(
        "Minerva's sentence",
        True,
        lambda case: f"Final Answer: The final answer is ${case.reference}$. I hope it is correct.",
    ),
    Form("last of two boxes", True, lambda case: _two(case.neighbour, case.reference)),
    Form(
        "10 digits of an endless value",
        True,
        lambda case: _decimal(case.reference, 10, Fraction(0), endless=True),
    ),
    Form("neighbour's reference", False, lambda case: _boxed(case.neighbour)),
    Form("similar reference", False, lambda case: _boxed(case.similar)),
    Form("first of two boxes", False, lambda case: _two(case.reference, case.neighbour)),
    Form("first number + 1", False, lambda case: _next_number(case.reference)),
    Form(
        "relative error 1e-6",
        False,
        lambda case: _decimal(case.reference, 15, Fraction(1, 10**6), endless=False),
    ),
    Form(
        "relative error 1e-5, endless value",
        False,
        lambda case: _decimal(case.reference, 15, Fraction(1, 10**5), endless=True),
    ),
)
