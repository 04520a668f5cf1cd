r"""Whether two mathematical answers are the same: shapes compared here, values by Math-Verify.

Shapes are lists, tuples with their brackets, unions of intervals (also written as inequalities),
matrices, numbers in a base, words and choice letters. What has one shape is never equal to what has
another: a tuple isn't the list of its elements, nor an interval closed at infinity the open one.

**Precision.** Exact values must be equal. Where one side is a decimal and the other a value that
has no end as a decimal, such as 1/3 or the square root of 2, they may differ by 10^-6 of the value
(`TOLERANCE`); there is no absolute tolerance.

**Units.** A unit may be left out, or added. Two units of measure that are known (`_UNITS`) must be
the same; other words after a number aren't compared. Degrees are a unit only at a number's end.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import sympy
from latex2sympy2_extended.math_normalization import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify

from ioa_jax.graders.latex import bare, plain

TOLERANCE = Fraction(1, 10**6)
# Values that are computed with 30 digits are the same to this.
_SAME = sympy.Float("1e-20", 30)
_DIGITS = 30
_FLOAT_DIGITS = 1e-12  # of a decimal that SymPy read
MAX_NUMBER = 400  # characters of a number that is compared as a fraction

_UNITS = {
    alias: unit
    for unit, aliases in {
        "cm": "cm centimeter centimetre",
        "mm": "mm millimeter millimetre",
        "km": "km kilometer kilometre",
        "m": "m meter metre",
        "inch": "in inch inches",
        "foot": "ft foot feet",
        "yard": "yd yard",
        "mile": "mi mile",
        "g": "g gram gramme",
        "kg": "kg kilogram",
        "mg": "mg milligram",
        "pound": "lb lbs pound",
        "ounce": "oz ounce",
        "liter": "l liter litre",
        "ml": "ml milliliter millilitre",
        "gallon": "gal gallon",
        "second": "s sec second",
        "minute": "min minute",
        "hour": "h hr hour",
        "day": "day",
        "week": "week",
        "month": "month",
        "year": "yr year",
        "degree": "degree deg",
        "radian": "rad radian",
        "percent": "percent",
        "dollar": "dollar usd",
        "cent": "cent",
        "euro": "euro eur",
        "mph": "mph",
        "kph": "kph kmh",
        "acre": "acre",
    }.items()
    for alias in aliases.split()
}
_POWERS = {"square": "2", "sq": "2", "cubic": "3", "cu": "3", "squared": "2", "cubed": "3"}
_SCALES = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "dozen": 12,
}  # fmt: skip
# In plain letters, "5m" may be a product.
_PLAIN_UNITS = "|".join(
    sorted(
        [f"{re.escape(one)}s?" for one in (*_UNITS, *_POWERS) if len(one) > 1 and one != "rad"],
        key=len,
        reverse=True,
    )
)
_PLAIN_UNIT = re.compile(
    rf"(?<=[\d}})\s])((?:\s*\b|(?<=\d))(?:{_PLAIN_UNITS})\.?"
    rf"(?:(?:\s+|\s*/\s*)(?:{_PLAIN_UNITS}|per)\.?)*(?:\^\{{?[23]\}}?)?)$"
)
_ONE_LETTER_UNIT = re.compile(r"(?<=[\d}\s])\s*([mgslh](?:\^\{?[23]\}?)?)$")
_TEXT_UNIT = re.compile(r"(?:\\text\{([^{}]*)\})((?:\^\{?\d\}?)?)$")
_DEGREE = re.compile(r"\s*\^\s*\{?\s*\\circ\s*\}?")
_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|arc\w+)(?![a-z])|\b(?:sin|cos|tan)\b")

_WORD_NUMBERS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "sixteen": 16,
}  # fmt: skip
_BASE = re.compile(
    r"(-?)\(?([0-9][0-9A-Z]*|[A-Z][0-9A-Z]+)\)?\s*"
    r"(?:_\s*\{?\s*(?:\\text\{)?\s*(?:base\s*)?"
    r"|(?:\\text\{)?\s*\(?\s*(?:in\s+)?base\s*-?\s*\}?\s*)"
    r"([a-z]+|\d+)\s*[)}]*"
)
_LETTERS = re.compile(r"\(?[A-Z]\)?(?:\s*,?\s*\(?[A-Z]\)?)*")
_LETTER_AND_VALUE = re.compile(r"(?:\(([A-Z])\)|([A-Z])[).:])\s*(\S.*)", re.DOTALL)
_MATRIX = re.compile(
    r"(.*?)[(\[]?\s*\\begin\{([pbB]?matrix|smallmatrix|array)\}(?:\{[^{}]*\})?(.*?)\\end\{\2\}\s*[)\]]?",
    re.DOTALL,
)
_RELATION = re.compile(r"\\(le|ge|ne|lt|gt)(?![A-Za-z])|[<>]")
_SIGNS = {"<": "<", ">": ">", "lt": "<", "gt": ">", "le": "<=", "ge": ">=", "ne": "!="}
_VARIABLE = re.compile(r"\\?[A-Za-z]+(?:_\{?\w+\}?|\([a-z]\))?")
_EQUALS = re.compile(r"(?<![<>!\\])=")
_REPEATING = re.compile(
    r"(-?)(\d*)\.(\d*)(?:\\(?:overline|bar|dot)\s*(?:\{\s*(\d+)\s*\}|(\d))|\((\d+)\))"
)
_NUMBER = re.compile(
    r"(?P<sign>[+-]?)\s*(?:\(?(?P<whole>\d+)\+\\frac\{(?P<a>\d+)\}\{(?P<b>\d+)\}\)?"
    r"|\\frac\{(?P<c>-?\d+)\}\{(?P<d>-?\d+)\}|(?P<e>\d+)\s*/\s*(?P<f>\d+)"
    r"|(?P<decimal>\d+\.?\d*|\.\d+)(?:[eE](?P<exponent>[+-]?\d{1,3}))?)"
)
# A number with commas before its thousands, with a currency or a unit.
_COMMAS = re.compile(
    r"(-?\s*(?:\\\$)?\s*)(\d{1,3}(?:,\d{3})+)((?:\.\d+)?(?:[^\d,()\[\]][^,()\[\]]*)?)"
)
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
_LABEL = re.compile(r"\s*(?:option|choice|answer)s?\s*:?\s*", re.IGNORECASE)
_ORDINAL = re.compile(r"(?<=\d)\s*(?:st|nd|rd|th)\b")
_MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
_DAY_FIRST = re.compile(rf"\b(\d{{1,2}}) (?:of )?({_MONTHS})\b")

# Units were taken off here; Math-Verify takes a variable `t` for tons.
_TARGETS = (
    LatexExtractionConfig(
        boxed_match_priority=0,
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all"
        ),
    ),
)
_CLOCK = re.compile(r"0?(\d{1,2}(?::\d\d){1,2})([ap]m)?")


class Tuple(NamedTuple):
    """Elements in brackets: a point, a vector or an interval."""

    opens: str
    elements: tuple[str, ...]
    closes: str


class Inequality(NamedTuple):
    """A condition on one variable, as the intervals where it holds."""

    variable: str
    intervals: tuple[Tuple, ...]


def equal(gold: str, answer: str, by_text: bool = True) -> bool:
    """Whether an answer is the reference, both in LaTeX without delimiters.

    Not symmetric: an answer may leave out what the reference says beside the value, such as a unit
    or a number's base, and add a unit, or the name of what it is (`x =`).
    """
    gold, answer = _in_signs(plain(gold)), _in_signs(plain(answer))
    if not gold or not answer:
        return False
    if by_text and _squeezed(gold) == _squeezed(answer):
        return True
    letters = _choice(gold, answer)
    if letters is not None:
        return letters
    time, other = _clock(gold), _clock(answer)
    if time is not None and other is not None:
        return time[0] == other[0] and (time[1] == other[1] or "" in (time[1], other[1]))
    if _is_words(gold) or _is_words(answer):
        return _words(gold) == _words(answer)
    based = _based(gold, answer)
    if based is not None:
        return based
    return _equal_parts(gold, answer)


def _in_signs(latex: str) -> str:
    """With signs for the words that have one."""
    return _REALS[0] if _REALS_IN_WORDS.fullmatch(latex) else _RATIO.sub(":", latex)


def is_list(gold: str) -> bool:
    """Whether a reference has several values, or words with commas between them."""
    gold = plain(gold)
    return "," in gold or len(_elements(gold)) > 1


def _equal_parts(gold: str, answer: str) -> bool:
    one, other = _union(gold), _union(answer)
    if one and other:
        return _same_conditions(gold, answer) and _same_intervals(one, other)
    golds, answers = _readings(gold), _readings(answer)
    return any(_same(one, other) for one in golds for other in answers)


def _readings(latex: str) -> list[list[str]]:
    """The elements of a list; of digits between commas, also the one number."""
    elements = _elements(latex)
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
    if _has_equals(answer) and not _has_equals(gold):
        answer = _right_side(answer)
    elif _has_equals(gold) and not _has_equals(answer):
        gold = _assigned(gold) or gold
    if len(_elements(answer)) != len(_elements(gold)):
        return False
    one, other = _union(gold), _union(answer)
    if one and other:
        return _same_conditions(gold, answer) and _same_intervals(one, other)
    if one or other:
        # Of a bracket that only holds a product, values decide.
        return not (_is_tuple(gold) or _is_tuple(answer)) and _same_value(gold, answer)
    rows, others = _matrix(gold), _matrix(answer)
    if rows is not None and others is not None:
        return _same_rows(rows, others)
    if (rows is None) != (others is None):
        return False
    return _same_value(gold, answer)


# -- shapes --------------------------------------------------------------------------------------


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


def _elements(latex: str) -> list[str]:
    """Of a list or a set, each; of anything else, itself."""
    latex = bare(latex)
    inner = latex
    if latex.startswith(r"\{") and latex.endswith(r"\}"):
        inner = latex[2:-2]
    elif _has_equals(latex) and "," not in latex.split("=")[0]:
        right = _right_side(latex)
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


def _is_tuple(latex: str) -> bool:
    return _tuple(latex) is not None


def _union(latex: str) -> tuple[Tuple, ...]:
    """Tuples that are joined to one set, or a condition's intervals; empty if it is neither."""
    latex = bare(re.sub(r"^\s*\\?[A-Za-z]\w*\s*\\in(?![a-z])", "", latex))
    for reals in _REALS:
        if latex == reals:
            return (Tuple("(", (r"-\infty", r"\infty"), ")"),)
        without = re.fullmatch(
            re.escape(reals) + r"\s*(?:\\setminus|\\backslash|-|/)\s*(.*)", latex
        )
        if without:
            return _all_but(_elements(without[1]))
    condition = _condition(latex)
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
    values = [(_value(point), point) for point in points]
    if any(value is None for value, _ in values):
        return ()
    ordered = [point for _, point in sorted(values, key=lambda pair: float(pair[0] or 0))]
    ends = [r"-\infty", *ordered, r"\infty"]
    return tuple(Tuple("(", (low, high), ")") for low, high in itertools.pairwise(ends))


