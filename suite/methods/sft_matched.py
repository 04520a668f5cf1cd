"""The compute-matched control: supervised fine-tuning on as many teacher tokens as IOA spends.

Paper: none; reviewers of IOA asked for it. What `sft` is to its seeds, this is to the budget.
Loop: the teacher answers every seed again and again, a new sample each time, until it has generated
as many tokens as the cell of `ioa` with the same seed did, or the whole budget where the run has no
`ioa`; the student is trained on all answers.
Departures: rounds after the first are sampled at a temperature of 0.7 where the first is greedy.
Answers that the student's budget couldn't be spent on once are not asked for.
"""

from __future__ import annotations

from ioa_jax.engine.batching import TokenPair
from ioa_jax.teachers.spend import Budget
from suite.methods.base import (
    Method,
    MethodContext,
    MethodResult,
    answer_tasks,
    example_pairs,
    fine_tune,
    token_count,
)
from suite.schema import read_file
from suite.schema.models import CellFile

MATCHED = "ioa"


class MatchedFineTuning:
    """Rounds of answers, until a budget ends."""

    summary = "supervised fine-tuning on as many teacher tokens as IOA spends"
    needs: tuple[str, ...] = (MATCHED,)

    def run(self, context: MethodContext) -> MethodResult:
        allowed = context.budgets.teacher_tokens
        other = context.cell_of(MATCHED)
        if other is not None:
            spent = read_file(CellFile, other / "cell.json").spend.teacher_tokens
            # What it retains of that cell was paid for there.
            allowed = min(allowed, max(1, spent - context.retention.teacher_tokens))
        context.teacher.budget = Budget(max_tokens=allowed)
        chats = [seed.messages for seed in context.seeds]
        pairs: list[TokenPair] = []
        rounds, more = 0, True
        while more and token_count(pairs) < context.budgets.student_tokens:
            answered, more = answer_tasks(context, chats, sample=rounds)
            new = example_pairs(context, answered)
            pairs += new
            rounds += 1
            # A teacher that has nothing to say would be asked for ever.
            more = more and bool(new)
        notes = {"examples": len(pairs), "rounds": rounds, "teacher_tokens_allowed": allowed}
        return MethodResult(fine_tune(context, pairs), notes)


METHOD: Method = MatchedFineTuning()
