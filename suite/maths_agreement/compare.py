"""Judgements of the forms of MATH's references, by our grader and by others' rules."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from ioa_jax.graders.base import Item
from ioa_jax.graders.maths import MathGrader
from ioa_jax.graders.worker import WorkerPool
from suite.data import DataSource
from suite.maths_agreement.forms import FORMS, Case, Form
from suite.tasks.maths import MATH_TEST, MATH_TRAIN, boxed_answer

OTHERS = ("math-verify", "Minerva", "Qwen")
CPU_SECONDS = 10.0  # as of our grader
WALL_SECONDS = 60.0
MEMORY_BYTES = 2 << 30


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What one judge makes of an answer.

    Attributes:
        correct: Whether it takes it for the reference; no where it was stopped at a limit.
        read: The answer as it read it, of others' rules.
        stopped: Why there is no verdict; else empty.
    """

    correct: bool
    read: str = ""
    stopped: str = ""


@dataclasses.dataclass(frozen=True)
class Judged:
    """An answer with all judgements.

    Attributes:
        case: What it was made of.
        form: How.
        text: The answer.
        ours: Our grader's.
        others: By name, of `OTHERS`.
    """

    case: Case
    form: Form
    text: str
    ours: Judgement
    others: dict[str, Judgement]


def load_references(data: DataSource) -> list[str]:
    """The distinct references of MATH's test and train sets, as far as they are there, in order.

    Raises:
        InputError: The data aren't there.
    """
    distinct: dict[str, str] = {}
    for source in (MATH_TEST, MATH_TRAIN):
        for number, row in enumerate(data.load(source).rows):
            reference = boxed_answer(row["solution"], f"{source.name} {number}")
            # Spaces make no difference. A box of MATH's is empty.
            if reference:
                distinct.setdefault("".join(reference.split()), reference)
    return list(distinct.values())


def make_cases(references: Sequence[str], every: int) -> list[Case]:
    """One in `every` of distinct references, each with those next to it."""
    ordered = sorted(references)
    similar = dict(zip(ordered, [*ordered[1:], ordered[0]], strict=True))
    following = [*references[1:], references[0]]
    cases = [
        Case(reference, neighbour, similar[reference])
        for reference, neighbour in zip(references, following, strict=True)
    ]
    return cases[::every]


def judge(cases: Sequence[Case]) -> Iterator[Judged]:
    """Have every form of every case judged, each in a process with limits.

    Raises:
        MissingDependencyError: A process can't import what it needs.
    """
    module = "suite.maths_agreement.worker"
    pool = WorkerPool(module, 1, CPU_SECONDS, WALL_SECONDS, MEMORY_BYTES)
    try:
        with MathGrader(1, CPU_SECONDS, WALL_SECONDS, MEMORY_BYTES) as grader:
            for case in cases:
                for form in FORMS:
                    text = form.make(case)
                    if text is not None:
                        others = {name: _by(name, pool, case.reference, text) for name in OTHERS}
                        yield Judged(case, form, text, _ours(grader, case.reference, text), others)
    finally:
        pool.close()


def _ours(grader: MathGrader, reference: str, text: str) -> Judgement:
    verdict = grader.grade(Item(id=reference, prompt="", references=(reference,)), text)
    stopped = verdict.detail if verdict.source == "timeout" else ""
    return Judgement(verdict.correct, verdict.extracted or "", stopped)


def _by(name: str, pool: WorkerPool, reference: str, text: str) -> Judgement:
    reply = pool.ask({"rules": name, "gold": reference, "text": text})
    if reply.value is None:
        return Judgement(False, stopped=reply.detail)
    if "error" in reply.value:
        return Judgement(False, stopped=reply.value["error"])
    return Judgement(reply.value["correct"], reply.value["read"])
