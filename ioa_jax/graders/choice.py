r"""Multiple choice: the letter that a text answers.

It is found by the first of these rules that finds a letter, or several, and the last of a text
counts:

- `boxed`: what the last `\boxed{...}` holds, if that is a letter.
- `stated`: what is said after "answer is", "answer:" or the like, as of GPQA's and MMLU-Pro's own
  protocols.
- `alone`: the text, or its last line, is nothing but a letter, which its choice may follow.
- `none`: there is no letter, and the answer is wrong. No letter is guessed from within a sentence.

A letter may stand in brackets, and be bold or LaTeX's text.
"""

from __future__ import annotations

import re

from ioa_jax.errors import InputError
from ioa_jax.graders.base import GoldGrader, Item, Verdict
from ioa_jax.graders.latex import last_boxed

SOURCE = "string"

_OPENING = r"[\s*_$({\[\"'`]*(?:\\(?:text|mathrm|mathbf|textbf|boxed)\s*\{\s*)?[(\[]?"
# A letter that is a word of its own: "A" in "A reason" isn't one after all, nor in "A-level".
_LETTER = r"([A-Z])(?![A-Za-z0-9'\u2019-])"
_BOX = re.compile(
    rf"{_OPENING}(?:(?i:option|choice|answer)\b[\s:]*{_OPENING})?{_LETTER}(?:[\s)\]}}$*.:].*)?",
    re.DOTALL,
)
_STATED = re.compile(
    r"\b(?i:answer|choice|option)\b[*_]*(?:\s+(?i:is|would\s+be|should\s+be|must\s+be))?\s*[:=]?"
    rf"(?:\s*(?i:option|choice)\b\s*:?)?{_OPENING}{_LETTER}(?!\s+[a-z])"
)
_ALONE = re.compile(rf"{_OPENING}{_LETTER}[)\]}}*_$\"'`\s]*(?:[.:)].*)?")


class ChoiceGrader(GoldGrader):
    """Grades answers by their letter: the reference is the right one, `A` to `Z`."""

    def check_item(self, item: Item) -> None:
        """One reference, which is a letter.

        Raises:
            InputError: Otherwise.
        """
        if len(item.references) != 1 or not re.fullmatch("[A-Z]", item.references[0]):
            raise InputError(f"item {item.id!r}: field 'references': one letter is needed, A to Z")

    def _judge(self, item: Item, answer: str) -> Verdict:
        letter, rule = find_letter(answer)
        correct = letter == item.references[0]
        detail = "" if letter else "no letter found"
        return Verdict(correct, float(correct), letter, rule, SOURCE, detail)

    def grade_gold(self, item: Item) -> Verdict:
        """Judge the reference.

        Raises:
            InputError: As `check_item`.
        """
        self.check_item(item)
        return self.grade(item, item.references[0])


def find_letter(answer: str) -> tuple[str | None, str]:
    """The letter that an answer gives, and the rule that found it."""
    box = last_boxed(answer)
    match = _BOX.fullmatch(box) if box is not None else None
    if match:
        return match[1], "boxed"
    stated = _STATED.findall(answer)
    if stated:
        return stated[-1], "stated"
    lines = answer.strip().splitlines()
    match = _ALONE.fullmatch(lines[-1].strip()) if lines else None
    return (match[1], "alone") if match else (None, "none")
