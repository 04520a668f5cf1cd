"""Asks the teacher for examples, and reads what it wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ioa_jax.adapter.dimensions import PLAIN, measure
from ioa_jax.adapter.forms import Form
from ioa_jax.adapter.novelty import Novelty
from ioa_jax.adapter.plain_text import split_solution
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
from ioa_jax.adapter.schema import Example, ExampleList, RejectReason
from ioa_jax.adapter.settings import AdapterSettings
from ioa_jax.adapter.stage import StageRequest, StageSeed
from ioa_jax.adapter.units import Unit
from ioa_jax.adapter.verify import generate_within_budget
from ioa_jax.adapter.work import SYNTHESIS, Draft, Work
from ioa_jax.seeds import SeedItem
from ioa_jax.streams import stream
from ioa_jax.teachers.base import ChatRequest, Completion, Sampling, Teacher
from ioa_jax.teachers.structured import Unfit

# Seeds that the protocol `few_shot` shows.
SHOTS = 3

PARSE_REASONS: dict[str, RejectReason] = {
    "length": "length",
    "filtered": "filtered",
    "no_json": "no_json",
    "schema": "schema",
    "unparsed": "unparsed",
}


class Writer:
    """Writes the examples of units by one of the protocols; the teacher stays open."""

    def __init__(
        self, teacher: Teacher, settings: AdapterSettings, novelty: Novelty, seed: int
    ) -> None:
        """Nothing is called yet.

        Args:
            teacher: Behind a ledger and a budget.
            settings: Of all stages.
            novelty: What a problem mustn't repeat: known before its answer is paid for.
            seed: Of the run.
        """
        self._teacher = teacher
        self._settings = settings
        self._novelty = novelty
        self._seed = seed
        as_record = settings.protocol == "schema"
        self._answer_schema = ExampleList.model_json_schema() if as_record else None

    def call_seed(self, work: Work, what: str, unit: Unit, *which: int) -> int:
        """Of one call; `which` tells apart the calls of a unit's attempt."""
        request = work.request
        purpose = what if work.purpose == SYNTHESIS else f"{work.purpose}.{what}"
        place = (unit.of.stage, request.kind, request.round, unit.of.seed.id, unit.group)
        drawn = stream(self._seed, purpose, *place, unit.attempt, *which)
        return int(drawn.integers(2**31))

    def ask(
        self,
        requests: Sequence[ChatRequest],
        max_tokens: int,
        stop: tuple[str, ...] = (),
        temperature: float | None = None,
    ) -> tuple[list[Completion | None], bool]:
        """The answers that the budget allows, and whether it ended before the last."""
        if temperature is None:
            temperature = self._settings.temperature
        sampling = Sampling(max_tokens, temperature, stop=stop)
        return generate_within_budget(self._teacher, requests, sampling)

    def write(self, work: Work, units: Sequence[Unit]) -> list[Draft]:
        """The examples in the answers of one batch."""
        if self._settings.two_calls:
            return self._write_in_two_calls(work, units)
        requests: list[ChatRequest] = []
        stop: tuple[str, ...] = ()
        asked: list[tuple[Unit, SynthesisSpec, int]] = []
        for unit in units:
            spec = self._spec(work, unit)
            messages, stop = self._prompt(work, unit, spec)
            for rewrite in range(self._settings.rewrites):
                seed = self.call_seed(work, SYNTHESIS, unit, rewrite)
                requests.append(ChatRequest(messages, work.purpose, seed, self._answer_schema))
                asked.append((unit, spec, rewrite))
        answers, exhausted = self.ask(requests, self._settings.max_tokens, stop)
        work.exhausted = work.exhausted or exhausted
        drafts: list[Draft] = []
        for (unit, spec, rewrite), completion in zip(asked, answers, strict=True):
            if completion is not None:
                work.count_call(unit, completion)
                drafts += self._read(work, unit, spec, rewrite, completion)
        return self._novelty.fresh(work, drafts)

    def _write_in_two_calls(self, work: Work, units: Sequence[Unit]) -> list[Draft]:
        """Problems alone, and then the answers of those that are new."""
        asked = [(unit, rewrite) for unit in units for rewrite in range(self._settings.rewrites)]
        requests = [
            ChatRequest(
                render_problem(self._settings.pack, unit.of.seed.prompt, unit.level),
                work.purpose,
                self.call_seed(work, SYNTHESIS, unit, rewrite),
            )
            for unit, rewrite in asked
        ]
        answers, exhausted = self.ask(requests, self._settings.max_problem_tokens)
        problems: list[Draft] = []
        for (unit, rewrite), completion in zip(asked, answers, strict=True):
            if completion is None:
                continue
            work.count_call(unit, completion)
            try:
                problem = read_problem(completion)
            except Unfit as unfit:
                work.reject(unit, PARSE_REASONS[unfit.kind], str(unfit), completion.text)
            else:
                problems.append(Draft(unit, (rewrite, 0), problem, problem))
        problems = self._novelty.fresh(work, problems)
        temperature = self._settings.answer_temperature
        requests = [
            ChatRequest(
                ({"role": "user", "content": one.problem},),
                work.purpose,
                # Greedy answers don't depend on it: equal problems share a call.
                self.call_seed(work, "answer", one.unit, *one.place) if temperature else 0,
            )
            for one in problems
        ]
        answers, ended = self.ask(requests, self._settings.max_tokens, (), temperature)
        work.exhausted = work.exhausted or exhausted or ended
        drafts: list[Draft] = []
        for one, completion in zip(problems, answers, strict=True):
            if completion is None:
                one.reject(work, "unverified", "the budget ended before its answer")
                continue
            work.count_call(one.unit, completion)
            read = read_answer(one.problem, completion, self._spec(work, one.unit))
            drafts += self._drafts(work, one.unit, one.place, read)
        return drafts

    def _spec(self, work: Work, unit: Unit) -> SynthesisSpec:
        request, settings = work.request, self._settings
        seed, as_record = unit.of.seed, settings.protocol == "schema"
        form = self.form(request, unit.of.module)
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
        if of.mastery is not None and of.mastery <= self._settings.decompose_below:
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
        return bool(drawn < self._settings.styled_share)

    def form(self, request: StageRequest, module: str) -> Form:
        """In which answers of a module are written."""
        return request.forms.get(module, self._settings.answer_template)

    def _prompt(
        self, work: Work, unit: Unit, spec: SynthesisSpec
    ) -> tuple[Messages, tuple[str, ...]]:
        """The message that asks for a unit's examples, and the texts at which an answer ends."""
        if self._settings.protocol == "schema":
            return render_synthesis(self._settings.pack, spec, self._settings.form), ()
        if self._settings.protocol == "lean":
            return render_lean(spec), ()
        return render_few_shot(self._shots(unit, work.seeds), unit.of.module, unit.level)

    def problem_prompt(
        self, unit: Unit, modules: Mapping[str, Sequence[StageSeed]]
    ) -> tuple[Messages, tuple[str, ...]]:
        """The message that asks for a problem alone, and the texts at which an answer ends."""
        if self._settings.protocol == "few_shot":
            shots = self._shots(unit, modules)
            return render_few_shot(shots, unit.of.module, unit.level, with_solutions=False)
        return render_problem(self._settings.pack, unit.of.seed.prompt, unit.level), ()

    def _shots(self, unit: Unit, modules: Mapping[str, Sequence[StageSeed]]) -> list[SeedItem]:
        """Seeds of the module, the unit's own last."""
        others = [one.seed for one in modules[unit.of.module] if one.seed.id != unit.of.seed.id]
        rng = stream(self._seed, "shots", unit.of.seed.id, unit.group, unit.attempt)
        chosen = rng.permutation(len(others))[: SHOTS - 1]
        return [*(others[int(place)] for place in chosen), unit.of.seed]

    def _read(
        self,
        work: Work,
        unit: Unit,
        spec: SynthesisSpec,
        rewrite: int,
        completion: Completion,
    ) -> list[Draft]:
        """The examples of an answer that can be read and fit the request."""
        if self._settings.protocol != "schema":
            return self._drafts(work, unit, (rewrite, 0), read_plain(completion, spec))
        try:
            found = read_examples(completion, spec)
        except Unfit as unfit:
            work.reject(unit, PARSE_REASONS[unfit.kind], str(unfit), completion.text)
            return []
        drafts: list[Draft] = []
        for place, one in enumerate(found):
            if place >= spec.count:
                work.reject(unit, "surplus", f"{spec.count} were asked for", one.raw)
            else:
                drafts += self._drafts(work, unit, (rewrite, place), one)
        return drafts

    def _drafts(
        self, work: Work, unit: Unit, place: tuple[int, int], one: WrittenExample
    ) -> list[Draft]:
        """An example, if it can be read and fits the request."""
        example = one.example
        if isinstance(example, Unfit):
            work.reject(unit, PARSE_REASONS[example.kind], str(example), one.raw)
            return []
        work.repaired += one.repaired
        reason, detail = self._misfit(work.request, unit, example)
        if reason is not None:
            work.reject(unit, reason, detail, one.raw)
            return []
        return [Draft(unit, place, example.problem, one.raw, example, one.solution)]

    def _misfit(
        self, request: StageRequest, unit: Unit, example: Example
    ) -> tuple[RejectReason | None, str]:
        """Why an example isn't what was asked for."""
        if self._settings.protocol != "schema":
            return None, ""
        if example.difficulty_tag != unit.level:
            return "off_request", f"difficulty {example.difficulty_tag}, not {unit.level}"
        figures = measure(example, self._settings.dimensions.template)
        largest, steps = figures.get("largest_operand", 0.0), figures["steps"]
        size_cap = self._settings.size_cap(unit.of.seed, unit.level, request.kind)
        if size_cap is not None and largest > size_cap:
            return "too_large", f"the number {largest:.15g} is over {size_cap}"
        step_cap = self._settings.step_cap(unit.level)
        if step_cap is not None and steps > step_cap:
            return "too_large", f"{steps:g} steps are more than {step_cap}"
        return None, ""
