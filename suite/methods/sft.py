"""Sequence-level distillation: supervised fine-tuning on one teacher answer a seed.

Paper: Kim and Rush, 2016 (arXiv 1606.07947); in the form of Alpaca (Taori et al., 2023).
Loop: the teacher answers each seed once; the student is trained on the answers, by cross-entropy on
their tokens alone.
Departures: the student's own chat template stands for Alpaca's; the answers are repeated until the
student's budget is used, rather than for three epochs; the teacher's budget is seldom used up.
"""

from __future__ import annotations

from suite.methods.base import (
    Method,
    MethodContext,
    MethodResult,
    answer_tasks,
    example_pairs,
    fine_tune,
)


class SupervisedFineTuning:
    """All seeds at once, in a new order each epoch."""

    summary = "supervised fine-tuning on one teacher answer a seed"
    needs: tuple[str, ...] = ()

    def run(self, context: MethodContext) -> MethodResult:
        answered, _ = answer_tasks(context, [seed.messages for seed in context.seeds])
        pairs = example_pairs(context, answered)
        return MethodResult(fine_tune(context, pairs), {"examples": len(pairs)})


METHOD: Method = SupervisedFineTuning()
