"""Graders by name, and the check of a data set by its own right answers."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ioa_jax.errors import InputError
from ioa_jax.graders.base import GoldGrader, Grader, Item, Verdict

_CLASSES = {
    "math": ("maths", "MathGrader"),
    "number": ("numbers", "NumberGrader"),
    "code": ("code", "CodeGrader"),
    "instruction": ("instructions", "InstructionGrader"),
    "rouge": ("rouge", "RougeGrader"),
    "exact": ("exact", "ExactGrader"),
    "choice": ("choice", "ChoiceGrader"),
    "mixed": ("mixed", "MixedGrader"),
}


def make_grader(kind: str, **settings: Any) -> Grader:
    """A grader, made by keyword from its settings; its libraries are imported only now.

    Args:
        kind: `math`, `number`, `code`, `instruction`, `rouge`, `exact`, `choice` or
            `mixed`.
        settings: What the class takes, see there.

    Raises:
        InputError: No such kind or setting, or a setting's value is out of range.
    """
    if kind not in _CLASSES:
        raise InputError(f"grader {kind!r}: there are {', '.join(_CLASSES)}")
    module, name = _CLASSES[kind]
    grader: type = getattr(importlib.import_module(f"ioa_jax.graders.{module}"), name)
    known = list(inspect.signature(grader).parameters)
    for setting in settings:
        if setting not in known:
            raise InputError(
                f"grader {kind!r}: setting {setting!r}: there are {', '.join(known) or 'none'}"
            )
    return grader(**settings)


def check_golds(
    grader: Grader, items: Iterable[Item], threads: int = 4
) -> list[tuple[str, Verdict]]:
    """Grade each item's own right answer: where that fails, a model's right answer may fail too.

    Args:
        grader: One that has right answers, which is all but `instruction`.
        items: To be checked.
        threads: As many are graded at a time.

    Returns:
        Id and verdict of the items whose gold isn't correct, in the order of the items.

    Raises:
        InputError: The grader has no right answers, or an item lacks what it needs.
    """
    if not isinstance(grader, GoldGrader):
        raise InputError(f"{type(grader).__name__}: its items have no right answer to check")
    items = list(items)
    for item in items:
        grader.check_item(item)
    with ThreadPoolExecutor(threads) as pool:
        verdicts = list(pool.map(grader.grade_gold, items))
    return [
        (item.id, verdict)
        for item, verdict in zip(items, verdicts, strict=True)
        if not verdict.correct
    ]
