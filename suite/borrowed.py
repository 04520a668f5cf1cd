"""One teacher for all cells of a process."""

from __future__ import annotations

from collections.abc import Sequence

from ioa_jax.teachers.base import (
    Capabilities,
    ChatRequest,
    Completion,
    OnCompletion,
    OnScores,
    Sampling,
    Teacher,
    TokenScores,
)


class Borrowed(Teacher):
    """Another teacher that stays open when this one is closed, as a cell's ledgered one is."""

    def __init__(self, teacher: Teacher) -> None:
        """`teacher`: closed by its owner."""
        self._teacher = teacher

    @property
    def fingerprint(self) -> str:
        """The other's."""
        return self._teacher.fingerprint

    @property
    def capabilities(self) -> Capabilities:
        """The other's."""
        return self._teacher.capabilities

    def generate(
        self,
        requests: Sequence[ChatRequest],
        sampling: Sampling,
        on_completion: OnCompletion | None = None,
    ) -> list[Completion]:
        """As the other."""
        return self._teacher.generate(requests, sampling, on_completion)

    def score(
        self, pairs: Sequence[tuple[str, str]], on_scores: OnScores | None = None
    ) -> list[TokenScores]:
        """As the other."""
        return self._teacher.score(pairs, on_scores)

    def count_prompt_tokens(self, request: ChatRequest) -> int:
        """As the other."""
        return self._teacher.count_prompt_tokens(request)

    def close(self) -> None:
        """Nothing to do."""
