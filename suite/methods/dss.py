"""Distilling Step-by-Step: rationale and label as two tasks of one student.

Paper: Hsieh et al., 2023 (arXiv 2305.02301).
Loop: the teacher answers each seed with a rationale and a final answer; the student learns to give
the answer to the task, and the rationale to the task with a prefix, with equal weights (lambda 1).
It is asked without the prefix: it answers at once.
Departures: only the rationale's task has a prefix, so that all methods are measured by one prompt;
both tasks' tokens count alike in the mean, where the paper adds two means. Where the teacher
doesn't say which part is the answer, it is what the seed's check judges: of an instruction that is
all, and one example.
"""

from __future__ import annotations

from suite.methods.base import (
    Answered,
    Method,
    MethodContext,
    MethodResult,
    as_chat,
    ask_rationales,
    example_pairs,
    fine_tune,
)

PREFIX = "[rationale] "


class DistillingStepByStep:
    """An answer with a rationale makes two examples."""

    summary = "rationale and answer as two tasks (Distilling Step-by-Step)"
    needs: tuple[str, ...] = ()

    def run(self, context: MethodContext) -> MethodResult:
        answered: list[Answered | None] = []
        explained = ask_rationales(context)
        for prompt, rationale, answer in explained:
            answered.append(Answered(as_chat(prompt), answer, True))
            if rationale:
                answered.append(Answered(as_chat(PREFIX + prompt), rationale, True))
        pairs = example_pairs(context, answered)
        notes = {"examples": len(pairs), "seeds": len(explained)}
        return MethodResult(fine_tune(context, pairs), notes)


METHOD: Method = DistillingStepByStep()
