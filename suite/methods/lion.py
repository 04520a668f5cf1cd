"""Lion: imitation, discrimination of hard tasks by a referee, generation of new ones after them.

Paper: Jiang et al., 2023 (arXiv 2305.12870).
Loop, three times: the student imitates the teacher's answers to the train pool, going on from where
it is; teacher and student answer the cache of all tasks, and a referee, which is the teacher,
scores both answers from 1 to 10 in both orders (temperature 0.2); a task is hard where the
teacher's mean score is higher by 1 or more. The teacher writes new hard tasks after hard ones and
new easy ones after easy ones, half and half; those with ROUGE-L of at most 0.7 to the cache replace
the train pool and join the cache. The first pool is the seeds.
Departures: a third of the student's budget an iteration; the last one ends with imitation. Of the
cache, only the newest pool is discriminated. A pair of scores that can't be read doesn't count,
where the released code takes it for -1 and so for a huge gap. The embedded teacher can't referee:
in the micro pack a task is hard where the student's final answer isn't the teacher's.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from ioa_jax.graders.maths import last_boxed
from ioa_jax.streams import stream
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
    example_pairs,
    fine_tune,
)
from suite.methods.prompting import render

ITERATIONS = 3
HARD_GAP = 1.0
MIN_WORDS = 4
_SCORES = re.compile(r"^\D*(\d+(?:\.\d+)?)\D+(\d+(?:\.\d+)?)")


class Lion:
    """Adversarial: what the student does worst is what it gets more of."""

    summary = "imitate, find hard tasks by a referee, generate more of them (Lion)"
    needs: tuple[str, ...] = ()

    def run(self, context: MethodContext) -> MethodResult:
        tasks = [seed.prompt for seed in context.seeds]
        novelty = Novelty(context.pack, tasks)
        student = context.student
        pool, more = _answer(context, tasks)
        notes: dict[str, list[int]] = {"pool": [], "hard": [], "easy": []}
        for iteration in range(1, ITERATIONS + 1):
            student = fine_tune(
                context,
                example_pairs(context, list(pool.values())),
                f"imitate{iteration}",
                tokens=context.budgets.student_tokens // ITERATIONS,
                start=student,
            )
            notes["pool"].append(len(pool))
            if iteration == ITERATIONS or not more:
                continue
            attempts = answers_of(context, student, [as_chat(task) for task in pool])
            hard, more = _hard_tasks(context, pool, attempts, iteration)
            notes["hard"].append(len(hard))
            notes["easy"].append(len(pool) - len(hard))
            new, generated = _new_tasks(context, list(pool), hard, iteration)
            fresh = [task for task in new if _is_long_enough(context, task) and novelty.add(task)]
            answered, answers_more = _answer(context, fresh)
            more = more and generated and answers_more
            # Without anything new, the student goes on with what there is.
            pool = answered or pool
        return MethodResult(student, dict(notes))


def _answer(context: MethodContext, tasks: Sequence[str]) -> tuple[dict[str, Answered], bool]:
    answered, more = answer_tasks(context, [as_chat(task) for task in tasks])
    return {t: one for t, one in zip(tasks, answered, strict=True) if one is not None}, more


def _hard_tasks(
    context: MethodContext, pool: dict[str, Answered], attempts: Sequence[str], iteration: int
) -> tuple[set[str], bool]:
    """Tasks that the student does worse, and whether budget is left."""
    if context.pack == "micro":
        return {
            task
            for (task, answered), attempt in zip(pool.items(), attempts, strict=True)
            if _final(answered.text) != _final(attempt)
        }, True
    chats = [
        render(context.pack, "judge", prompt=task, first=first, second=second)
        for (task, answered), attempt in zip(pool.items(), attempts, strict=True)
        for first, second in ((answered.text, attempt), (attempt, answered.text))
    ]
    sampling = dataclasses.replace(context.sampling, temperature=0.2)
    texts, more = ask_texts(context, chats, "referee", sampling, iteration * 2 * len(context.seeds))
    hard: set[str] = set()
    for place, task in enumerate(pool):
        ahead, behind = (read_scores(text) for text in texts[2 * place : 2 * place + 2])
        if ahead is None or behind is None:
            continue
        gap = (ahead[0] + behind[1]) / 2 - (ahead[1] + behind[0]) / 2
        if gap >= HARD_GAP:
            hard.add(task)
    return hard, more


def read_scores(text: str | None) -> tuple[float, float] | None:
    """The two scores in a referee's first line, each from 1 to 10; None if it has none."""
    match = _SCORES.match(text or "")
    if match is None:
        return None
    first, second = float(match[1]), float(match[2])
    return (first, second) if 1 <= first <= 10 and 1 <= second <= 10 else None


def _new_tasks(
    context: MethodContext, tasks: list[str], hard: set[str], iteration: int
) -> tuple[list[str], bool]:
    """As many as there are seeds: half after hard tasks, half after easy ones."""
    rng = stream(context.seed, "lion", iteration)
    sources = {
        "harder": [task for task in tasks if task in hard] or tasks,
        "breadth": [task for task in tasks if task not in hard] or tasks,
    }
    chats = [
        render(context.pack, template, prompt=source[rng.integers(len(source))])
        for template, source in sources.items()
        for _ in range(len(context.seeds) // 2)
    ]
    first = iteration * len(context.seeds)
    texts, more = ask_texts(context, chats, "new tasks", context.sampling, first)
    return [text for text in texts if text], more


def _is_long_enough(context: MethodContext, task: str) -> bool:
    return context.pack == "micro" or len(task.split()) >= MIN_WORDS


def _final(text: str) -> str:
    """What an answer comes to: its last box, or else all of it."""
    return " ".join((last_boxed(text) or text).split())


METHOD: Method = Lion()