def _condition(latex: str) -> Inequality | None:
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
            re.sub(rf"^{re.escape(excluded[1])}\s*\\ne", "", one) for one in _elements(excluded[2])
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
    ends = [_value(low.elements[0]), _value(high.elements[1])]
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
    one, other = _condition(gold), _condition(answer)
    return one is None or other is None or one.variable == other.variable


def _matrix(latex: str) -> list[list[str]] | None:
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


def _same_rows(golds: list[list[str]], answers: list[list[str]]) -> bool:
    return [len(row) for row in golds] == [len(row) for row in answers] and all(
        _same_value(one, other)
        for gold, answer in zip(golds, answers, strict=True)
        for one, other in zip(gold, answer, strict=True)
    )


# -- words, letters and bases --------------------------------------------------------------------


def _squeezed(latex: str) -> str:
    return "".join(latex.split())


def _words(latex: str) -> str:
    text = re.sub(r"\\text\{([^{}]*)\}", r"\1", latex)
    words = " ".join(re.sub(r"[\\{}.,;:'\"$~^]", " ", text).lower().split())
    return _DAY_FIRST.sub(r"\2 \1", _ORDINAL.sub("", words))


def _is_words(latex: str) -> bool:
    r"""Words, with numbers at most after them, as in `\text{June }20`."""
    if re.match(r"\\text\{[^{}]*[A-Za-z]{2,}", latex):
        return not _without_label(latex)[0]
    return re.fullmatch(r"[A-Za-z]{3,}(?:[ -][A-Za-z]+)*", latex) is not None


