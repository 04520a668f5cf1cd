"""Answers that have to be a certain text."""

from __future__ import annotations

import unicodedata

from ioa_jax.errors import InputError
from ioa_jax.graders.base import GoldGrader, Item, Verdict

SOURCE = "string"


class ExactGrader(GoldGrader):
    """Grades whole texts against `Item.references`: equal to one of them after `normalise`.

    A verdict's `rule` is `whole` or, with `ignore_case`, `whole_ignoring_case`.
    """

    def __init__(self, ignore_case: bool = False) -> None:
        """`ignore_case`: whether upper and lower case are the same."""
        self._ignore_case = ignore_case

    def check_item(self, item: Item) -> None:
        """At least one reference, none of them blank.

        Raises:
            InputError: Otherwise.
        """
        if not item.references or not all(one.strip() for one in item.references):
            raise InputError(f"item {item.id!r}: field 'references': a text is needed")

    def _judge(self, item: Item, answer: str) -> Verdict:
        extracted = normalise(answer, self._ignore_case)
        correct = extracted in {normalise(one, self._ignore_case) for one in item.references}
        rule = "whole_ignoring_case" if self._ignore_case else "whole"
        return Verdict(correct, float(correct), extracted, rule, SOURCE)

    def grade_gold(self, item: Item) -> Verdict:
        """Judge the first reference.

        Raises:
            InputError: As `check_item`.
        """
        self.check_item(item)
        return self.grade(item, item.references[0])


def normalise(text: str, ignore_case: bool = False) -> str:
    """Unicode NFC, white space at the ends dropped and elsewhere one space each."""
    text = " ".join(unicodedata.normalize("NFC", text).split())
    return text.casefold() if ignore_case else text
