"""Units of measure behind a value.

A unit may be left out, or added. Two units of measure that are known (`_UNITS`) must be the same;
other words after a number aren't compared. Degrees are a unit only at a number's end.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ioa_jax.graders.latex import bare

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
PLAIN_UNIT = re.compile(
    rf"(?<=[\d}})\s])((?:\s*\b|(?<=\d))(?:{_PLAIN_UNITS})\.?"
    rf"(?:(?:\s+|\s*/\s*)(?:{_PLAIN_UNITS}|per)\.?)*(?:\^\{{?[23]\}}?)?)$"
)
_ONE_LETTER_UNIT = re.compile(r"(?<=[\d}\s])\s*([mgslh](?:\^\{?[23]\}?)?)$")
_TEXT_UNIT = re.compile(r"(?:\\text\{([^{}]*)\})((?:\^\{?\d\}?)?)$")
DEGREE = re.compile(r"\s*\^\s*\{?\s*\\circ\s*\}?")
_FUNCTION = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|arc\w+)(?![a-z])|\b(?:sin|cos|tan)\b")


class _Measured(NamedTuple):
    value: str
    unit: str
    scale: int


def split_unit(latex: str, letters: bool) -> _Measured:
    """A value without its unit; `letters`: whether a letter at its end may be one."""
    latex, unit, scale = bare(latex), "", 1
    if not _FUNCTION.search(latex):
        shorter = DEGREE.sub("", latex)
        if shorter != latex and DEGREE.search(latex[-12:]):
            latex, unit = bare(shorter), "degree"
    while True:
        match = _TEXT_UNIT.search(latex) or PLAIN_UNIT.search(latex)
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
