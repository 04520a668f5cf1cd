"""Items of several kinds of check in one set."""

from __future__ import annotations

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Grader, Item, Verdict
from ioa_jax.graders.by_kind import Graders

_KINDS = ("exact", "instruction", "rouge")


class MixedGrader(Grader):
    """Grades each item by the grader that `data["check"]` names.

    It is `exact`, `instruction` or `rouge`; an item has what that grader needs, and its verdicts
    are that grader's.
    """

    def __init__(self) -> None:
        """A grader is made when the first item needs it."""
        self._graders = Graders()

    def check_item(self, item: Item) -> None:
        """As the grader that it names.

        Raises:
            InputError: It names none, or lacks what that one needs.
        """
        self._grader(item).check_item(item)

    def grade(self, item: Item, text: str) -> Verdict:
        """Judge a text by the item's own kind of check.

        Raises:
            InputError: As `check_item`.
        """
        return self._grader(item).grade(item, text)

    def close(self) -> None:
        """End the worker processes of those that were made."""
        self._graders.close()

    def _grader(self, item: Item) -> Grader:
        kind = str(item.data.get("check"))
        if kind not in _KINDS:
            raise InputError(
                f"item {item.id!r}: field 'check': {kind!r}: one of {', '.join(_KINDS)}"
            )
        return self._graders.of(kind)
