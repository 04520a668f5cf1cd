"""LLM2LLM: more data like the seeds that the student still gets wrong.

Paper: Lee et al., 2024 (arXiv 2403.15042).
Loop: the data begin as the seeds with their references. In each iteration the student as it was
before all training is trained on the data so far and answers the seeds; for each that it gets wrong
the teacher writes a new task like it (temperature 1) and answers it. Those with ROUGE-L over 0.95
to their seed are dropped, the others join the data. Only seeds are augmented, never what was made.
Departures: three iterations, not ten, since each begins anew and all count on one student budget,
of which they have 1/6, 1/3 and 1/2; task and answer are two calls.
"""

from __future__ import annotations

import dataclasses

from suite.methods.base import (
    Answered,
    Method,
    MethodContext,
    MethodResult,
    Novelty,
    answer_tasks,
    answers_of,
    as_chat,
    ask_texts,
    check_answers,
    example_pairs,
    fine_tune,
)
from suite.methods.prompting import render

SHARES = (1 / 6, 1 / 3, 1 / 2)
MAX_LIKENESS = 0.95


class LLM2LLM:
    """Targets errors on the seeds."""

    summary = "more data like what the student gets wrong (LLM2LLM)"
    needs: tuple[str, ...] = ()

    def run(self, context: MethodContext) -> MethodResult:
        data: list[Answered | None] = [
            Answered(seed.messages, seed.reference, True) for seed in context.seeds
        ]
        student = context.student
        wrong: list[int] = []
        more = True
        for iteration, share in enumerate(SHARES, start=1):
            student = fine_tune(
                context,
                example_pairs(context, data),
                f"iteration{iteration}",
                tokens=int(share * context.budgets.student_tokens),
            )
            if iteration == len(SHARES) or not more:
                continue
            texts = answers_of(context, student, [seed.messages for seed in context.seeds])
            correct = check_answers(context, context.seeds, texts)
            failed = [
                seed.prompt for seed, right in zip(context.seeds, correct, strict=True) if not right
            ]
            wrong.append(len(failed))
            new, more = _similar(context, failed, iteration)
            data += new
        return MethodResult(student, {"examples": len(data), "wrong_seeds": wrong})


def _similar(
    context: MethodContext, prompts: list[str], iteration: int
) -> tuple[list[Answered | None], bool]:
    """A new task with its answer for each prompt, and whether budget is left."""
    sampling = dataclasses.replace(context.sampling, temperature=1.0)
    chats = [render(context.pack, "similar", prompt=prompt) for prompt in prompts]
    first = iteration * len(context.seeds)
    texts, more = ask_texts(context, chats, "new tasks", sampling, first)
    new = [
        text
        for prompt, text in zip(prompts, texts, strict=True)
        if text and Novelty(context.pack, [prompt], MAX_LIKENESS).add(text)
    ]
    answered, answers_more = answer_tasks(context, [as_chat(task) for task in new])
    return [one for one in answered if one is not None], more and answers_more


METHOD: Method = LLM2LLM()
