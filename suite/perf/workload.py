"""What is timed: the same texts, batches and token counts for every engine."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from suite.tasks.seeds import load_seed_tasks

TRAIN_BATCH = (8, 256)
MEMORY_BATCH = (8, 512)
SCORED_PAIRS = 64
GENERATED_PROMPTS = 48
GENERATION_BATCH = 16
NEW_TOKENS = 128


@dataclasses.dataclass(frozen=True)
class Workload:
    """Token ids.

    Attributes:
        pairs: (prompt, completion) of mixed length, to score.
        prompts: Rendered chats, to answer greedily.
        rows: [8, 256] int32, full rows to train on.
    """

    pairs: list[tuple[list[int], list[int]]]
    prompts: list[list[int]]
    rows: np.ndarray


def make_workload(tokenizer: Any) -> Workload:
    """From the seed tasks, in their order; lengths vary as they do there.

    Every fourth pair has the solved tasks before it in its prompt (as few-shot prompts have), so
    that lengths reach from some 30 to some 600 tokens.
    """
    from ioa_jax.models.text import encode_prompt_completion, render_chat

    tasks = load_seed_tasks()
    chats = [render_chat(tokenizer, [{"role": "user", "content": task.prompt}]) for task in tasks]
    pairs: list[tuple[list[int], list[int]]] = []
    for i in range(SCORED_PAIRS):
        at = i * len(tasks) // SCORED_PAIRS
        prompt = chats[at]
        if i % 4 == 3:
            shots = "".join(chats[j] + tasks[j].reference + "\n" for j in range(at - 3, at))
            prompt = shots + prompt
        pairs.append(
            encode_prompt_completion(tokenizer, prompt, tasks[at].reference, rendered=True)
        )
    step = len(tasks) // GENERATED_PROMPTS
    prompts = [
        tokenizer(chats[i * step], add_special_tokens=False)["input_ids"]
        for i in range(GENERATED_PROMPTS)
    ]
    text = [t for chat in chats for t in tokenizer(chat, add_special_tokens=False)["input_ids"]]
    rows, length = TRAIN_BATCH
    tokens = np.resize(np.asarray(text, np.int32), rows * length).reshape(rows, length)
    return Workload(pairs, prompts, tokens)


def alternate(
    contestants: Mapping[str, Callable[[], int]], rounds: int, log: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Run each once to warm up, then in turn; tokens/s by median time.

    Args:
        contestants: Name to a function that does the work and returns its number of tokens.
        rounds: Timed rounds.
        log: Takes a line of progress.

    Returns:
        Name to `{"tokens", "seconds": [...], "tokens_per_second"}`.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    tokens = {name: run() for name, run in contestants.items()}
    for number in range(rounds):
        for name, run in contestants.items():
            began = time.perf_counter()
            tokens[name] = run()
            seconds[name].append(time.perf_counter() - began)
            log(f"round {number + 1}/{rounds} {name}: {seconds[name][-1]:.2f} s")
    return {
        name: {
            "tokens": tokens[name],
            "seconds": values,
            "tokens_per_second": tokens[name] / statistics.median(values),
        }
        for name, values in seconds.items()
    }
