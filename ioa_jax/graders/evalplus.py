"""How EvalPlus (Liu et al., 2023, arXiv 2305.01210) tests a program: against a reference's answers.

`evalplus_test` makes tests of inputs and a reference for `ioa_jax.sandbox.Sandbox.check`. They
begin with this module's own text, which therefore imports nothing but the standard library: it runs
in the sandbox's process for tests, beside the program's.

The rules are those of evalplus 0.3.1 (`evalplus/eval/__init__.py`), with the answers that it
accepts beside the reference's: floats may differ by 10^-6 or by the problem's own tolerance, some
lists are compared as sets, and so on. Two differences: NumPy's scalars count as Python's, and an
array isn't compared.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

FLOAT_TOLERANCE = 1e-6
RELATIVE_TOLERANCE = 1e-7

# By name of the function, since the tests know nothing else of the problem.
_COMPARED_AS_SETS = (
    "similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum",
    "intersection_array", "find_dissimilar", "Diff",
)  # fmt: skip
_COMPARED_WITH_NONE = ("check_str", "text_match_three", "text_starta_endb")


def evalplus_test(
    reference: str, entry_point: str, inputs: Sequence[Sequence[Any]], tolerance: float
) -> str:
    """Python that defines `check(candidate)`: whether a function gives the reference's answers.

    Args:
        reference: A program that defines the function.
        entry_point: The function's name, in both programs.
        inputs: Arguments of each call: literals, nested in lists, tuples, sets and dictionaries.
        tolerance: Absolute; 0 where answers have to be equal, but for floats.
    """
    return (
        f"{Path(__file__).read_text(encoding='utf-8')}\n\n"
        # How the two are written as literals.
        "inf, nan = math.inf, math.nan\n"
        f"_inputs = {inputs!r}\n\n"
        f"def check(candidate):\n"
        f"    names = {{}}\n"
        f"    exec({reference!r}, names)\n"
        f"    reference = names[{entry_point!r}]\n"
        f"    name, tolerance = {entry_point!r}, {tolerance!r}\n"
        f"    compare_with_reference(candidate, reference, name, _inputs, tolerance)\n"
    )


def compare_with_reference(
    program: Callable[..., Any],
    reference: Callable[..., Any],
    entry_point: str,
    inputs: Sequence[Sequence[Any]],
    tolerance: float,
) -> None:
    """Call both with each of the inputs.

    Raises:
        AssertionError: An answer isn't right; says to which input.
    """
    for number, given in enumerate(inputs):
        expected = reference(*copy.deepcopy(given))
        found = program(*given)
        if tolerance == 0 and _is_floats(expected):
            # From here on, whatever the answers are: as there.
            tolerance = FLOAT_TOLERANCE
        assert _is_right(entry_point, given, found, expected, tolerance), f"input {number}"


def _is_right(
    entry_point: str, given: Sequence[Any], found: Any, expected: Any, tolerance: float
) -> bool:
    if entry_point == "find_zero":
        powers = (factor * math.pow(found, i) for i, factor in enumerate(given[0]))
        return abs(sum(powers)) <= tolerance
    if entry_point in _COMPARED_WITH_NONE:
        matches = expected is not None
        return matches == (found if isinstance(found, bool) else found is not None)
    if entry_point in _COMPARED_AS_SETS:
        return set(found) == set(expected)
    if found == expected or _is_other_reading(entry_point, given, found, tolerance):
        return True
    return tolerance > 0 and type(found) is type(expected) and _is_close(found, expected, tolerance)


def _is_other_reading(entry_point: str, given: Sequence[Any], found: Any, tolerance: float) -> bool:
    """Whether an answer is right if the problem is read otherwise than the reference does."""
    if entry_point == "are_equivalent":
        return True
    if entry_point == "sum_div":
        return found == 0
    if entry_point == "surface_Area":
        # The height is the pyramid's own, not that of its sides.
        side, height = given
        sides = 2 * side * math.hypot(side / 2, height)
        return abs(found - round(side**2 + sides)) <= tolerance
    if entry_point == "digit_distance_nums":
        # Digit by digit, the shorter number filled up with zeros.
        first, second = map(str, given)
        width = max(len(first), len(second))
        digits = zip(first.zfill(width), second.zfill(width), strict=True)
        return found == sum(abs(int(a) - int(b)) for a, b in digits)
    return False


def _is_floats(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(one, float) for one in value)
    return isinstance(value, float)


def _is_close(found: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, list | tuple):
        return (
            isinstance(found, list | tuple)
            and len(found) == len(expected)
            and all(_is_close(a, b, tolerance) for a, b in zip(found, expected, strict=True))
        )
    if not isinstance(expected, int | float | complex):
        return False
    return found == expected or abs(found - expected) <= tolerance + RELATIVE_TOLERANCE * abs(
        expected
    )
