"""LaMini-LM: tasks by example and by topic, in large numbers, answered and trained on as they are.

Paper: Wu et al., 2024 (arXiv 2304.14402).
Loop: half of the requests show three random seeds and ask for more tasks like them; the other half
name a topic and ask for tasks about it. The teacher answers all; the student is trained on that.
Departures: topics are what the teacher itself names for the seeds, rather than Wikipedia's
categories; ends with the budget rather than at 2.58 million. The embedded teacher knows no form for
topics: in the micro pack every request shows one seed.
"""

from __future__ import annotations

import numpy as np

from ioa_jax.streams import stream
from suite.methods.base import (
    Messages,
    Method,
    MethodContext,
    MethodResult,
    Novelty,
    ask_for_tasks,
    ask_texts,
    fine_tune,
    grow_pool,
    wave_size,
)
from suite.methods.prompting import render

SHOWN = 3
ASKED = 8  # new tasks of a request


class LaMini:
    """Example-guided and topic-guided, without a filter but for repetitions."""

    summary = "tasks by example and by topic (LaMini-LM)"
    needs: tuple[str, ...] = ()

    def run(self, context: MethodContext) -> MethodResult:
        # Only repetitions are kept out.
        novelty = Novelty(context.pack, [seed.prompt for seed in context.seeds], threshold=1.0)
        asked = 0

        def propose(wave: int) -> tuple[list[str], bool]:
            nonlocal asked
            size, first = wave_size(context), asked
            asked += size
            rng = stream(context.seed, "lamini", wave)
            by_topic, topics_more = ([], True)
            if context.pack == "paper":
                by_topic, topics_more = _topic_requests(context, rng, size, first)
            chats = [*by_topic, *_example_requests(context, rng, size - len(by_topic))]
            found, more = ask_for_tasks(context, chats, "new tasks", context.sampling, first)
            return [task for task in found if novelty.add(task)], more and topics_more

        pairs, notes = grow_pool(context, propose)
        return MethodResult(fine_tune(context, pairs), notes)


def _example_requests(
    context: MethodContext, rng: np.random.Generator, count: int
) -> list[Messages]:
    prompts = [seed.prompt for seed in context.seeds]
    shown = 1 if context.pack == "micro" else SHOWN
    return [
        render(
            context.pack,
            "new_tasks",
            examples=[prompts[i] for i in rng.permutation(len(prompts))[:shown]],
            count=ASKED,
        )
        for _ in range(count)
    ]


def _topic_requests(
    context: MethodContext, rng: np.random.Generator, size: int, first: int
) -> tuple[list[Messages], bool]:
    chosen = [context.seeds[i] for i in rng.integers(len(context.seeds), size=size // 2)]
    chats = [render(context.pack, "topic", prompt=seed.prompt) for seed in chosen]
    topics, more = ask_texts(context, chats, "topics", context.sampling, first)
    requests: list[Messages] = [
        render(context.pack, "topic_tasks", topic=topic.splitlines()[0], count=ASKED)
        for topic in topics
        if topic
    ]
    return requests, more


METHOD: Method = LaMini()
