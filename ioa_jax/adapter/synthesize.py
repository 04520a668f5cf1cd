"""Eq. 1: for each seed of a stage the teacher writes examples, and what passes is taught.

An answer has to be readable, to be what was asked for, to be new, to have nothing of a benchmark's
test items, to verify and, if that is wanted, to lie in the student's zone. What fails is asked for
again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from ioa_jax.adapter.answer import render_answer
from ioa_jax.adapter.dimensions import measure
from ioa_jax.adapter.duplicates import DuplicateIndex
from ioa_jax.adapter.forms import Scorer
from ioa_jax.adapter.novelty import Novelty
from ioa_jax.adapter.programs import main_function
from ioa_jax.adapter.read import read_problem
from ioa_jax.adapter.schema import Example, Lesson, WrittenProblem
from ioa_jax.adapter.settings import AdapterSettings
from ioa_jax.adapter.stage import StageMaterial, StageRequest, StageSeed
from ioa_jax.adapter.units import Unit, UnitQueue, by_module, deal_units, equal_counts
from ioa_jax.adapter.verification import Candidate, Checkers, Verification
from ioa_jax.adapter.verify import VERIFICATION, Verifier
from ioa_jax.adapter.work import SYNTHESIS, Draft, Work
from ioa_jax.adapter.writer import Writer
from ioa_jax.errors import InputError
from ioa_jax.seeds import SeedItem
from ioa_jax.streams import stream
from ioa_jax.teachers.base import ChatRequest, Completion, Teacher
from ioa_jax.teachers.structured import Unfit

PROBES = "probes"

# Of each problem or probe that is wanted, so many may be asked for.
TRIES = 3


class Adapter:
    """Writes a stage's material. Teacher, graders and sandbox are the caller's and stay open.

    Attributes:
        settings: Of all stages.
        novelty: What no example may repeat; tell it of further prompts.
    """

    def __init__(
        self,
        teacher: Teacher,
        settings: AdapterSettings,
        novelty: Novelty,
        checkers: Checkers,
        scorer: Scorer | None = None,
        seed: int = 0,
    ) -> None:
        """Nothing is called yet.

        Args:
            teacher: Behind a ledger and a budget.
            settings: Of all stages.
            novelty: What no example may repeat.
            checkers: What verifies the seeds' kinds of check.
            scorer: The student's; needed where `settings.zone` is on.
            seed: Of the run: another one asks for other examples.

        Raises:
            InputError: The zone is on without a scorer.
        """
        if settings.zone is not None and scorer is None:
            raise InputError("adapter.zone needs a student that scores answers; give a scorer")
        self.settings = settings
        self.novelty = novelty
        self._writer = Writer(teacher, settings, novelty, seed)
        self._verifier = Verifier(
            teacher,
            settings.pack,
            settings.verification,
            checkers.graders,
            checkers.sandbox,
            strict=settings.protocol == "schema",
        )
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
        settings = self.settings
        wanted = equal_counts(
            request.seeds, request.examples_per_seed or settings.examples_per_seed
        )
        units = deal_units(
            request.seeds,
            wanted,
            settings.examples_per_call,
            request.levels or settings.levels,
            settings.level_order,
        )
        work = Work(request, units, wanted, accepted_so_far, settings)
        self._run(work)
        return work.material()

    def write_probes(
        self, seeds: Sequence[StageSeed], missing: Mapping[str, int], round: int = 0
    ) -> dict[str, tuple[SeedItem, ...]]:
        """Verified problems with answers that can be checked, to measure the student with [ours].

        They are verified whatever the settings say, by the teacher's solutions where nothing else
        decides, and all is spent as `probes`. Tell `novelty` of those that are used (`know`).

        Args:
            seeds: Of the modules; others than those in `missing` are ignored.
            missing: How many each module needs.
            round: Another number asks for other probes.

        Returns:
            Of each module in `missing` as many as could be had.

        Raises:
            InputError: A module has no seeds; or verification is off.
            SandboxError, TeacherError: As `synthesize`.
        """
        if not self.settings.verification.on:
            raise InputError("adapter.verification.on: probes have to be verified; turn it on")
        missing = {module: count for module, count in missing.items() if count > 0}
        own = tuple(one for one in seeds if one.module in missing)
        for module in missing.keys() - by_module(own).keys():
            raise InputError(f"module {module!r}: there are no seeds to write probes from")
        if not missing:
            return {}
        tries = {module: TRIES * count for module, count in missing.items()}
        units = deal_units(own, tries, 1, self.settings.levels)
        work = Work(StageRequest("stage", own, round=round), units, missing, (), self.settings)
        work.purpose, work.undecided, work.max_retries = PROBES, "solve", 0
        self._run(work)
        probes: dict[str, list[SeedItem]] = {module: [] for module in missing}
        for lesson in work.lessons:
            seed = next(one.seed for one in own if one.seed.id == lesson.seed)
            probes[lesson.module].append(_probe(lesson, seed, work.solutions[lesson.id]))
        return {module: tuple(items) for module, items in probes.items()}

    def write_problems(
        self,
        seeds: Sequence[StageSeed],
        max_count: int,
        purpose: str,
        round: int = 0,
        accepted_so_far: Sequence[Lesson] = (),
    ) -> tuple[WrittenProblem, ...]:
        """New problems alone, like the seeds' and as difficult, modules in turn [ours].

        Nobody has answered them, and they aren't verified. They repeat neither what is known, nor
        the lessons, nor each other, and have nothing of a benchmark's test items.

        Args:
            seeds: Of the modules.
            max_count: How many, at most; fewer where the budget ends or too many are no news.
            purpose: Of the calls.
            round: Another number asks for other problems.
            accepted_so_far: Lessons.

        Raises:
            TeacherError: As of the teacher.
        """
        if max_count < 1 or not seeds:
            return ()
        modules = by_module(seeds)
        share = math.ceil(max_count / len(modules))
        # Others make up for a module that has no more, as far as their own tries go.
        queue = UnitQueue(
            deal_units(seeds, dict.fromkeys(modules, TRIES * share), 1, {"intermediate": 1.0}),
            dict.fromkeys(modules, max_count),
        )
        accepted = DuplicateIndex(
            ((one.id, one.prompt) for one in accepted_so_far), self.settings.duplicate_similarity
        )
        written: list[WrittenProblem] = []
        exhausted = False
        while not exhausted:
            units = queue.take(min(self.settings.calls_per_round, max_count - len(written)))
            if not units:
                break
            answers, exhausted = self._ask_for_problems(units, modules, purpose, round)
            for unit, completion in zip(units, answers, strict=True):
                problem = None if completion is None else _problem_or_none(completion)
                if problem is None or not self.novelty.is_new(problem, accepted):
                    continue
                name = f"{purpose}/{round}/{unit.of.seed.id}/{unit.group}"
                written.append(WrittenProblem(name, unit.of.seed.id, unit.of.module, problem))
                accepted.add(name, problem)
                queue.count(unit.of.module)
        return tuple(written)

    def _ask_for_problems(
        self,
        units: Sequence[Unit],
        modules: Mapping[str, Sequence[StageSeed]],
        purpose: str,
        round: int,
    ) -> tuple[list[Completion | None], bool]:
        """The answers of one batch, and whether the budget ended before the last."""
        requests: list[ChatRequest] = []
        stop: tuple[str, ...] = ()
        for unit in units:
            messages, stop = self._writer.problem_prompt(unit, modules)
            place = (round, unit.of.seed.id, unit.group)
            drawn = stream(self._seed, purpose, "problem", *place).integers(2**31)
            requests.append(ChatRequest(messages, purpose, int(drawn)))
        return self._writer.ask(requests, self.settings.max_problem_tokens, stop)

    def _run(self, work: Work) -> None:
        """Batch after batch until nothing is left to ask."""
        self._verifier.check_seeds([one.seed for one in work.request.seeds])
        while not work.exhausted:
            size = self._batch_size(work)
            if size == 0:
                work.exhausted = work.queue.take(1) != []
                break
            units = work.queue.take(size)
            if not units:
                break
            work.asked += len(units)
            drafts = self._clean(work, self._writer.write(work, units))
            lessons = self._in_zone(work, self._verified(work, drafts))
            self._accept(work, units, lessons)

    def _batch_size(self, work: Work) -> int:
        """Units of the next batch: as many as the calls allow and the tokens left will pay for."""
        rewrites, tokens = self.settings.rewrites, work.request.tokens
        most = max(1, self.settings.calls_per_round // rewrites)
        if tokens is None or work.purpose != SYNTHESIS:
            return most
        # The teacher's budget admits a call only if it can pay the most that the call can take.
        kept = self.settings.max_tokens
        if self.settings.two_calls:
            kept = max(kept, self.settings.max_problem_tokens)
        left = tokens - work.tokens - kept
        if left <= 0:
            return 0
        if work.asked:
            return min(most, int(left / max(1.0, work.tokens / work.asked)))
        # A guess that is too low must not cost everything, and one too high not forbid to try.
        return min(most, max(1, int(left / 2 / (self.settings.lesson_tokens * rewrites))))

    def _clean(self, work: Work, drafts: Sequence[Draft]) -> list[Draft]:
        """Examples whose answers have nothing of a benchmark's test items."""
        return [
            draft
            for draft in drafts
            if not self.novelty.overlaps(work, draft, self._answer(work.request, draft))
        ]

    def _answer(self, request: StageRequest, draft: Draft) -> str:
        """What the student is to write: in the module's form, or as the teacher wrote it."""
        assert draft.example is not None
        form, steps = self._writer.form(request, draft.unit.of.module), self.settings.steps
        if form == "as_written" and steps and draft.solution is not None:
            return draft.solution
        template = "lines" if form == "as_written" else form
        return render_answer(draft.example, draft.unit.of.seed.kind, template, steps)

    def _verified(self, work: Work, drafts: Sequence[Draft]) -> list[tuple[Draft, Lesson]]:
        """Lessons of the examples that are right."""
        candidates: list[Candidate] = []
        for draft in drafts:
            assert draft.example is not None
            seeds = tuple(
                self._writer.call_seed(work, VERIFICATION, draft.unit, *draft.place, number)
                for number in range(self.settings.verification.num_solutions)
            )
            seed = draft.unit.of.seed
            candidates.append(Candidate(seed, draft.example, seeds, draft.solution))
        purpose = VERIFICATION if work.purpose == SYNTHESIS else work.purpose
        verified = self._verifier.verify(candidates, purpose, work.undecided)
        work.exhausted = work.exhausted or verified.exhausted
        work.tokens += verified.tokens
        lessons: list[tuple[Draft, Lesson]] = []
        for draft, verification in zip(drafts, verified.found, strict=True):
            if verification is None:
                draft.reject(work, "unverified", "the budget ended before its verification")
            elif verification.reason is not None:
                detail = f"{verification.verified_by}: {verification.detail}"
                draft.reject(work, verification.reason, detail)
            else:
                lessons.append((draft, self._lesson(work, draft, verification)))
        return lessons

    def _lesson(self, work: Work, draft: Draft, verification: Verification) -> Lesson:
        request, unit, example = work.request, draft.unit, draft.example
        assert example is not None
        if verification.tests is not None:
            solution = example.solution.model_copy(update={"verification": verification.tests})
            example = example.model_copy(update={"solution": solution})
        form = self._writer.form(request, unit.of.module)
        where = (request.kind, unit.of.stage, request.round, unit.of.seed.id, unit.group)
        lesson = Lesson(
            id="/".join(map(str, (*where, unit.attempt, *draft.place))),
            seed=unit.of.seed.id,
            module=unit.of.module,
            stage=unit.of.stage,
            kind=request.kind,
            prompt=draft.problem,
            answer=self._answer(request, draft),
            example=example.model_dump(mode="json"),
            nll=None,
            measures=measure(example, "lines" if form == "as_written" else form),
            verified_by=verification.verified_by,
        )
        work.solutions[lesson.id] = draft.solution
        return lesson

    def _in_zone(
        self, work: Work, lessons: Sequence[tuple[Draft, Lesson]]
    ) -> list[tuple[Draft, Lesson]]:
        """Those that the student is ready for, the least surprising first."""
        zone = self.settings.zone
        # Probes measure what the student can't do either.
        if zone is None or not lessons or work.purpose != SYNTHESIS:
            return list(lessons)
        assert self._scorer is not None
        scores = self._scorer([(lesson.prompt, lesson.answer) for _, lesson in lessons])
        ranked: list[tuple[float, Draft, Lesson]] = []
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
        self, work: Work, units: Sequence[Unit], lessons: Sequence[tuple[Draft, Lesson]]
    ) -> None:
        """Take as many of each unit's lessons as it lacks, and ask again for what it then lacks."""
        of_unit: dict[int, list[tuple[Draft, Lesson]]] = {}
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
                    work.accept(lesson)
            if unit.missing and unit.attempt <= work.max_retries:
                unit.attempt += 1
                work.queue.give_back(unit)
        if not work.exhausted:
            work.give_up({unit.of.module for unit in units}, self.settings.give_up_after)


def _problem_or_none(completion: Completion) -> str | None:
    try:
        return read_problem(completion)
    except Unfit:
        return None


def _probe(lesson: Lesson, seed: SeedItem, solution: str | None) -> SeedItem:
    """A lesson as a task that is checked as its seed is."""
    example = Example.model_validate(lesson.example)
    final, check = example.solution.final_answer, dict(seed.check)
    if seed.kind == "code":
        tests = example.solution.verification
        check |= {"entry_point": main_function(final, tests), "tests": tests}
    elif seed.kind in ("math", "number", "exact"):
        check["answer"] = final
    reference = solution or render_answer(example, seed.kind, "lines")
    return SeedItem(
        f"probe/{lesson.id}",
        lesson.prompt,
        reference,
        check,
        seed.domain,
        lesson.module,
        None,
        {"seed": seed.id, "verified_by": lesson.verified_by},
    )
