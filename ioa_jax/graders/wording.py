"""What isn't mathematics in an answer: words, labels, choice letters, times, a number's base."""

from __future__ import annotations

import re

from ioa_jax.graders.latex import bare

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
LETTER_AND_VALUE = re.compile(r"(?:\(([A-Z])\)|([A-Z])[).:])\s*(\S.*)", re.DOTALL)
_LABEL = re.compile(r"\s*(?:option|choice|answer)s?\s*:?\s*", re.IGNORECASE)
_ORDINAL = re.compile(r"(?<=\d)\s*(?:st|nd|rd|th)\b")
_MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
_DAY_FIRST = re.compile(rf"\b(\d{{1,2}}) (?:of )?({_MONTHS})\b")
_CLOCK = re.compile(r"0?(\d{1,2}(?::\d\d){1,2})([ap]m)?")


def without_spaces(latex: str) -> str:
    """All characters but white space."""
    return "".join(latex.split())


def plain_words(latex: str) -> str:
    """In lower case, without markup and punctuation."""
    text = re.sub(r"\\text\{([^{}]*)\}", r"\1", latex)
    words = " ".join(re.sub(r"[\\{}.,;:'\"$~^]", " ", text).lower().split())
    return _DAY_FIRST.sub(r"\2 \1", _ORDINAL.sub("", words))


def is_words(latex: str) -> bool:
    r"""Words, with numbers at most after them, as in `\text{June }20`."""
    if re.match(r"\\text\{[^{}]*[A-Za-z]{2,}", latex):
        return not without_label(latex)[0]
    return re.fullmatch(r"[A-Za-z]{3,}(?:[ -][A-Za-z]+)*", latex) is not None


def without_label(latex: str) -> tuple[str, str]:
    r"""What follows a label such as `\text{Area} =`, and the label; empty if there is none."""
    match = re.match(r"(\\text\{[^{}]*\}\s*=|\\text\{[^{}]*\b(?:is|are|[:=])\s*\})\s*(\S.*)", latex)
    return (match[2], match[1]) if match else ("", "")


def time_of_day(latex: str) -> tuple[str, str] | None:
    """A time of day, and which half of it; None if it is none."""
    match = _CLOCK.fullmatch(re.sub(r"\\text|[\s.{}]", "", latex).lower())
    return (match[1], match[2] or "") if match else None


def chosen_letters(latex: str) -> tuple[list[str] | None, bool]:
    """The letters in order, None if it isn't about any; whether a value follows."""
    flat = re.sub(r"\\text\{([^{}]*)\}", r"\1", latex)
    label = _LABEL.match(flat)
    flat = flat[label.end() :] if label else flat
    flat = bare(re.sub(r",?\s*(?:\\lor|\b(?:and|or)\b)", ",", flat))
    if _LETTERS.fullmatch(flat) and (len(flat) <= 3 or "," in flat or ")" in flat):
        return sorted(re.findall("[A-Z]", flat)), False
    match = LETTER_AND_VALUE.fullmatch(flat)
    return ([match[1] or match[2]], True) if match else (None, False)


def read_in_base(latex: str) -> tuple[str, str, int] | None:
    """Sign, digits and base of a number such as `12_3`; None if it is none."""
    match = _BASE.fullmatch(latex)
    if not match:
        return None
    base = int(match[3][:4]) if match[3].isdigit() else _WORD_NUMBERS.get(match[3])
    if base is None or not 2 <= base <= 36:
        return None
    return match[1], match[2].lstrip("0") or "0", base


def bare_digits(latex: str) -> tuple[str, str]:
    """Sign and digits of a number without a base; both empty if it is none."""
    match = re.fullmatch(r"(-?)\s*([0-9A-Z]+)", latex)
    return (match[1], match[2].lstrip("0") or "0") if match else ("", "")