def _without_label(latex: str) -> tuple[str, str]:
    r"""What follows a label such as `\text{Area} =`, and the label; empty if there is none."""
    match = re.match(r"(\\text\{[^{}]*\}\s*=|\\text\{[^{}]*\b(?:is|are|[:=])\s*\})\s*(\S.*)", latex)
    return (match[2], match[1]) if match else ("", "")


def _clock(latex: str) -> tuple[str, str] | None:
    """A time of day, and which half of it; None if it is none."""
    match = _CLOCK.fullmatch(re.sub(r"\\text|[\s.{}]", "", latex).lower())
    return (match[1], match[2] or "") if match else None


def _choice(gold: str, answer: str) -> bool | None:
    """Of letters to be chosen, whether they are the same; None where there is nothing to choose."""
    wanted, marked = _chosen(gold)
    if wanted is None:
        return None
    found, _ = _chosen(answer)
    if found is not None:
        return wanted == found
    # A value without its letter may still be that of the reference.
    value = _LETTER_AND_VALUE.fullmatch(gold) if marked else None
    return equal(value[3], answer) if value else None if len(wanted) == 1 else False


def _chosen(latex: str) -> tuple[list[str] | None, bool]:
    """The letters in order, None if it isn't about any; whether a value follows."""
    flat = re.sub(r"\\text\{([^{}]*)\}", r"\1", latex)
    label = _LABEL.match(flat)
    flat = flat[label.end() :] if label else flat
    flat = bare(re.sub(r",?\s*(?:\\lor|\b(?:and|or)\b)", ",", flat))
    if _LETTERS.fullmatch(flat) and (len(flat) <= 3 or "," in flat or ")" in flat):
        return sorted(re.findall("[A-Z]", flat)), False
    match = _LETTER_AND_VALUE.fullmatch(flat)
    return ([match[1] or match[2]], True) if match else (None, False)


