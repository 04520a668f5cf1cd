"""Other methods with the retention that the cell of `ioa` with the same seed has.

Paper: none; controls that tell what retention alone is worth.
Loop: the method as it is, with a part of the training rows for what that cell retains: problems of
the modules that the student has mastered, answered by the student before, on which training keeps
it near what it was.
Departures: which modules these are comes from that cell's diagnosis, for nothing; what the further
problems of these modules cost the teacher is taken off the method's budget.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ioa_jax.errors import InputError
from ioa_jax.files import is_there, read_json, read_value
from ioa_jax.organizer.retention import Retained
from ioa_jax.teachers.spend import Budget
from suite.methods.base import (
    Method,
    MethodContext,
    MethodResult,
    Retention,
    as_chat,
    fits,
)

RETAINS = "ioa"


class RetainedMethod:
    """A method, and what `ioa` retains."""

    def __init__(self, method: Method) -> None:
        """Take the method."""
        self.summary = f"{method.summary}; with the retention of ioa"
        self.needs = (RETAINS, *(need for need in method.needs if need != RETAINS))
        self._method = method

    def run(self, context: MethodContext) -> MethodResult:
        retention = read_retention(context, RETAINS)
        left = max(1, context.budgets.teacher_tokens - retention.teacher_tokens)
        context.teacher.budget = Budget(max_tokens=left)
        context = dataclasses.replace(
            context,
            retention=retention,
            budgets=context.budgets.model_copy(update={"teacher_tokens": left}),
        )
        result = self._method.run(context)
        notes = {"retained": len(retention.pairs), "retained_share": retention.share}
        return dataclasses.replace(result, notes={**result.notes, **notes})


def needed_cell(context: MethodContext, method: str) -> Path:
    """The folder of another method's finished cell.

    Raises:
        InputError: The run doesn't have that method, or its cell isn't complete.
    """
    cell = context.cell_of(method)
    if cell is None:
        raise InputError(f"this control needs the method {method!r} in the profile's methods")
    return cell


def read_retention(context: MethodContext, method: str) -> Retention:
    """What a cell of `ioa` retained, as it did; nothing where it retained nothing."""
    folder = needed_cell(context, method) / "distill"
    if not is_there(folder / "retained.json"):
        return Retention()
    retained = read_value(folder / "retained.json", Retained)
    record = read_json(folder / "record.json")
    settings = record["config"]["organizer"]["retention"]
    pairs = [
        context.student.answer_pair(as_chat(one.prompt), one.answer) for one in retained.examples
    ]
    spent = record["spend"]["teacher"].get("retention", {"completion_tokens": 0})
    return Retention(
        pairs=tuple(pair for pair in pairs if fits(context, pair)),
        share=settings["share"] * len(retained.modules) / len(record["performance"]),
        kind="replay" if settings["kind"] == "replay" else "divergence",
        weight=settings["weight"],
        teacher_tokens=spent["completion_tokens"],
    )
