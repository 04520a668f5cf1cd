"""A request of the Adapter under way: examples, rejects, and what it has cost so far."""

from __future__ import annotations

import collections
import dataclasses
import logging
from collections.abc import Mapping, Sequence

from ioa_jax.adapter.dimensions import mean_measures
from ioa_jax.adapter.duplicates import DuplicateIndex
from ioa_jax.adapter.schema import (
    Example,
    ExcludedModule,
    Lesson,
    Level,
    RejectedExample,
    RejectReason,
)
from ioa_jax.adapter.settings import AdapterSettings
from ioa_jax.adapter.stage import StageMaterial, StageRequest
from ioa_jax.adapter.units import Unit, UnitQueue, by_module
from ioa_jax.adapter.verification import Undecided
from ioa_jax.teachers.base import Completion

SYNTHESIS = "synthesis"

# Of the reason that a further attempt tells the teacher.
COMPLAINT_CHARACTERS = 200
# Of what is shown of a rejected example.
SHOWN_CHARACTERS = 300

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Draft:
    """An example on its way.

    Attributes:
        unit: What it is for.
        place: (rewrite, index in the answer).
        problem: Its text.
        raw: As written.
        example: As read; None as long as the problem has no answer.
        solution: As the teacher wrote it, where that was as text.
    """

    unit: Unit
    place: tuple[int, int]
    problem: str
    raw: str
    example: Example | None = None
    solution: str | None = None

    def reject(self, work: Work, reason: RejectReason, detail: str) -> None:
        """It isn't used, and why."""
        work.reject(self.unit, reason, detail, self.raw)


class Work:
    """What a request has come to so far.

    Attributes:
        request: What is wanted.
        seeds: Its seeds by module.
        queue: What is still to be asked.
        wanted: Examples in all.
        accepted: Prompts of lessons, earlier stages' among them.
        purpose: Of the teacher's calls.
        undecided: In place of the settings'; None leaves it to them.
        max_retries: Further attempts at what was rejected.
        lessons: Accepted, in their order.
        solutions: As the teacher wrote them, by the lesson's id; None where that wasn't as text.
        rejects: In their order.
        excluded: Modules that aren't asked for any more, since batches had no lesson of them.
        asked: Units.
        calls: Answered.
        tokens: That answers took, the verification's among them.
        repaired: Answers whose JSON was mended.
        exhausted: Whether the budget ended.
    """

    def __init__(
        self,
        request: StageRequest,
        units: Sequence[Unit],
        wanted: Mapping[str, int],
        accepted_so_far: Sequence[Lesson],
        settings: AdapterSettings,
    ) -> None:
        self.request = request
        self.seeds = by_module(request.seeds)
        self.queue = UnitQueue(units, wanted)
        self.wanted = sum(wanted.values())
        self.accepted = DuplicateIndex(
            ((lesson.id, lesson.prompt) for lesson in accepted_so_far),
            settings.duplicate_similarity,
        )
        self.purpose = SYNTHESIS
        self.undecided: Undecided | None = None
        self.max_retries = settings.max_retries
        self.lessons: list[Lesson] = []
        self.solutions: dict[str, str | None] = {}
        self.rejects: list[RejectedExample] = []
        self.excluded: list[ExcludedModule] = []
        self.asked = 0
        self.calls = 0
        self.tokens = 0
        self.repaired = 0
        self.exhausted = False
        # Of each module since its last lesson.
        self._fruitless: collections.Counter[str] = collections.Counter()
        self._paid: collections.Counter[str] = collections.Counter()
        self._failed: dict[str, list[RejectedExample]] = collections.defaultdict(list)

    def count_call(self, unit: Unit, completion: Completion) -> None:
        """An answer to a unit's call came."""
        self.calls += 1
        self.tokens += completion.completion_tokens
        self._paid[unit.of.module] += 1

    def accept(self, lesson: Lesson) -> None:
        """An example is right and new."""
        self.accepted.add(lesson.id, lesson.prompt)
        self.lessons.append(lesson)
        self.queue.count(lesson.module)
        self._fruitless[lesson.module] = -1
        self._paid[lesson.module] = 0
        self._failed[lesson.module].clear()

    def reject(self, unit: Unit, reason: RejectReason, detail: str, raw: str) -> None:
        """An example isn't used, and why; the teacher is told with the next attempt."""
        seed, module = unit.of.seed.id, unit.of.module
        rejected = RejectedExample(seed, module, unit.of.stage, unit.attempt, reason, detail, raw)
        self.rejects.append(rejected)
        if reason != "surplus":
            self._failed[module].append(rejected)
            unit.complaint = f"{reason}: {detail}"[:COMPLAINT_CHARACTERS]

    def give_up(self, modules: set[str], after: int) -> None:
        """Say which modules of a batch have no lesson of it; exclude those that go on so."""
        for module in sorted(modules):
            self._fruitless[module] += 1
            if self._fruitless[module] == 0 or not self._failed[module]:
                continue
            failed = self._failed[module]
            reasons: collections.Counter[RejectReason] = collections.Counter(
                one.reason for one in failed
            )
            reason, count = reasons.most_common(1)[0]
            # The last one of them is of this batch, or the nearest to it.
            last = next(one for one in reversed(failed) if one.reason == reason)
            shown = last.raw.strip()
            if len(shown) > SHOWN_CHARACTERS:
                shown = f"{shown[:SHOWN_CHARACTERS]} ..."
            log.warning(
                "%s: no lesson in this batch; %d of %d examples since the last one: %s (%s):\n%s",
                module,
                count,
                len(failed),
                reason,
                last.detail,
                shown,
            )
            if self._fruitless[module] >= after:
                self.queue.exclude(module)
                self.excluded.append(ExcludedModule(module, reason, shown, self._paid[module]))
                log.warning("%s: excluded after %d such batches", module, after)

    def material(self) -> StageMaterial:
        """All of it, with figures."""
        reasons = collections.Counter(reject.reason for reject in self.rejects)
        levels: collections.Counter[Level] = collections.Counter(
            lesson.example["difficulty_tag"] for lesson in self.lessons
        )
        means = mean_measures([lesson.measures for lesson in self.lessons])
        figures = {
            "asked": self.wanted,
            "accepted": len(self.lessons),
            "unfilled": self.wanted - len(self.lessons),
            "calls": self.calls,
            "tokens": self.tokens,
            "repaired": self.repaired,
            **{f"level.{level}": levels[level] for level in sorted(levels)},
            **{f"rejected.{reason}": reasons[reason] for reason in sorted(reasons)},
            **{f"mean.{name}": value for name, value in means.items()},
        }
        return StageMaterial(
            tuple(self.lessons),
            tuple(self.rejects),
            {name: float(value) for name, value in figures.items()},
            self.exhausted,
            tuple(self.excluded),
        )