def _based(gold: str, answer: str) -> bool | None:
    """Of a number in a base, whether both are the same; None if the reference isn't one."""
    wanted = _in_base(gold)
    if wanted is None:
        return None
    found = _in_base(answer) or (*_digits(answer), None)
    return wanted[:2] == found[:2] and found[2] in (wanted[2], None)


def _in_base(latex: str) -> tuple[str, str, int] | None:
    match = _BASE.fullmatch(latex)
    if not match:
        return None
    base = int(match[3][:4]) if match[3].isdigit() else _WORD_NUMBERS.get(match[3])
    if base is None or not 2 <= base <= 36:
        return None
    return match[1], match[2].lstrip("0") or "0", base


def _digits(latex: str) -> tuple[str, str]:
    match = re.fullmatch(r"(-?)\s*([0-9A-Z]+)", latex)
    return (match[1], match[2].lstrip("0") or "0") if match else ("", "")


# -- values --------------------------------------------------------------------------------------


def _has_equals(latex: str) -> bool:
    return _EQUALS.search(latex) is not None


def _right_side(latex: str) -> str:
    return bare(_EQUALS.split(latex)[-1])


def _assigned(latex: str) -> str | None:
    """The value of `x = 2`, where the left side is a name."""
    sides = _EQUALS.split(latex)
    return bare(sides[-1]) if _VARIABLE.fullmatch(bare(sides[0])) else None


def _exact_part(latex: str) -> str:
    """Without a label before it and an approximation after it."""
    latex = _without_label(latex)[0] or latex
    sides = [bare(one) for one in re.split(r"\\(?:approx|simeq)(?![a-z])", latex)]
    return next(filter(None, sides), "")


class _Measured(NamedTuple):
    value: str
    unit: str
    scale: int


def _measured(latex: str, letters: bool) -> _Measured:
    """A value without its unit; `letters`: whether a letter at its end may be one."""
    latex, unit, scale = bare(latex), "", 1
    if not _FUNCTION.search(latex):
        shorter = _DEGREE.sub("", latex)
        if shorter != latex and _DEGREE.search(latex[-12:]):
            latex, unit = bare(shorter), "degree"
    while True:
        match = _TEXT_UNIT.search(latex) or _PLAIN_UNIT.search(latex)
        if match is None and letters:
            match = _ONE_LETTER_UNIT.search(latex)
        if match is None or not bare(latex[: match.start()]):
            break
        words = match[1] + (match[2] if match.re is _TEXT_UNIT else "")
        for word in re.findall("[a-z]+", words.lower()):
            scale *= _SCALES.get(word, 1)
        unit = _unit(f"{words} {unit}")
        latex = bare(latex[: match.start()])
    if r"\$" in latex:
        latex, unit = bare(latex.replace(r"\$", "")), unit or "dollar"
    return _Measured(bare(latex), unit, scale)


def _unit(words: str) -> str:
    """Known units of measure in one way to write them; empty if there is an unknown word."""
    found: list[str] = []
    power = ""
    for token in re.findall(r"[A-Za-z]+|/|\^\{?\d\}?", words):
        word = token.lower()
        unit = _UNITS.get(word) or _UNITS.get(word.removesuffix("s"))
        if word in ("per", "/", "a"):
            found.append("/")
        elif word in _POWERS:
            power = _POWERS[word]
        elif token.startswith("^"):
            found.append(f"^{token.strip('^{}')}")
        elif word in _SCALES or word == "of":
            continue
        elif unit is None:
            return ""
        else:
            found.append(unit)
    if power and found and not any("^" in one for one in found):
        found.append(f"^{power}")
    return "".join(found)


def _same_value(gold: str, answer: str) -> bool:
    first, second = _measured(gold, letters=False), _measured(answer, letters=False)
    if (r"\text{" in gold or _PLAIN_UNIT.search(gold)) and not second.unit:
        second = _measured(answer, letters=True)
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
        r"(\d+(?:\.\d+)?|\([^()]*\)|\\frac\{\d+\}\{\d+\})" + _DEGREE.pattern,
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


def _value(latex: str) -> Any:
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
