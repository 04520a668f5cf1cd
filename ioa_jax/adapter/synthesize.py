"""Eq. 1: for each seed of a stage the teacher writes examples, and what passes is taught.

An answer has to be readable, to be what was asked for, to be new, to have nothing of a benchmark's
test items, to verify and, if that is wanted, to lie in the student's zone. What fails is asked for
again.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence

from ioa_jax.adapter.answer import render_answer
from ioa_jax.adapter.dimensions import PLAIN, mean_measures, measure
from ioa_jax.adapter.duplicates import BenchmarkIndex, DuplicateIndex
from ioa_jax.adapter.forms import Form, Scorer
from ioa_jax.adapter.plain_text import split_solution
from ioa_jax.adapter.programs import main_function
from ioa_jax.adapter.read import (
    WrittenExample,
    read_answer,
    read_examples,
    read_plain,
    read_problem,
)
from ioa_jax.adapter.render import (
    Messages,
    SynthesisSpec,
    render_few_shot,
    render_lean,
    render_problem,
    render_synthesis,
)
from ioa_jax.adapter.schema import (
    Example,
    ExampleList,
    ExcludedModule,
    Lesson,
    Level,
    RejectedExample,
    RejectReason,
    WrittenProblem,
)
from ioa_jax.adapter.settings import AdapterSettings
from ioa_jax.adapter.stage import StageMaterial, StageRequest, StageSeed
from ioa_jax.adapter.units import Unit, UnitQueue, by_module, deal_units, equal_counts
from ioa_jax.adapter.verification import Candidate, Undecided, Verification
from ioa_jax.adapter.verify import VERIFICATION, Verifier, generate_within_budget
from ioa_jax.errors import InputError
from ioa_jax.graders.base import Grader
from ioa_jax.sandbox import Sandbox
from ioa_jax.seeds import SeedItem
from ioa_jax.streams import stream
from ioa_jax.teachers.base import ChatRequest, Completion, Sampling, Teacher
from ioa_jax.teachers.structured import Unfit

SYNTHESIS = "synthesis"
PROBES = "probes"

# Of the reason that a further attempt tells the teacher.
COMPLAINT_CHARACTERS = 200
# Of what is shown of a rejected example.
SHOWN_CHARACTERS = 300
# Seeds that the protocol `few_shot` shows.
SHOTS = 3
# Of each problem or probe that is wanted, so many may be asked for.
TRIES = 3

log = logging.getLogger(__name__)


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
        self._verifier = Verifier(
            teacher,
            settings.pack,
            settings.verification,
            graders,
            sandbox,
            strict=settings.protocol == "schema",
        )
        self._scorer = scorer
        self._seed = seed
        as_record = settings.protocol == "schema"
        self._answer_schema = ExampleList.model_json_schema() if as_record else None

    def know(self, prompts: Mapping[str, str]) -> None:
        """Further prompts by id that no later example may repeat."""
        for name, prompt in prompts.items():
            self._known.add(name, prompt)

    def is_clean(self, text: str) -> bool:
        """Whether a text has nothing of a benchmark's test items."""
        return not self._benchmark.find(text)

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
        work = _Work(request, units, wanted, accepted_so_far, settings)
        self._run(work)
        return work.material()

    def write_probes(
        self, seeds: Sequence[StageSeed], missing: Mapping[str, int], round: int = 0
    ) -> dict[str, tuple[SeedItem, ...]]:
        """Verified problems with answers that can be checked, to measure the student with [ours].

        They are verified whatever the settings say, by the teacher's solutions where nothing else
        decides, and all is spent as `probes`. Tell the Adapter of those that are used (`know`).

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
        work = _Work(StageRequest("stage", own, round=round), units, missing, (), self.settings)
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
            requests: list[ChatRequest] = []
            stop: tuple[str, ...] = ()
            for unit in units:
                messages, stop = self._problem_prompt(unit, modules)
                place = (round, unit.of.seed.id, unit.group)
                drawn = stream(self._seed, purpose, "problem", *place).integers(2**31)
                requests.append(ChatRequest(messages, purpose, int(drawn)))
            answers, exhausted = self._ask(requests, self.settings.max_problem_tokens, stop)
            for unit, completion in zip(units, answers, strict=True):
                problem = None if completion is None else _problem_or_none(completion)
                if (
                    problem is None
                    or self._known.find(problem) is not None
                    or accepted.find(problem) is not None
                    or self._benchmark.find(problem)
                ):
                    continue
                name = f"{purpose}/{round}/{unit.of.seed.id}/{unit.group}"
                written.append(WrittenProblem(name, unit.of.seed.id, unit.of.module, problem))
                accepted.add(name, problem)
                queue.count(unit.of.module)
        return tuple(written)

    def _run(self, work: _Work) -> None:
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
            drafts = self._clean(work, self._write(work, units))
            lessons = self._in_zone(work, self._verified(work, drafts))
            self._accept(work, units, lessons)

    def _batch_size(self, work: _Work) -> int:
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

    def _call_seed(self, work: _Work, what: str, unit: Unit, *which: int) -> int:
        request = work.request
        purpose = what if work.purpose == SYNTHESIS else f"{work.purpose}.{what}"
        place = (unit.of.stage, request.kind, request.round, unit.of.seed.id, unit.group)
        drawn = stream(self._seed, purpose, *place, unit.attempt, *which)
        return int(drawn.integers(2**31))

    def _ask(
        self,
        requests: Sequence[ChatRequest],
        max_tokens: int,
        stop: tuple[str, ...] = (),
        temperature: float | None = None,
    ) -> tuple[list[Completion | None], bool]:
        """The answers that the budget allows, and whether it ended before the last."""
        if temperature is None:
            temperature = self.settings.temperature
        sampling = Sampling(max_tokens, temperature, stop=stop)
        return generate_within_budget(self._teacher, requests, sampling)

    # -- writing -----------------------------------------------------------------------------------

    def _write(self, work: _Work, units: Sequence[Unit]) -> list[_Draft]:
        """The examples in the answers of one batch."""
        if self.settings.two_calls:
            return self._write_in_two_calls(work, units)
        requests: list[ChatRequest] = []
        stop: tuple[str, ...] = ()
        asked: list[tuple[Unit, SynthesisSpec, int]] = []
        for unit in units:
            spec = self._spec(work, unit)
            messages, stop = self._prompt(work, unit, spec)
            for rewrite in range(self.settings.rewrites):
                seed = self._call_seed(work, SYNTHESIS, unit, rewrite)
                requests.append(ChatRequest(messages, work.purpose, seed, self._answer_schema))
                asked.append((unit, spec, rewrite))
        answers, exhausted = self._ask(requests, self.settings.max_tokens, stop)
        work.exhausted = work.exhausted or exhausted
        drafts: list[_Draft] = []
        for (unit, spec, rewrite), completion in zip(asked, answers, strict=True):
            if completion is not None:
                work.count_call(unit, completion)
                drafts += self._read(work, unit, spec, rewrite, completion)
        return self._fresh(work, drafts)

    def _write_in_two_calls(self, work: _Work, units: Sequence[Unit]) -> list[_Draft]:
        """Problems alone, and then the answers of those that are new."""
        asked = [(unit, rewrite) for unit in units for rewrite in range(self.settings.rewrites)]
        requests = [
            ChatRequest(
                render_problem(self.settings.pack, unit.of.seed.prompt, unit.level),
                work.purpose,
                self._call_seed(work, SYNTHESIS, unit, rewrite),
            )
            for unit, rewrite in asked
        ]
        answers, exhausted = self._ask(requests, self.settings.max_problem_tokens)
        problems: list[_Draft] = []
        for (unit, rewrite), completion in zip(asked, answers, strict=True):
            if completion is None:
                continue
            work.count_call(unit, completion)
            try:
                problem = read_problem(completion)
            except Unfit as unfit:
                work.reject(unit, _PARSE_REASONS[unfit.kind], str(unfit), completion.text)
            else:
                problems.append(_Draft(unit, (rewrite, 0), problem, problem))
        problems = self._fresh(work, problems)
        temperature = self.settings.answer_temperature
        requests = [
            ChatRequest(
                ({"role": "user", "content": one.problem},),
                work.purpose,
                # Greedy answers don't depend on it: equal problems share a call.
                self._call_seed(work, "answer", one.unit, *one.place) if temperature else 0,
            )
            for one in problems
        ]
        answers, ended = self._ask(requests, self.settings.max_tokens, (), temperature)
        work.exhausted = work.exhausted or exhausted or ended
        drafts: list[_Draft] = []
        for one, completion in zip(problems, answers, strict=True):
            if completion is None:
                one.reject(work, "unverified", "the budget ended before its answer")
                continue
            work.count_call(one.unit, completion)
            read = read_answer(one.problem, completion, self._spec(work, one.unit))
            drafts += self._drafts(work, one.unit, one.place, read)
        return drafts

    def _spec(self, work: _Work, unit: Unit) -> SynthesisSpec:
        request, settings = work.request, self.settings
        seed, as_record = unit.of.seed, settings.protocol == "schema"
        form = self._form(request, unit.of.module)
        size_cap, step_cap = None, None
        if as_record:
            size_cap = settings.size_cap(seed, unit.level, request.kind)
            step_cap = settings.step_cap(unit.level)
        elif settings.protocol == "lean":
            step_cap = self._reference_steps(unit)
        dimensions = settings.dimensions
        if not self._is_styled(unit):
            dimensions = dimensions.model_copy(update={"concretization": False, "language": False})
        if settings.two_calls or settings.protocol == "few_shot":
            # The prompts ask for nothing but another problem.
            dimensions = PLAIN.model_copy(update={"format": dimensions.format})
        return SynthesisSpec(
            domain=seed.domain,
            stage=unit.of.stage,
            kind=request.kind,
            module=unit.of.module,
            modules=request.modules_of(unit.of.stage),
            prerequisites=unit.of.prerequisites,
            mastery=unit.of.mastery,
            count=unit.missing,
            level=unit.level,
            size_cap=size_cap,
            step_cap=step_cap,
            seed_id=seed.id,
            seed_prompt=seed.prompt,
            seed_reference=seed.reference,
            seed_tests=str(seed.check.get("tests", "")),
            seed_answer=str(seed.check.get("answer", "")),
            check=seed.kind,
            form=form,
            dimensions=dimensions.model_copy(
                update={"template": "lines" if form == "as_written" else form}
            ),
            complaint=unit.complaint,
        )

    def _reference_steps(self, unit: Unit) -> int | None:
        """As many steps as the seed's reference has, unless the student fails at these."""
        of = unit.of
        if of.mastery is not None and of.mastery <= self.settings.decompose_below:
            return None
        try:
            steps, _ = split_solution(of.seed.reference, of.seed.kind)
        except Unfit:
            return None
        # A notch harder is a step more.
        return len(steps) + (unit.level == "advanced") if steps else None

    def _is_styled(self, unit: Unit) -> bool:
        """Whether everyday situations and plain words are asked of a unit's examples."""
        drawn = stream(self._seed, "style", unit.of.seed.id, unit.group).random()
        return bool(drawn < self.settings.styled_share)

    def _form(self, request: StageRequest, module: str) -> Form:
        return request.forms.get(module, self.settings.answer_template)

    def _prompt(
        self, work: _Work, unit: Unit, spec: SynthesisSpec
    ) -> tuple[Messages, tuple[str, ...]]:
        """The message that asks for a unit's examples, and the texts at which an answer ends."""
        if self.settings.protocol == "schema":
            return render_synthesis(self.settings.pack, spec, self.settings.form), ()
        if self.settings.protocol == "lean":
            return render_lean(spec), ()
        return render_few_shot(self._shots(unit, work.seeds), unit.of.module, unit.level)

    def _problem_prompt(
        self, unit: Unit, modules: Mapping[str, Sequence[StageSeed]]
    ) -> tuple[Messages, tuple[str, ...]]:
        if self.settings.protocol == "few_shot":
            shots = self._shots(unit, modules)
            return render_few_shot(shots, unit.of.module, unit.level, with_solutions=False)
        return render_problem(self.settings.pack, unit.of.seed.prompt, unit.level), ()

    def _shots(self, unit: Unit, modules: Mapping[str, Sequence[StageSeed]]) -> list[SeedItem]:
        """Seeds of the module, the unit's own last."""
        others = [one.seed for one in modules[unit.of.module] if one.seed.id != unit.of.seed.id]
        rng = stream(self._seed, "shots", unit.of.seed.id, unit.group, unit.attempt)
        chosen = rng.permutation(len(others))[: SHOTS - 1]
        return [*(others[int(place)] for place in chosen), unit.of.seed]

    def _read(
        self,
        work: _Work,
        unit: Unit,
        spec: SynthesisSpec,
        rewrite: int,
        completion: Completion,
    ) -> list[_Draft]:
        """The examples of an answer that can be read and fit the request."""
        if self.settings.protocol != "schema":
            return self._drafts(work, unit, (rewrite, 0), read_plain(completion, spec))
        try:
            found = read_examples(completion, spec)
        except Unfit as unfit:
            work.reject(unit, _PARSE_REASONS[unfit.kind], str(unfit), completion.text)
            return []
        drafts: list[_Draft] = []
        for place, one in enumerate(found):
            if place >= spec.count:
                work.reject(unit, "surplus", f"{spec.count} were asked for", one.raw)
            else:
                drafts += self._drafts(work, unit, (rewrite, place), one)
        return drafts

    def _drafts(
        self, work: _Work, unit: Unit, place: tuple[int, int], one: WrittenExample
    ) -> list[_Draft]:
        """An example, if it can be read and fits the request."""
        example = one.example
        if isinstance(example, Unfit):
            work.reject(unit, _PARSE_REASONS[example.kind], str(example), one.raw)
            return []
        work.repaired += one.repaired
        reason, detail = self._misfit(work.request, unit, example)
        if reason is not None:
            work.reject(unit, reason, detail, one.raw)
            return []
        return [_Draft(unit, place, example.problem, one.raw, example, one.solution)]

    def _misfit(
        self, request: StageRequest, unit: Unit, example: Example
    ) -> tuple[RejectReason | None, str]:
        """Why an example isn't what was asked for."""
        if self.settings.protocol != "schema":
            return None, ""
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

    # -- judging -----------------------------------------------------------------------------------

    def _fresh(self, work: _Work, drafts: Sequence[_Draft]) -> list[_Draft]:
        """Problems that repeat nothing; before answers and verification, which cost."""
        fresh: list[_Draft] = []
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
            elif not self._overlaps(work, draft, draft.problem):
                fresh.append(draft)
        return fresh

    def _clean(self, work: _Work, drafts: Sequence[_Draft]) -> list[_Draft]:
        """Examples whose answers have nothing of a benchmark's test items."""
        return [
            draft
            for draft in drafts
            if not self._overlaps(work, draft, self._answer(work.request, draft))
        ]

    def _overlaps(self, work: _Work, draft: _Draft, text: str) -> bool:
        overlaps = self._benchmark.find(text)
        if not overlaps:
            return False
        first = overlaps[0]
        # Without the words themselves: the teacher is told the reason.
        detail = f"{first.kind} of {first.task}, item {first.item}, {first.field}"
        draft.reject(work, "contaminated", detail)
        return True

    def _answer(self, request: StageRequest, draft: _Draft) -> str:
        """What the student is to write: in the module's form, or as the teacher wrote it."""
        assert draft.example is not None
        form, steps = self._form(request, draft.unit.of.module), self.settings.steps
        if form == "as_written" and steps and draft.solution is not None:
            return draft.solution
        template = "lines" if form == "as_written" else form
        return render_answer(draft.example, draft.unit.of.seed.kind, template, steps)

    def _verified(self, work: _Work, drafts: Sequence[_Draft]) -> list[tuple[_Draft, Lesson]]:
        """Lessons of the examples that are right."""
        candidates: list[Candidate] = []
        for draft in drafts:
            assert draft.example is not None
            seeds = tuple(
                self._call_seed(work, VERIFICATION, draft.unit, *draft.place, number)
                for number in range(self.settings.verification.num_solutions)
            )
            seed = draft.unit.of.seed
            candidates.append(Candidate(seed, draft.example, seeds, draft.solution))
        purpose = VERIFICATION if work.purpose == SYNTHESIS else work.purpose
        verified = self._verifier.verify(candidates, purpose, work.undecided)
        work.exhausted = work.exhausted or verified.exhausted
        work.tokens += verified.tokens
        lessons: list[tuple[_Draft, Lesson]] = []
        for draft, verification in zip(drafts, verified.found, strict=True):
            if verification is None:
                draft.reject(work, "unverified", "the budget ended before its verification")
            elif verification.reason is not None:
                detail = f"{verification.verified_by}: {verification.detail}"
                draft.reject(work, verification.reason, detail)
            else:
                lessons.append((draft, self._lesson(work, draft, verification)))
        return lessons

    def _lesson(self, work: _Work, draft: _Draft, verification: Verification) -> Lesson:
        request, unit, example = work.request, draft.unit, draft.example
        assert example is not None
        if verification.tests is not None:
            solution = example.solution.model_copy(update={"verification": verification.tests})
            example = example.model_copy(update={"solution": solution})
        form = self._form(request, unit.of.module)
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
        self, work: _Work, lessons: Sequence[tuple[_Draft, Lesson]]
    ) -> list[tuple[_Draft, Lesson]]:
        """Those that the student is ready for, the least surprising first."""
        zone = self.settings.zone
        # Probes measure what the student can't do either.
        if zone is None or not lessons or work.purpose != SYNTHESIS:
            return list(lessons)
        assert self._scorer is not None
        scores = self._scorer([(lesson.prompt, lesson.answer) for _, lesson in lessons])
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
        self, work: _Work, units: Sequence[Unit], lessons: Sequence[tuple[_Draft, Lesson]]
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
                    work.accept(lesson)
            if unit.missing and unit.attempt <= work.max_retries:
                unit.attempt += 1
                work.queue.give_back(unit)
        if not work.exhausted:
            work.give_up({unit.of.module for unit in units}, self.settings.give_up_after)


