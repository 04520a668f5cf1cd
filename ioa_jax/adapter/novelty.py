"""What no example may repeat: known prompts, earlier examples and benchmarks' test items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ioa_jax.adapter.duplicates import BenchmarkIndex, DuplicateIndex
from ioa_jax.adapter.work import Draft, Work


class Novelty:
    """Finds repetitions."""

    def __init__(
        self, benchmark: BenchmarkIndex, known: Mapping[str, str], similarity: float
    ) -> None:
        """Indexes what is known.

        Args:
            benchmark: Test items of which no example may have anything.
            known: Prompts by id that no example may repeat: all seeds, the probes among them.
            similarity: From which on prompts are the same (`DuplicateIndex`).
        """
        self._benchmark = benchmark
        self._known = DuplicateIndex(known.items(), similarity)

    def know(self, prompts: Mapping[str, str]) -> None:
        """Further prompts by id that no later example may repeat."""
        for name, prompt in prompts.items():
            self._known.add(name, prompt)

    def is_clean(self, text: str) -> bool:
        """Whether a text has nothing of a benchmark's test items."""
        return not self._benchmark.find(text)

    def is_new(self, problem: str, accepted: DuplicateIndex) -> bool:
        """Whether a problem repeats nothing, of the accepted ones neither."""
        return (
            self._known.find(problem) is None
            and accepted.find(problem) is None
            and self.is_clean(problem)
        )

    def fresh(self, work: Work, drafts: Sequence[Draft]) -> list[Draft]:
        """Problems that repeat nothing; before answers and verification, which cost."""
        fresh: list[Draft] = []
        seen: set[tuple[int, str]] = set()
        for draft in drafts:
            like = self._known.find(draft.problem) or work.accepted.find(draft.problem)
            # Rewrites of a cold teacher may be the same; only one is worth a verification.
            again = (id(draft.unit), draft.raw) in seen
            seen.add((id(draft.unit), draft.raw))
            if like is not None:
                draft.reject(work, "duplicate", f"the problem is like {like[0]} ({like[1]:.2f})")
            elif again:
                draft.reject(work, "duplicate", "another rewrite is the same")
            elif not self.overlaps(work, draft, draft.problem):
                fresh.append(draft)
        return fresh

    def overlaps(self, work: Work, draft: Draft, text: str) -> bool:
        """Whether a text has something of a test item; the example is rejected then."""
        overlaps = self._benchmark.find(text)
        if not overlaps:
            return False
        first = overlaps[0]
        # Without the words themselves: the teacher is told the reason.
        detail = f"{first.kind} of {first.task}, item {first.item}, {first.field}"
        draft.reject(work, "contaminated", detail)
        return True
