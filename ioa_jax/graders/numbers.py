"""GSM8K's final number, by the two extraction rules of the field, compared as numbers.

The rules are those of lm-evaluation-harness's task `gsm8k`: `strict` wants the form in which the
train set gives its answers, `#### 18`, and takes the first; `flexible` takes the text's last
number. They differ from it in what they compare, which are values and not strings, so that `$29.00`
is 29; in taking other minus signs, digits and thousands separators than ASCII's for what they are,
and `4.2e1` for one number; and `flexible` takes the number in the last box, where there is one with
no `####` after it: the first one behind the last equals sign or colon, words and units left out. A
fraction, a mixed number and a power of ten there are one number.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal, InvalidOperation

from ioa_jax.errors import InputError
from ioa_jax.graders.base import GoldGrader, Item, Verdict
from ioa_jax.graders.latex import boxes

SOURCE = "decimal"
_EXPONENT = r"(?:[eE][+-]?[0-9]{1,4}(?![\w.]))?"
_STRICT = re.compile(rf"#### (-?[0-9.,]+{_EXPONENT})")
_FLEXIBLE = re.compile(rf"-?[$.,]{{0,3}}[0-9][$0-9.,]*{_EXPONENT}")
_FRACTION = re.compile(
    r"(-?)\s*(?:([0-9]+)(?:\s+(?=[0-9])|\s*(?=\\)))?"
    r"(?:\\[dt]?frac\s*\{(-?[0-9]+)\}\s*\{([0-9]+)\}|(-?[0-9]+)\s*/\s*([0-9]+))"
)
_TIMES_TEN = re.compile(
    r"(-?[0-9][0-9.,]*)\s*(?:\\times|\\cdot|[x*\u00d7\u00b7])\s*10\s*\^\s*\{?\s*([+-]?[0-9]{1,3})\s*\}?"
)
# Words and units, with their powers; no sign of multiplication or exponent.
_UNIT = re.compile(
    r"(?:\\(?:text|mathrm|mbox)\s*\{[^{}]*\}"
    r"|(?<=[0-9\s])(?!x\b|[eE][+-]?[0-9])[A-Za-z]+)(?:\s*\^\s*\{?[0-9]\}?)?"
)
_NAME_END = re.compile(r"[=:\u2248]|\\approx")
_LONGEST_BOX = 1000  # characters of a box that may hold a number

_SIGNS = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2212\ufe63\uff0d", "-"),
    }
)
# A dash before a number, but for one between two of them.
_DASH = re.compile(r"(?<![\w)\]])(?:\u2012|\u2013)(?=[$0-9.])")
_MINUS_APART = re.compile(r"(?<=#### )-\s+(?=[$0-9.])")
_DIGIT = re.compile(r"(?![0-9])\d")
_SEPARATED = re.compile(
    r"(?<=[0-9])(?:[\u00a0\u2009\u202f'\u2019]|\{,\}|,?\\!|,?\\,)(?=[0-9]{3}(?![0-9]))"
)


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

    def _judge(self, item: Item, answer: str) -> Verdict:
        golds = [number(one) for one in item.references]
        found = {"strict": extract_strict(answer), "flexible": extract_flexible(answer)}
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
    match = _STRICT.search(_ascii(text))
    return None if match is None else match[1]


def extract_flexible(text: str) -> str | None:
    """The number in the last box, or else the last thing that looks like one; None without any."""
    text = _ascii(text)
    boxed = boxes(text)
    if boxed and not _STRICT.search(text, boxed[-1].end):
        found = _number_in(boxed[-1].content)
        if found is not None:
            return found
    found = _FLEXIBLE.findall(text)
    return found[-1] if found else None


def number(text: str) -> Decimal | None:
    """The value of `-1,234.50`, `$12`, `12.`, `1.2e3`; None if it has none."""
    text = _ascii(text).strip().replace(",", "").replace("$", "")
    try:
        value = Decimal(text.rstrip("."))
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def _number_in(box: str) -> str | None:
    if len(box) > _LONGEST_BOX:
        return None
    value = _NAME_END.split(box)[-1]
    alone = _UNIT.sub(" ", value)
    bare = alone.replace("\\$", " ").strip(" $.")
    fraction, power = _FRACTION.fullmatch(bare), _TIMES_TEN.fullmatch(bare)
    if fraction and int(fraction[4] or fraction[6]):
        quotient = Decimal(fraction[3] or fraction[5]) / Decimal(fraction[4] or fraction[6])
        quotient += int(fraction[2] or 0)
        return str(-quotient if fraction[1] else quotient)
    if power:
        return f"{power[1]}e{power[2]}"
    for part in (alone, value, box):
        found = _FLEXIBLE.search(part)
        if found:
            return found[0]
    return None


def _ascii(text: str) -> str:
    text = _DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), text.translate(_SIGNS))
    return _SEPARATED.sub("", _MINUS_APART.sub("-", _DASH.sub("-", text)))
