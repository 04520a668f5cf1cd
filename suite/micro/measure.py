"""How well a model of the world answers its problems, by the graders that the benchmark uses."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from ioa_jax.engine.generation import Completion
from ioa_jax.engine.sampling import SamplingParams
from ioa_jax.graders.base import Grader
from ioa_jax.graders.registry import make_grader
from ioa_jax.student import Messages
from suite.micro.world import Problem

MAX_TOKENS = 96
_THREADS = 2


class Answers(Protocol):
    """A model that answers chats, such as `ioa_jax.student.Student`."""

    def generate(self, chats: Sequence[Messages], params: SamplingParams) -> list[Completion]: ...


class Graders(contextlib.ExitStack):
    """One grader a kind, opened when first needed."""

    def __init__(self) -> None:
        super().__init__()
        self._graders: dict[str, Grader] = {}

    def score(self, problem: Problem, text: str) -> float:
        """What the problem's check says of an answer, in [0, 1]."""
        seed = problem.seed_item()
        return self._grader(seed.kind).grade(seed.item(), text).score

    def _grader(self, kind: str) -> Grader:
        if kind not in self._graders:
            self._graders[kind] = self.enter_context(make_grader(kind))
        return self._graders[kind]


def accuracies(model: Answers, problems: Sequence[Problem], graders: Graders) -> dict[str, float]:
    """Mean score of greedy answers by module, in the order of the problems.

    Args:
        model: Answers the problems as they stand.
        problems: At least one.
        graders: Open.
    """
    chats = [({"role": "user", "content": problem.prompt},) for problem in problems]
    texts = [one.text for one in model.generate(chats, SamplingParams(max_tokens=MAX_TOKENS))]
    # The first of a kind opens its grader, which two threads must not do at once.
    for kind in {problem.draft.check["kind"]: problem for problem in problems}.values():
        graders.score(kind, "")
    with ThreadPoolExecutor(_THREADS) as pool:
        scores = list(pool.map(graders.score, problems, texts))
    by_module: dict[str, list[float]] = {}
    for problem, score in zip(problems, scores, strict=True):
        by_module.setdefault(problem.module, []).append(score)
    return {module: sum(found) / len(found) for module, found in by_module.items()}
