r"""Minerva's rules for final answers, written from their description.

Lewkowycz et al., "Solving Quantitative Reasoning Problems with Language Models" (2022), appendix D,
as lm-evaluation-harness 0.4.13's `minerva_math` applies them: equal texts are equal, others if
SymPy finds a difference of 0; unit words aren't taken out of commands, nor commas but where they
set thousands apart. The answer is what Minerva's closing sentence says. Its prompt asks for that
sentence; of a text that has a box instead, the last box is the answer here, as it is in the
references.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import sympy
from sympy.parsing.latex import parse_latex

from ioa_jax.graders.latex import last_boxed

_SENTENCE = re.compile(r"Final Answer: The final answer is(.*?). I hope it is correct\.")
_REPLACED = (
    ("an ", ""), ("a ", ""), (".$", "$"), (r"\$", ""), ("\\ ", ""), (" ", ""), ("mbox", "text"),
    (r",\text{and}", ","), (r"\text{and}", ","), (r"\text{m}", r"\text{}"),
)  # fmt: skip
_WORDS = (
    "square|ways|integers|dollars|mph|inches|ft|hours|km|units|sue|points|feet|minutes|digits|cents|"
    "degrees|cm|gm|pounds|meters|meals|edges|students|childrentickets|multiples"
)
_REMOVED = (
    r"\ldots", r"\text{s}", r"\text{.}", "\\text{\ns}", r"\text{}^2", r"\text{}^3", "\\text{\n}",
    r"\text{}", r"\mathrm{th}", r"^\circ", r"^{\circ}", r"\;", r",\!", "{,}", '"', r"\dots",
)  # fmt: skip
# A reference is compared with many answers.
_parsed: Callable[[str], Any] = functools.lru_cache(1000)(parse_latex)
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+")


def judge(gold: str, text: str) -> tuple[bool, str]:
    """Whether a text's answer is the reference, in LaTeX without delimiters; the answer as read."""
    stated = _SENTENCE.search(text)
    found = stated[1].strip() if stated else last_boxed(text)
    if found is None:
        return False, ""
    answer = normalized(found)
    return equivalent(answer, normalized(gold)), answer


def normalized(answer: str) -> str:
    """An answer as it is compared."""
    answer = re.sub(rf"(?<!\\)\b(?:{_WORDS})\b", "", answer.split("=")[-1])
    for before, after in _REPLACED:
        answer = answer.replace(before, after)
    answer = re.sub(rf"(\\[A-Za-z]+)|{_WORDS}", lambda match: match[1] or "", answer)
    for removed in _REMOVED:
        answer = answer.replace(removed, "")
    answer = re.sub(r".*?\$(.*?)\$.*", r"\1", answer)
    for command in ("text", "textbf", "overline"):
        answer = re.sub(rf"\\{command}\{{(.*?)\}}", r"\1", answer)
    answer = re.sub(r"\\boxed\{(.*)\}", r"\1", answer)
    answer = re.sub(r"frac([^{])(.)", r"frac{\1}{\2}", answer)
    answer = re.sub(r"sqrt(\[[^\]]*\])(\w)", r"sqrt\1{\2}", answer)
    answer = re.sub(r"sqrt([^{\[])", r"sqrt{\1}", answer).replace("$", "")
    return answer.replace(",", "") if _THOUSANDS.fullmatch(answer) else answer


def equivalent(answer: str, gold: str) -> bool:
    """Whether two normalised answers are the same text, or differ by 0."""
    if answer and answer == gold:
        return True
    try:
        return bool(sympy.simplify(_parsed(answer) - _parsed(gold)) == 0)
    except Exception:
        # SymPy raises whatever it likes at what it can't read or subtract, which then isn't equal.
        return False
