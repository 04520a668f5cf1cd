"""Eq. 1: for each seed of a stage the teacher writes examples, and what passes is taught.

An answer has to be readable, to be what was asked for, to be new, to have nothing of a benchmark's
test items, to verify and, if that is wanted, to lie in the student's zone. What fails is asked for
again.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence

from ioa_jax.adapter.answer import render_answer
from ioa_jax.adapter.dimensions import mean_measures, measure
from ioa_jax.adapter.duplicates import BenchmarkIndex, DuplicateIndex
from ioa_jax.adapter.read import read_examples
from ioa_jax.adapter.render import SynthesisSpec, render_synthesis
from ioa_jax.adapter.schema import Example, Lesson, Level, RejectedExample, RejectReason
from ioa_jax.adapter.settings import AdapterSettings
from ioa_jax.adapter.stage import StageMaterial, StageRequest, StageSeed
from ioa_jax.adapter.verify import VERIFICATION, Candidate, Verifier, generate_within_budget
from ioa_jax.errors import InputError
from ioa_jax.graders.base import Grader
from ioa_jax.sandbox import Sandbox
from ioa_jax.streams import stream
from ioa_jax.teachers.base import ChatRequest, Completion, Sampling, Teacher
from ioa_jax.teachers.structured import Unfit

SYNTHESIS = "synthesis"

# Of the reason that a further attempt tells the teacher.
COMPLAINT_CHARACTERS = 200

# Mean negative log-likelihood of each lesson's answer under the student, in nats per token.
Scorer = Callable[[Sequence[Lesson]], Sequence[float]]


class Adapter:
    """Writes a stage's material. Teacher, graders and sandbox are the caller's and stay open."""

    def __init__(
        self,
        teacher: Teacher,
        settings: AdapterSettings,
        *,
        benchmark: BenchmarkIndex,
        known: Mapping[str, str],
        graders: Mapping[str, Grader],
        sandbox: Sandbox | None = None,
        scorer: Scorer | None = None,
        seed: int = 0,
    ) -> None:
        """Indexes what examples mustn't repeat; nothing is called yet.

        Args:
            teacher: Behind a ledger and a budget.
            settings: Of all stages.
            benchmark: Test items of which no example may have anything.
            known: Prompts by id that no example may repeat: all seeds, the probes among them.
            graders: By kind of check, as the seeds need them (`verify`).
            sandbox: For seeds whose check is `code`.
            scorer: The student's; needed where `settings.zone` is on.
            seed: Of the run: another one asks for other examples.

        Raises:
            InputError: The zone is on without a scorer.
        """
        if settings.zone is not None and scorer is None:
            raise InputError("adapter.zone needs a student that scores answers; give a scorer")
        self.settings = settings
        self._teacher = teacher
        self._benchmark = benchmark
        self._known = DuplicateIndex(known.items(), settings.duplicate_similarity)
        self._verifier = Verifier(teacher, settings.pack, settings.verification, graders, sandbox)
        self._scorer = scorer
        self._seed = seed

    def synthesize(
        self, request: StageRequest, accepted_so_far: Sequence[Lesson] = ()
    ) -> StageMaterial:
        """Write examples until the request is filled, its attempts are used up or the budget ends.

        What is asked depends on the run's seed and the request, and what is accepted also on the
        lessons so far: with a ledger that has the calls, the material is the same again.

        Args:
            request: What is wanted.
            accepted_so_far: Lessons of earlier stages, which no example may repeat.

        Raises:
            InputError: Verification lacks a grader or the sandbox that a seed's check needs.
            SandboxError, TeacherError: As of the sandbox and the teacher; calls that were answered
                are in the ledger.
        """
        self._verifier.check_seeds([one.seed for one in request.seeds])
        work = _Work(request, self._units(request), accepted_so_far, self.settings)
        while work.queue and not work.exhausted:
            calls = request.calls_per_round or self.settings.calls_per_round
            per_round = max(1, calls // self.settings.rewrites)
            units = [work.queue.popleft() for _ in range(min(per_round, len(work.queue)))]
            drafts = self._fresh(work, self._write(work, units))
            self._accept(work, units, self._in_zone(work, self._verified(work, drafts)))
        return work.material()

    def _units(self, request: StageRequest) -> list[_Unit]:
        """What to ask for, each seed's first before any seed's second."""
        count = request.examples_per_seed or self.settings.examples_per_seed
        sizes = [
            min(self.settings.examples_per_call, count - start)
            for start in range(0, count, self.settings.examples_per_call)
        ]
        return [
            _Unit(one, group, request.levels[group % len(request.levels)], size)
            for group, size in enumerate(sizes)
            for one in request.seeds
        ]

    def _call_seed(self, work: _Work, purpose: str, unit: _Unit, *which: int) -> int:
        request = work.request
        place = (request.stage, request.kind, request.round, unit.of.seed.id, unit.group)
        drawn = stream(self._seed, purpose, *place, unit.attempt, *which)
        return int(drawn.integers(2**31))

    def _write(self, work: _Work, units: Sequence[_Unit]) -> list[_Draft]:
        """The examples in the answers of one batch."""
        requests: list[ChatRequest] = []
        asked: list[tuple[_Unit, SynthesisSpec, int]] = []
        for unit in units:
            spec = self._spec(work.request, unit)
            messages = render_synthesis(self.settings.pack, spec, self.settings.form)
            for rewrite in range(self.settings.rewrites):
                seed = self._call_seed(work, SYNTHESIS, unit, rewrite)
                requests.append(ChatRequest(messages, SYNTHESIS, seed))
                asked.append((unit, spec, rewrite))
        sampling = Sampling(self.settings.max_tokens, self.settings.temperature)
        answers, exhausted = generate_within_budget(self._teacher, requests, sampling)
        work.exhausted = exhausted
        drafts: list[_Draft] = []
        for (unit, spec, rewrite), completion in zip(asked, answers, strict=True):
            if completion is not None:
                work.calls += 1
                drafts += self._read(work, unit, spec, rewrite, completion)
        return drafts

    def _spec(self, request: StageRequest, unit: _Unit) -> SynthesisSpec:
        seed = unit.of.seed
        return SynthesisSpec(
            domain=seed.domain,
            stage=request.stage,
            kind=request.kind,
            module=unit.of.module,
            modules=request.modules,
            prerequisites=unit.of.prerequisites,
            mastery=unit.of.mastery,
            count=unit.missing,
            level=unit.level,
            size_cap=self.settings.size_cap(seed, unit.level, request.kind),
            step_cap=self.settings.step_cap(unit.level),
            seed_id=seed.id,
            seed_prompt=seed.prompt,
            seed_reference=seed.reference,
            seed_tests=str(seed.check.get("tests", "")),
            seed_answer=str(seed.check.get("answer", "")),
            dimensions=self.settings.dimensions,
            complaint=unit.complaint,
        )

    def _read(
        self,
        work: _Work,
        unit: _Unit,
        spec: SynthesisSpec,
        rewrite: int,
        completion: Completion,
    ) -> list[_Draft]:
        """The examples of an answer that fit the schema and the request."""
        try:
            found = read_examples(completion, spec, self.settings.form)
        except Unfit as unfit:
            work.reject(unit, _PARSE_REASONS[unfit.kind], str(unfit), completion.text)
            return []
        drafts: list[_Draft] = []
        for place, one in enumerate(found):
            raw, example = one.raw, one.example
            if place >= unit.missing:
                work.reject(unit, "surplus", f"{unit.missing} were asked for", raw)
                continue
            if isinstance(example, Unfit):
                work.reject(unit, _PARSE_REASONS[example.kind], str(example), raw)
                continue
            work.repaired += one.repaired
            draft = _Draft(unit, (rewrite, place), example, raw)
            reason, detail = self._misfit(work.request, draft)
            if reason is None:
                drafts.append(draft)
            else:
                work.reject(unit, reason, detail, raw)
        return drafts

    def _misfit(self, request: StageRequest, draft: _Draft) -> tuple[RejectReason | None, str]:
        """Why an example isn't what was asked for."""
        unit, example = draft.unit, draft.example
        if self.settings.check_module and example.module != unit.of.module:
            return "off_request", f"module {example.module!r}, not {unit.of.module!r}"
        if example.difficulty_tag != unit.level:
            return "off_request", f"difficulty {example.difficulty_tag}, not {unit.level}"
        figures = measure(example, self.settings.dimensions.template)
        largest, steps = figures.get("largest_operand", 0.0), figures["steps"]
        size_cap = self.settings.size_cap(unit.of.seed, unit.level, request.kind)
        if size_cap is not None and largest > size_cap:
            return "too_large", f"the number {largest:.15g} is over {size_cap}"
        step_cap = self.settings.step_cap(unit.level)
        if step_cap is not None and steps > step_cap:
            return "too_large", f"{steps:g} steps are more than {step_cap}"
        return None, ""

    def _fresh(self, work: _Work, drafts: Sequence[_Draft]) -> list[_Draft]:
        """Examples that repeat nothing; before verification, which costs."""
        fresh: list[_Draft] = []
        seen: set[tuple[int, str]] = set()
        for draft in drafts:
            problem = draft.example.problem
            like = self._known.find(problem) or work.accepted.find(problem)
            # Rewrites of a cold teacher may be the same; only one is worth a verification.
            again = (id(draft.unit), draft.raw) in seen
            seen.add((id(draft.unit), draft.raw))
            overlaps = [
                overlap
                for text in (problem, self._answer(draft))
                for overlap in self._benchmark.find(text)
            ]
            if like is not None:
                draft.reject(work, "duplicate", f"the problem is like {like[0]} ({like[1]:.2f})")
            elif again:
                draft.reject(work, "duplicate", "another rewrite is the same")
            elif overlaps:
                first = overlaps[0]
                # Without the words themselves: the teacher is told the reason.
                detail = f"{first.kind} of {first.task}, item {first.item}, {first.field}"
                draft.reject(work, "contaminated", detail)
            else:
                fresh.append(draft)
        return fresh

    def _answer(self, draft: _Draft) -> str:
        return render_answer(
            draft.example,
            draft.unit.of.seed.domain,
            self.settings.answer_template,
            self.settings.steps,
        )

    def _verified(self, work: _Work, drafts: Sequence[_Draft]) -> list[tuple[_Draft, Lesson]]:
        """Lessons of the examples that are right."""
        candidates = [
            Candidate(
                draft.unit.of.seed,
                draft.example,
                tuple(
                    self._call_seed(work, VERIFICATION, draft.unit, *draft.place, number)
                    for number in range(self.settings.verification.num_solutions)
                ),
            )
            for draft in drafts
        ]
        verifications, exhausted = self._verifier.verify(candidates)
        work.exhausted = work.exhausted or exhausted
        lessons: list[tuple[_Draft, Lesson]] = []
        for draft, verification in zip(drafts, verifications, strict=True):
            if verification is None:
                draft.reject(work, "unverified", "the budget ended before its verification")
            elif verification.reason is not None:
                detail = f"{verification.verified_by}: {verification.detail}"
                draft.reject(work, verification.reason, detail)
            else:
                lessons.append((draft, self._lesson(work, draft, verification.verified_by)))
        return lessons

    def _lesson(self, work: _Work, draft: _Draft, verified_by: str) -> Lesson:
        request, unit = work.request, draft.unit
        where = (request.kind, request.stage, request.round, unit.of.seed.id, unit.group)
        return Lesson(
            id="/".join(map(str, (*where, unit.attempt, *draft.place))),
            seed=unit.of.seed.id,
            module=unit.of.module,
            stage=request.stage,
            kind=request.kind,
            prompt=draft.example.problem,
            answer=self._answer(draft),
            example=draft.example.model_dump(mode="json"),
            nll=None,
            measures=measure(draft.example, self.settings.dimensions.template),
            verified_by=verified_by,
        )

    def _in_zone(
        self, work: _Work, lessons: Sequence[tuple[_Draft, Lesson]]
    ) -> list[tuple[_Draft, Lesson]]:
        """Those that the student is ready for, the least surprising first."""
        zone = self.settings.zone
        if zone is None or not lessons:
            return list(lessons)
        assert self._scorer is not None
        scores = self._scorer([lesson for _, lesson in lessons])
        ranked: list[tuple[float, _Draft, Lesson]] = []
        for (draft, lesson), nll in zip(lessons, scores, strict=True):
            if nll < zone.low:
                draft.reject(work, "too_easy", f"{nll:.4g} nats per token, under {zone.low:g}")
            elif nll <= zone.high:
                ranked.append((nll, draft, dataclasses.replace(lesson, nll=float(nll))))
            else:
                draft.reject(work, "too_hard", f"{nll:.4g} nats per token, over {zone.high:g}")
        ranked.sort(key=lambda one: one[0])
        return [(draft, lesson) for _, draft, lesson in ranked]

    def _accept(
        self, work: _Work, units: Sequence[_Unit], lessons: Sequence[tuple[_Draft, Lesson]]
    ) -> None:
        """Take as many of each unit's lessons as it lacks, and ask again for what it then lacks."""
        of_unit: dict[int, list[tuple[_Draft, Lesson]]] = {}
        for draft, lesson in lessons:
            of_unit.setdefault(id(draft.unit), []).append((draft, lesson))
        for unit in units:
            for draft, lesson in of_unit.get(id(unit), []):
                like = work.accepted.find(lesson.prompt)
                if unit.missing == 0:
                    draft.reject(work, "not_chosen", "others of its rewrites were")
                elif like is not None:
                    detail = f"the problem is like {like[0]} ({like[1]:.2f})"
                    draft.reject(work, "duplicate", detail)
                else:
                    unit.missing -= 1
                    work.accepted.add(lesson.id, lesson.prompt)
                    work.lessons.append(lesson)
            if unit.missing and unit.attempt <= self.settings.max_retries:
                unit.attempt += 1
                work.queue.append(unit)


