"""Teacher and student as two roles: errors are corrected and then practised by analogy.

Paper: none of its own. It takes up what multi-agent distillation with teacher and student roles has
in common; the paper's baseline of that kind can't be identified from public sources, and this isn't
called by its name.
Loop, three rounds: the student, as trained so far, attempts every seed, and each attempt is
checked. To a wrong one the teacher replies with what is wrong with it, an everyday analogy and the
whole solution (error correction), and it poses an analogous task, which it answers too (analogy).
To a right one it gives its own plain answer, once. The student goes on training with all of this so
far.
Departures: a third of the student's budget a round. The embedded teacher's correction is its plain
solution.
"""

from __future__ import annotations

from ioa_jax.engine.batching import TokenPair
from ioa_jax.seeds import SeedItem
from suite.methods.base import (
    Answered,
    Method,
    MethodContext,
    MethodResult,
    answer_tasks,
    answers_of,
    as_chat,
    ask_texts,
    check_answers,
    example_pairs,
    fine_tune,
)
from suite.methods.prompting import render

ROUNDS = 3


class MultiAgent:
    """Attempt, correction, analogy."""

    summary = "teacher and student roles: error correction and analogy"
    needs: tuple[str, ...] = ()

    def run(self, context: MethodContext) -> MethodResult:
        student = context.student
        pairs: list[TokenPair] = []
        praised: set[str] = set()
        wrong: list[int] = []
        more = True
        for number in range(1, ROUNDS + 1):
            if more:
                attempts = answers_of(context, student, [seed.messages for seed in context.seeds])
                correct = check_answers(context, context.seeds, attempts)
                graded = list(zip(context.seeds, attempts, correct, strict=True))
                failed = [(seed, attempt) for seed, attempt, right in graded if not right]
                passed = [seed for seed, _, right in graded if right and seed.id not in praised]
                praised |= {seed.id for seed in passed}
                wrong.append(len(failed))
                taught, more = _reply(context, failed, passed, number)
                pairs += example_pairs(context, taught)
            student = fine_tune(
                context,
                pairs,
                f"round{number}",
                tokens=context.budgets.student_tokens // ROUNDS,
                start=student,
            )
        return MethodResult(student, {"examples": len(pairs), "wrong_seeds": wrong})


def _reply(
    context: MethodContext,
    failed: list[tuple[SeedItem, str]],
    passed: list[SeedItem],
    number: int,
) -> tuple[list[Answered | None], bool]:
    """What the teacher says to a round's attempts, and whether budget is left."""
    first = number * 2 * len(context.seeds)
    corrections, corrected = ask_texts(
        context,
        [
            render(context.pack, "correct", prompt=seed.prompt, attempt=attempt)
            for seed, attempt in failed
        ],
        "correction",
        context.sampling,
        first,
    )
    analogies, posed = ask_texts(
        context,
        [render(context.pack, "similar", prompt=seed.prompt) for seed, _ in failed],
        "analogy",
        context.sampling,
        first + len(context.seeds),
    )
    chats = [as_chat(task) for task in analogies if task]
    chats += [seed.messages for seed in passed]
    answered, complete = answer_tasks(context, chats)
    taught: list[Answered | None] = [
        Answered(seed.messages, text, True)
        for (seed, _), text in zip(failed, corrections, strict=True)
        if text
    ]
    return [*taught, *answered], corrected and posed and complete


METHOD: Method = MultiAgent()
