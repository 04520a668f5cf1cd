"""GSM8K's final number, by the two extraction rules of the field, compared as numbers.

The patterns are those of lm-evaluation-harness's task `gsm8k`: `strict` wants the form in which
the train set gives its answers, `#### 18`, and takes the first; `flexible` takes the text's last
number. Both compare strings there, so that `$29.00` isn't 29; here the values are compared.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from ioa_jax.errors import InputError
from ioa_jax.graders.base import GoldGrader, Item, Verdict

SOURCE = "decimal"
_STRICT = re.compile(r"#### (-?[0-9.,]+)")
# A single digit needs the second alternative.
_FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")


class NumberGrader(GoldGrader):
    """Grades answers against numbers: `Item.references`, such as `18` or `1,200.50`.

    A verdict's `parts` has the outcome of both rules, `strict` and `flexible`; `correct` and
    `extracted` are those of the rule that was chosen, which `rule` names.
    """

    def __init__(self, rule: str = "flexible") -> None:
        """`rule`, `strict` or `flexible`, is the one that decides.

        Raises:
            InputError: There is no such rule.
        """
        if rule not in ("strict", "flexible"):
            raise InputError(f"number grader: rule={rule!r}: 'strict' or 'flexible' is needed")
        self._rule = rule

    def check_item(self, item: Item) -> None:
        """At least one reference, and each a number.

        Raises:
            InputError: Otherwise.
        """
        if not item.references or any(number(one) is None for one in item.references):
            raise InputError(
                f"item {item.id!r}: field 'references': numbers are needed, not {item.references}"
            )

    def grade(self, item: Item, text: str) -> Verdict:
        """Judge a solution.

        Raises:
            InputError: As `check_item`.
        """
        self.check_item(item)
        golds = [number(one) for one in item.references]
        found = {"strict": extract_strict(text), "flexible": extract_flexible(text)}
        right: dict[str, bool] = {}
        for rule, extracted in found.items():
            value = None if extracted is None else number(extracted)
            right[rule] = value is not None and value in golds
        extracted = found[self._rule]
        detail = ""
        if extracted is None:
            detail = "no number found"
        elif number(extracted) is None:
            detail = "not a number"
        correct = right[self._rule]
        return Verdict(correct, float(correct), extracted, self._rule, SOURCE, detail, parts=right)

    def grade_gold(self, item: Item) -> Verdict:
        """Judge `data["solution"]`, or the first reference in the train set's form without it.

        Raises:
            InputError: As `check_item`.
        """
        self.check_item(item)
        return self.grade(item, item.data.get("solution") or f"#### {item.references[0]}")


def extract_strict(text: str) -> str | None:
    """The number after the first `####` and a space, None if there is none."""
    match = _STRICT.search(text)
    return None if match is None else match[1]


def extract_flexible(text: str) -> str | None:
    """The last thing that looks like a number, None if there is none."""
    found = _FLEXIBLE.findall(text)
    return found[-1] if found else None


def number(text: str) -> Decimal | None:
    """The value of `-1,234.50`, `$12`, `12.`; None if it has none."""
    try:
        value = Decimal(text.strip().replace(",", "").replace("$", "").removesuffix("."))
    except InvalidOperation:
        return None
    return value if value.is_finite() else None