_PARSE_REASONS: dict[str, RejectReason] = {
    "length": "length",
    "filtered": "filtered",
    "no_json": "no_json",
    "schema": "schema",
    "unparsed": "unparsed",
}


@dataclasses.dataclass
class _Unit:
    """Examples of one seed that one call is asked for.

    Attributes:
        of: The seed.
        group: Which of its units, from 0.
        level: Difficulty.
        missing: Examples that are still wanted.
        attempt: The next one, from 1.
        complaint: Why one of the last was rejected.
    """

    of: StageSeed
    group: int
    level: Level
    missing: int
    attempt: int = 1
    complaint: str = ""


@dataclasses.dataclass(frozen=True)
class _Draft:
    """An example on its way.

    Attributes:
        unit: What it is for.
        place: (rewrite, index in the answer).
        example: As parsed.
        raw: As written.
    """

    unit: _Unit
    place: tuple[int, int]
    example: Example
    raw: str

    def reject(self, work: _Work, reason: RejectReason, detail: str) -> None:
        work.reject(self.unit, reason, detail, self.raw)


class _Work:
    """What a request has come to so far."""

    def __init__(
        self,
        request: StageRequest,
        units: Sequence[_Unit],
        accepted_so_far: Sequence[Lesson],
        settings: AdapterSettings,
    ) -> None:
        self.request = request
        self.queue = collections.deque(units)
        self.asked = sum(unit.missing for unit in units)
        self.accepted = DuplicateIndex(
            ((lesson.id, lesson.prompt) for lesson in accepted_so_far),
            settings.duplicate_similarity,
        )
        self.lessons: list[Lesson] = []
        self.rejects: list[RejectedExample] = []
        self.calls = 0
        self.repaired = 0
        self.exhausted = False

    def reject(self, unit: _Unit, reason: RejectReason, detail: str, raw: str) -> None:
        seed, module = unit.of.seed.id, unit.of.module
        self.rejects.append(
            RejectedExample(seed, module, self.request.stage, unit.attempt, reason, detail, raw)
        )
        if reason != "surplus":
            unit.complaint = f"{reason}: {detail}"[:COMPLAINT_CHARACTERS]

    def material(self) -> StageMaterial:
        reasons = collections.Counter(reject.reason for reject in self.rejects)
        means = mean_measures([lesson.measures for lesson in self.lessons])
        figures = {
            "asked": self.asked,
            "accepted": len(self.lessons),
            "unfilled": self.asked - len(self.lessons),
            "calls": self.calls,
            "repaired": self.repaired,
            **{f"rejected.{reason}": reasons[reason] for reason in sorted(reasons)},
            **{f"mean.{name}": value for name, value in means.items()},
        }
        return StageMaterial(
            tuple(self.lessons),
            tuple(self.rejects),
            {name: float(value) for name, value in figures.items()},
            self.exhausted,
        )
