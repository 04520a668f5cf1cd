"""Words of a text in any script, for measures of likeness.

Unicode NFKC first, so that one text has one way to be written. Scripts that are written without
spaces (Chinese, Japanese, Thai, Lao, Khmer and Burmese) give a word a character, with its marks.
"""

from __future__ import annotations

import re
import sys
import unicodedata

_UNSPACED_RANGES = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # radicals, kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
)
# Vowel signs and accents, which aren't letters to a regular expression.
_MARKS = "".join(
    re.escape(chr(code))
    for code in range(sys.maxunicode)
    if code < 0x20000 and unicodedata.category(chr(code)).startswith("M")
)
_LETTER = rf"(?![{_UNSPACED_RANGES}])[^\W_]"
_WORD = re.compile(rf"[{_UNSPACED_RANGES}][{_MARKS}]*|{_LETTER}(?:{_LETTER}|[{_MARKS}])*")
_TOKEN = re.compile(
    rf"[{_UNSPACED_RANGES}][{_MARKS}]*|(?:(?![{_UNSPACED_RANGES}])[\w{_MARKS}])+|[^\w\s]"
)
# Soft hyphens, marks of direction and the like, which part no words.
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200e\u200f\u2060\ufeff"))
_UNSPACED = re.compile(f"[{_UNSPACED_RANGES}]")


def words(text: str) -> list[str]:
    """Words in lower case, without signs and underscores."""
    return [word for word in _WORD.findall(_normalised(text)) if word[0].isalnum()]


def words_and_signs(text: str) -> list[str]:
    """Words in lower case, and each sign."""
    return _TOKEN.findall(_normalised(text))


def is_character(word: str) -> bool:
    """Whether it is one character of a script that is written without spaces."""
    return _UNSPACED.match(word) is not None


def _normalised(text: str) -> str:
    # Case folding, since some letters have no upper case of their own; of ASCII it is lower case.
    return unicodedata.normalize("NFKC", text).casefold().translate(_INVISIBLE)
