"""Whether two mathematical answers are the same: shapes compared here, values by Math-Verify.

Shapes are lists, tuples with their brackets, unions of intervals (also written as inequalities),
matrices, numbers in a base, words and choice letters. What has one shape is never equal to what has
another: a tuple isn't the list of its elements, nor an interval closed at infinity the open one.

`shapes` reads them, `wording` what isn't mathematics, `units` what stands behind a number, and
`values` compares what is left.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ioa_jax.graders.latex import bare, plain
from ioa_jax.graders.shapes import (
    Tuple,
    assigned,
    has_equals,
    in_signs,
    is_tuple,
    read_condition,
    read_intervals,
    read_matrix,
    right_side,
    split_elements,
)
from ioa_jax.graders.values import same_value
from ioa_jax.graders.wording import (
    LETTER_AND_VALUE,
    bare_digits,
    chosen_letters,
    is_words,
    plain_words,
    read_in_base,
    time_of_day,
    without_label,
    without_spaces,
)

# A number with commas before its thousands, with a currency or a unit.
_COMMAS = re.compile(
    r"(-?\s*(?:\\\$)?\s*)(\d{1,3}(?:,\d{3})+)((?:\.\d+)?(?:[^\d,()\[\]][^,()\[\]]*)?)"
)


def equal(gold: str, answer: str, by_text: bool = True) -> bool:
    """Whether an answer is the reference, both in LaTeX without delimiters.

    Not symmetric: an answer may leave out what the reference says beside the value, such as a unit
    or a number's base, and add a unit, or the name of what it is (`x =`).
    """
    gold, answer = in_signs(plain(gold)), in_signs(plain(answer))
    if not gold or not answer:
        return False
    if by_text and without_spaces(gold) == without_spaces(answer):
        return True
    letters = _choice(gold, answer)
    if letters is not None:
        return letters
    time, other = time_of_day(gold), time_of_day(answer)
    if time is not None and other is not None:
        return time[0] == other[0] and (time[1] == other[1] or "" in (time[1], other[1]))
    if is_words(gold) or is_words(answer):
        return plain_words(gold) == plain_words(answer)
    based = _based(gold, answer)
    if based is not None:
        return based
    return _equal_parts(gold, answer)


def is_list(gold: str) -> bool:
    """Whether a reference has several values, or words with commas between them."""
    gold = plain(gold)
    return "," in gold or len(split_elements(gold)) > 1


def _equal_parts(gold: str, answer: str) -> bool:
    one, other = read_intervals(gold), read_intervals(answer)
    if one and other:
        return _same_conditions(gold, answer) and _same_intervals(one, other)
    golds, answers = _readings(gold), _readings(answer)
    return any(_same(one, other) for one in golds for other in answers)


def _readings(latex: str) -> list[list[str]]:
    """The elements of a list; of digits between commas, also the one number."""
    elements = split_elements(latex)
    number = _COMMAS.fullmatch(latex)
    if number:
        return [elements, [number[1] + number[2].replace(",", "") + number[3]]]
    return [elements]


def _same(golds: list[str], answers: list[str]) -> bool:
    if len(golds) != len(answers):
        return False
    if len(golds) == 1:
        return _same_element(golds[0], answers[0])
    # Equality is transitive enough that the first that fits will do.
    left = list(answers)
    for gold in golds:
        fitting = next((i for i, one in enumerate(left) if _same_element(gold, one)), None)
        if fitting is None:
            return False
        del left[fitting]
    return True


def _same_element(gold: str, answer: str) -> bool:
    gold, answer = _exact_part(gold), _exact_part(answer)
    if has_equals(answer) and not has_equals(gold):
        answer = right_side(answer)
    elif has_equals(gold) and not has_equals(answer):
        gold = assigned(gold) or gold
    if len(split_elements(answer)) != len(split_elements(gold)):
        return False
    one, other = read_intervals(gold), read_intervals(answer)
    if one and other:
        return _same_conditions(gold, answer) and _same_intervals(one, other)
    if one or other:
        # Of a bracket that only holds a product, values decide.
        return not (is_tuple(gold) or is_tuple(answer)) and same_value(gold, answer)
    rows, others = read_matrix(gold), read_matrix(answer)
    if rows is not None and others is not None:
        return _same_rows(rows, others)
    if (rows is None) != (others is None):
        return False
    return same_value(gold, answer)


def _same_intervals(golds: Sequence[Tuple], answers: Sequence[Tuple]) -> bool:
    if len(golds) != len(answers):
        return False
    left = list(answers)
    for gold in golds:
        fitting = next((one for one in left if _same_tuples(gold, one)), None)
        if fitting is None:
            return False
        left.remove(fitting)
    return True


def _same_tuples(gold: Tuple, answer: Tuple) -> bool:
    return (
        (gold.opens, gold.closes) == (answer.opens, answer.closes)
        and len(gold.elements) == len(answer.elements)
        and all(map(_same_element, gold.elements, answer.elements))
    )


def _same_conditions(gold: str, answer: str) -> bool:
    """Whether two inequalities are about one variable, if they are inequalities."""
    one, other = read_condition(gold), read_condition(answer)
    return one is None or other is None or one.variable == other.variable


def _same_rows(golds: list[list[str]], answers: list[list[str]]) -> bool:
    return [len(row) for row in golds] == [len(row) for row in answers] and all(
        same_value(one, other)
        for gold, answer in zip(golds, answers, strict=True)
        for one, other in zip(gold, answer, strict=True)
    )


def _choice(gold: str, answer: str) -> bool | None:
    """Of letters to be chosen, whether they are the same; None where there is nothing to choose."""
    wanted, marked = chosen_letters(gold)
    if wanted is None:
        return None
    found, _ = chosen_letters(answer)
    if found is not None:
        return wanted == found
    # A value without its letter may still be that of the reference.
    value = LETTER_AND_VALUE.fullmatch(gold) if marked else None
    return equal(value[3], answer) if value else None if len(wanted) == 1 else False


def _based(gold: str, answer: str) -> bool | None:
    """Of a number in a base, whether both are the same; None if the reference isn't one."""
    wanted = read_in_base(gold)
    if wanted is None:
        return None
    found = read_in_base(answer) or (*bare_digits(answer), None)
    return wanted[:2] == found[:2] and found[2] in (wanted[2], None)


def _exact_part(latex: str) -> str:
    """Without a label before it and an approximation after it."""
    latex = without_label(latex)[0] or latex
    sides = [bare(one) for one in re.split(r"\\(?:approx|simeq)(?![a-z])", latex)]
    return next(filter(None, sides), "")
