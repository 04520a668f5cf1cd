"""Self-Instruct: the teacher invents tasks after examples, filtered for novelty, and answers them.

Paper: Wang et al., 2023 (arXiv 2212.10560); prompts and filters as in its code.
Loop: each request shows the teacher eight tasks, six of them seeds and two of its own, in a random
order, and it goes on with new ones (temperature 0.7, top-p 0.5). A task is kept if it is 4 to 150
words long, asks for nothing that a text model can't see or make, starts with an ASCII letter or
digit and not with "Write a program", and has ROUGE-L of at most 0.7 with all that were kept. The
teacher answers what was kept; the student is trained on these answers.
Departures: tasks carry their own input, so that no separate calls classify them and invent inputs;
no presence penalty; waves end with the budget rather than at 50,000 tasks. In the micro pack a
request shows one task, as the embedded teacher knows it, and only equal tasks are too like.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from ioa_jax.streams import stream
from suite.methods.base import (
    Messages,
    Method,
    MethodContext,
    MethodResult,
    Novelty,
    ask_for_tasks,
    fine_tune,
    grow_pool,
    wave_size,
)
from suite.methods.prompting import Pack, render

SHOWN_SEEDS, SHOWN_OWN = 6, 2
ASKED = 8  # new tasks of a request
WORDS = (4, 150)
# What tasks ask for that a model of texts can't do.
_UNFIT = re.compile(
    r"\b(images?|graphs?|files?|maps?|draw|plot|go to|videos?|audio|music|flowcharts?|diagrams?)\b",
    re.IGNORECASE,
)


class SelfInstruct:
    """Bootstraps from the seeds' prompts."""

    summary = "the teacher invents tasks after examples (Self-Instruct)"
    needs: tuple[str, ...] = ()

    def run(self, context: MethodContext) -> MethodResult:
        seeds = [seed.prompt for seed in context.seeds]
        novelty = Novelty(context.pack, seeds)
        sampling = dataclasses.replace(context.sampling, temperature=0.7, top_p=0.5)
        own: list[str] = []
        asked = 0

        def propose(wave: int) -> tuple[list[str], bool]:
            nonlocal asked
            size, first = wave_size(context), asked
            asked += size
            rng = stream(context.seed, "self_instruct", wave)
            chats = [_request(context.pack, seeds, own, rng) for _ in range(size)]
            found, more = ask_for_tasks(context, chats, "new tasks", sampling, first)
            new = [task for task in found if is_fit(context.pack, task) and novelty.add(task)]
            own.extend(new)
            return new, more

        pairs, notes = grow_pool(context, propose)
        return MethodResult(fine_tune(context, pairs), notes)


def _request(pack: Pack, seeds: list[str], own: list[str], rng: np.random.Generator) -> Messages:
    if pack == "micro":
        pool = [*seeds, *own]
        return render(pack, "new_tasks", examples=[pool[rng.integers(len(pool))]], count=1)
    shown = [own[i] for i in rng.permutation(len(own))[:SHOWN_OWN]]
    wanted = SHOWN_SEEDS + SHOWN_OWN - len(shown)
    shown += [seeds[i] for i in rng.permutation(len(seeds))[:wanted]]
    examples = [shown[i] for i in rng.permutation(len(shown))]
    return render(pack, "new_tasks", examples=examples, count=ASKED)


def is_fit(pack: Pack, task: str) -> bool:
    """Whether a text model can answer the task; every problem of the micro pack is one that can."""
    if pack == "micro":
        return True
    return (
        WORDS[0] <= len(task.split()) <= WORDS[1]
        and task[0].isascii()
        and task[0].isalnum()
        and not task.startswith("Write a program")
        and not _UNFIT.search(task)
    )


METHOD: Method = SelfInstruct()
