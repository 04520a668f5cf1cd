"""A task's grader: opened, and checked by the task's own right answers."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ioa_jax.errors import InputError, SandboxError
from ioa_jax.graders.base import GoldGrader, Grader, Item
from ioa_jax.graders.registry import check_golds, make_grader
from suite.tasks.base import Style, Task

if TYPE_CHECKING:
    from ioa_jax.sandbox import Limits, SandboxInfo

log = logging.getLogger(__name__)

GRADING_THREADS = 2


def as_json(value: Any) -> Any:
    """What reading the written value gives: lists for tuples."""
    return json.loads(json.dumps(value))


@contextlib.contextmanager
def open_grader(
    task: Task, style: Style, allow_weak_sandbox: bool, limits: Limits | None = None
) -> Iterator[tuple[Grader, SandboxInfo | None]]:
    """A task's grader, and the sandbox's description where it runs programs.

    Args:
        task: Its task.
        style: Of the prompts that the graded texts answer.
        allow_weak_sandbox: Run programs although they can't be isolated here.
        limits: Of one program.

    Raises:
        InputError: The task's answers need a judge.
        SandboxError: Programs can't be isolated here.
    """
    if task.grader_kind == "judge":
        raise InputError(
            f"task {task.name!r}: no program can grade its answers; `python -m suite judge` has a "
            "model judge them"
        )
    if task.grader_kind == "code":
        from ioa_jax.sandbox import Sandbox

        with (
            Sandbox(limits, allow_weak=allow_weak_sandbox) as sandbox,
            make_grader("code", style=style, sandbox=sandbox) as grader,
        ):
            yield grader, sandbox.info
    else:
        with make_grader(task.grader_kind) as grader:
            yield grader, None


def check_grader(
    task: Task, items: Sequence[Item], grader: Grader, sandbox: SandboxInfo | None
) -> dict[str, Any]:
    """Check the items, and grade their own right answers: what fails would fail a model too.

    Returns:
        For the record: `kind`, `sandbox`, `golds` (how many were graded) and `gold_failures` (ids).

    Raises:
        InputError: An item lacks what the grader needs.
        SandboxError: A reference program doesn't pass, so that no verdict here could be trusted.
    """
    found: dict[str, Any] = {
        "kind": task.grader_kind,
        "sandbox": None if sandbox is None else as_json(dataclasses.asdict(sandbox)),
        "golds": 0,
        "gold_failures": [],
    }
    if not isinstance(grader, GoldGrader):
        return found
    for item in items:
        grader.check_item(item)
    known = [item for item in items if item.references]
    failures = check_golds(grader, known)
    for item, verdict in failures:
        log.warning("%s: %s: its own right answer fails: %s", task.name, item, verdict.detail)
    if sandbox is not None and failures:
        raise SandboxError(
            f"{task.name}: {len(failures)} reference programs don't pass in this sandbox, first "
            f"{failures[0][0]}: {failures[0][1].status}, {failures[0][1].detail}. Raise the limits "
            "or free the machine"
        )
    return found | {"golds": len(known), "gold_failures": [item for item, _ in failures]}
