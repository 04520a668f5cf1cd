"""How well a model of the world answers its problems, by the graders that the benchmark uses."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from ioa_jax.engine.generation import Completion
from ioa_jax.engine.sampling import SamplingParams
from ioa_jax.errors import SandboxError
from ioa_jax.graders.by_kind import Graders
from ioa_jax.student import Messages
from suite.micro.world import Problem

MAX_TOKENS = 96
_THREADS = 2


class Answers(Protocol):
    """A model that answers chats, such as `ioa_jax.student.Student`."""

    def generate(self, chats: Sequence[Messages], params: SamplingParams) -> list[Completion]: ...


def score(graders: Graders, problem: Problem, text: str) -> float:
    """What the problem's check says of an answer, in [0, 1].

    Raises:
        SandboxError: Nothing can be known about the answer's program.
    """
    seed = problem.seed_item()
    verdict = graders.of(seed.kind).grade(seed.item(), text)
    if verdict.status == "infra_error":
        raise SandboxError(f"problem {problem.id!r}: the sandbox failed: {verdict.detail}")
    return verdict.score


def accuracies(model: Answers, problems: Sequence[Problem], graders: Graders) -> dict[str, float]:
    """Mean score of greedy answers by module, in the order of the problems.

    Args:
        model: Answers the problems as they stand.
        problems: At least one.
        graders: Open.
    """
    chats = [({"role": "user", "content": problem.prompt},) for problem in problems]
    texts = [one.text for one in model.generate(chats, SamplingParams(max_tokens=MAX_TOKENS))]
    with ThreadPoolExecutor(_THREADS) as pool:
        scores = list(pool.map(functools.partial(score, graders), problems, texts))
    by_module: dict[str, list[float]] = {}
    for problem, value in zip(problems, scores, strict=True):
        by_module.setdefault(problem.module, []).append(value)
    return {module: sum(found) / len(found) for module, found in by_module.items()}