_PARSE_REASONS: dict[str, RejectReason] = {
    "length": "length",
    "filtered": "filtered",
    "no_json": "no_json",
    "schema": "schema",
    "unparsed": "unparsed",
}


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


@dataclasses.dataclass(frozen=True)
class _Draft:
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

    def reject(self, work: _Work, reason: RejectReason, detail: str) -> None:
        work.reject(self.unit, reason, detail, self.raw)


class _Work:
    """What a request has come to so far."""

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
        self.calls += 1
        self.tokens += completion.completion_tokens
        self._paid[unit.of.module] += 1

    def accept(self, lesson: Lesson) -> None:
        self.accepted.add(lesson.id, lesson.prompt)
        self.lessons.append(lesson)
        self.queue.count(lesson.module)
        self._fruitless[lesson.module] = -1
        self._paid[lesson.module] = 0
        self._failed[lesson.module].clear()

    def reject(self, unit: Unit, reason: RejectReason, detail: str, raw: str) -> None:
        seed, module = unit.of.seed.id, unit.of.module
        rejected = RejectedExample(seed, module, unit.of.stage, unit.attempt, reason, detail, raw)
        self.rejects.append(rejected)
        if reason != "surplus":
            self._failed[module].append(rejected)
            unit.complaint = f"{reason}: {detail}"[:COMPLAINT_CHARACTERS]

    def give_up(self, modules: set[str], after: int) -> None:
        """Say which modules of a batch have no lesson of it; exclude those that never have."""
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
