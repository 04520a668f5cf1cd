"""Evol-Instruct: the teacher rewrites each task into a harder or a rarer one, round after round.

Paper: Xu et al., 2024, WizardLM (arXiv 2304.12244).
Loop: round 0 is the seeds. In each of four rounds every task gets one of five operators, drawn
uniformly: add constraints, deepen, concretise, more reasoning steps, breadth. A rewriting is
eliminated if it is the task again, is empty, or repeats the prompt's labels, or if its answer is
short and says "sorry" or has no word of content; the task then stays as it was for the next round.
The student is trained on the answers of all rounds.
Departures: whether a rewriting brings new information is judged by its words, not by another call;
answers are sampled as the profile says, not at temperature 1. In the micro pack all operators but
breadth are the one form that the embedded teacher knows, a harder problem.
"""

from __future__ import annotations

import re

from ioa_jax.engine.batching import TokenPair
from ioa_jax.streams import stream
from suite.methods.base import (
    Answered,
    Method,
    MethodContext,
    MethodResult,
    answer_tasks,
    as_chat,
    ask_texts,
    example_pairs,
    fine_tune,
    token_count,
)
from suite.methods.prompting import render

ROUNDS = 4
OPERATORS = ("constraints", "deepen", "concretise", "reasoning", "breadth")
SHORT_WORDS = 80
_LABELS = ("given prompt", "rewritten prompt", "created prompt")
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be but by for from had has have he her his i in is it its me my no not "
        "of on or our she so that the their them there they this to was we were what which who "
        "will with you your",
    )
)


class EvolInstruct:
    """Every task evolves in every round."""

    summary = "the teacher makes tasks harder, round after round (Evol-Instruct)"
    needs: tuple[str, ...] = ()

    def run(self, context: MethodContext) -> MethodResult:
        tasks = [seed.prompt for seed in context.seeds]
        answered, more = answer_tasks(context, [as_chat(task) for task in tasks])
        pairs: list[TokenPair] = example_pairs(context, answered)
        kept: list[int] = []
        while more and len(kept) < ROUNDS and token_count(pairs) < context.budgets.student_tokens:
            tasks, new, more = self._evolve(context, tasks, len(kept) + 1)
            pairs += new
            kept.append(len(new))
        notes = {"examples": len(pairs), "kept_by_round": kept}
        return MethodResult(fine_tune(context, pairs), notes)

    def _evolve(
        self, context: MethodContext, tasks: list[str], number: int
    ) -> tuple[list[str], list[TokenPair], bool]:
        """Tasks of the next round, examples of this one, and whether budget is left."""
        drawn = stream(context.seed, "evol_instruct", number).integers(
            len(OPERATORS), size=len(tasks)
        )
        chats = [
            render(context.pack, OPERATORS[operator], prompt=task)
            for operator, task in zip(drawn, tasks, strict=True)
        ]
        first = number * len(tasks)
        texts, more = ask_texts(context, chats, "evolution", context.sampling, first)
        evolved = {
            place: text
            for place, (task, text) in enumerate(zip(tasks, texts, strict=True))
            if text is not None and is_evolved(task, text)
        }
        answered, answers_more = answer_tasks(context, [as_chat(t) for t in evolved.values()])
        good = [
            (place, one)
            for place, one in zip(evolved, answered, strict=True)
            if one is not None and is_answer(one)
        ]
        following = list(tasks)
        for place, _ in good:
            following[place] = evolved[place]
        return following, example_pairs(context, [one for _, one in good]), more and answers_more


def is_evolved(task: str, text: str) -> bool:
    """Whether a rewriting is a task of its own."""
    words = _words(text)
    return (
        bool(words)
        and words != _words(task)
        and not any(label in text.lower() for label in _LABELS)
    )


def is_answer(answered: Answered) -> bool:
    """Whether an answer says something."""
    words = _words(answered.text)
    if "sorry" in words and len(words) < SHORT_WORDS:
        return False
    return bool(set(words) - _STOP_WORDS)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


METHOD: Method = EvolInstruct()
