"""Whether an example is right: found out without the teacher where that can be.

What decides, by how the seed is checked:

- the problem is the seed's own: agreement with its reference, or its tests;
- `math`: a problem that is nothing but an expression is worked out (`symbolic`);
- `code`: the program passes the tests that the teacher wrote, in the sandbox, and no program whose
  functions return a constant does. Program and tests run in the jail together, since the teacher
  wrote both: nothing of either may run outside. A program that isn't Python, or defines no
  function, is rejected always;
- `instruction`: the answer passes the seed's own checks. Asked for in JSON a problem keeps to
  these; as plain text it may have other values, and an answer that fails them may be right.

What none of these decides is undecided, and `VerificationSettings.undecided` says what becomes of
it. Solved again: more than half of the teacher's solutions, written without having seen the
example's, agree with it by the kind's grader; of programs more than half of all solutions, the
example's own among them, return the same values for the tests' inputs (those of the seed's tests
where it has none), and these become its tests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ioa_jax.adapter.answer import plain_answer, plain_program
from ioa_jax.adapter.plain_text import split_solution
from ioa_jax.adapter.programs import (
    STUB_VALUES,
    calls_under_test,
    main_function,
    parse_python,
    renamed,
    same_values,
    stub_program,
    values_of,
    write_tests,
)
from ioa_jax.adapter.render import Pack, render_solve
from ioa_jax.adapter.schema import Example, RejectReason
from ioa_jax.adapter.symbolic import direct_answer
from ioa_jax.errors import InputError
from ioa_jax.graders.base import Grader, Item, Verdict
from ioa_jax.graders.numbers import extract_flexible
from ioa_jax.sandbox import Sandbox
from ioa_jax.seeds import SeedItem
from ioa_jax.teachers.base import ChatRequest, Completion, Sampling, Teacher
from ioa_jax.teachers.spend import BudgetExceeded
from ioa_jax.teachers.structured import Unfit, answer_text

VERIFICATION = "verification"

THREADS = 4
TESTS = "tests in the sandbox"
PROGRAM = "program"
NOT_VERIFIED = "not verified"
AGREEMENT = "agreement of programs"

# Domain by kind of check, as the prompts for solutions know it.
_SOLVED_AS = {"math": "math", "number": "math", "code": "code"}

Undecided = Literal["solve", "accept", "reject"]


class VerificationSettings(BaseModel):
    """How examples are verified."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    on: bool = Field(default=True, description="False takes examples as the teacher wrote them.")
    undecided: Undecided = Field(
        default="solve",
        description=(
            "What becomes of an example that nothing but the teacher can decide: `solve` has it "
            "solved again, `accept` takes it as it is written, `reject` doesn't."
        ),
    )
    num_solutions: int = Field(
        default=1, ge=1, description="Independent solutions; more than half have to agree."
    )
    temperature: float = Field(default=0.0, ge=0, description="Of the solutions; 0 is greedy.")
    max_tokens: int = Field(default=512, ge=1, description="Of a solution.")

    @model_validator(mode="after")
    def _solutions_differ(self) -> VerificationSettings:
        if self.num_solutions > 1 and self.temperature == 0:
            raise ValueError("num_solutions > 1 needs a temperature > 0: greedy ones are all equal")
        return self


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An example to be verified.

    Attributes:
        seed: Its seed, whose check decides the rule.
        example: What the teacher wrote.
        call_seeds: One an independent solution.
        answer: The solution as it was written, where that was as text.
    """

    seed: SeedItem
    example: Example
    call_seeds: tuple[int, ...]
    answer: str | None = None


@dataclasses.dataclass(frozen=True)
class Verification:
    """What came of a candidate.

    Attributes:
        reason: Why it isn't right; None if it is, or was accepted without being verified.
        verified_by: How it was found out, with the library's version.
        detail: In words; empty where there is nothing to say.
        tests: Of a program whose tests were rewritten with the values that were found, else None.
    """

    reason: RejectReason | None
    verified_by: str
    detail: str = ""
    tests: str | None = None


@dataclasses.dataclass(frozen=True)
class Verified:
    """What came of a batch of candidates.

    Attributes:
        found: One a candidate, None where the budget ended before it was known.
        exhausted: It did.
        tokens: That the teacher's solutions took.
    """

    found: tuple[Verification | None, ...]
    exhausted: bool = False
    tokens: int = 0


@dataclasses.dataclass(frozen=True)
class _Programs:
    """What the sandbox runs: the program with its tests, then each stub with them.

    Attributes:
        sources: By `PROGRAM`, or by what the stub returns; empty without tests.
    """

    sources: dict[str, str]

    @classmethod
    def read(cls, example: Example, strict: bool) -> _Programs | Verification:
        """What is to be run, or why nothing is."""
        program = plain_program(example.solution.final_answer)
        tests = plain_program(example.solution.verification)
        try:
            stubs = {value: stub_program(program, value) for value in STUB_VALUES}
        except InputError as error:
            return Verification("check_failed", TESTS, str(error))
        try:
            parse_python(tests)
        except InputError as error:
            if strict:
                return Verification("check_failed", TESTS, str(error))
            return cls({})
        # Example inputs alone pass whatever the program does.
        if not strict and "assert" not in tests:
            return cls({})
        return cls(
            {name: f"{source}\n\n{tests}\n" for name, source in {PROGRAM: program, **stubs}.items()}
        )


class Verifier:
    """Verifies candidates of any kind; graders and sandbox are the caller's and stay open."""

    def __init__(
        self,
        teacher: Teacher,
        pack: Pack,
        settings: VerificationSettings,
        graders: Mapping[str, Grader],
        sandbox: Sandbox | None = None,
        strict: bool = True,
    ) -> None:
        """Nothing is called yet.

        Args:
            teacher: Who solves independently.
            pack: Prompt pack of the request for a solution.
            settings: How.
            graders: By the kind of check (`ioa_jax.graders.registry`), those of the seeds to come.
            sandbox: For checks of the kind `code`.
            strict: A new problem keeps to its seed's instructions, and tests expect right values:
                what fails them is wrong. Else it is undecided.
        """
        self._teacher = teacher
        self._pack: Pack = pack
        self._settings = settings
        self._graders = graders
        self._sandbox = sandbox
        self._strict = strict

    def check_seeds(self, seeds: Sequence[SeedItem]) -> None:
        """Whether there is what their kinds of check need.

        Raises:
            InputError: Names the first seed for whose kind there is no grader or no sandbox.
        """
        if not self._settings.on:
            return
        for seed in seeds:
            if seed.kind == "code":
                if self._sandbox is None:
                    raise InputError(f"seed {seed.id!r}: a sandbox is needed to verify programs")
            elif seed.kind not in self._graders:
                raise InputError(
                    f"seed {seed.id!r}: a grader {seed.kind!r} is needed; there are "
                    f"{', '.join(sorted(self._graders)) or 'none'}"
                )

    def verify(
        self,
        candidates: Sequence[Candidate],
        purpose: str = VERIFICATION,
        undecided: Undecided | None = None,
    ) -> Verified:
        """Verify all; the independent solutions go to the teacher in one batch.

        Args:
            candidates: Any number.
            purpose: Of the teacher's solutions.
            undecided: In place of the settings'.

        Raises:
            InputError: As `check_seeds`; or an item of a seed lacks what its grader needs.
            SandboxError, TeacherError: As of the sandbox and the teacher.
        """
        if not self._settings.on:
            return Verified((Verification(None, "none"),) * len(candidates))
        self.check_seeds([candidate.seed for candidate in candidates])
        policy = undecided or self._settings.undecided
        # Reading Python changes the process's warnings, which threads mustn't do.
        programs = [
            _Programs.read(candidate.example, self._strict)
            if candidate.seed.kind == "code"
            else None
            for candidate in candidates
        ]
        with ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(self._alone, candidates, programs, [policy] * len(candidates)))
            open_ = [index for index, one in enumerate(found) if one is None]
            solutions, exhausted = self._solve([candidates[index] for index in open_], purpose)
            votes = [
                pool.submit(self._decide, candidates[index], own)
                if candidates[index].seed.kind != "code"
                else None
                for index, own in zip(open_, solutions, strict=True)
            ]
            agreed = self._agree(
                pool,
                [
                    (candidates[index], own)
                    for index, own in zip(open_, solutions, strict=True)
                    if candidates[index].seed.kind == "code"
                ],
            )
            for index, vote in zip(open_, votes, strict=True):
                found[index] = next(agreed) if vote is None else vote.result()
        tokens = sum(one.completion_tokens for own in solutions for one in own if one is not None)
        return Verified(tuple(found), exhausted, tokens)

    def _alone(
        self, candidate: Candidate, programs: _Programs | Verification | None, policy: Undecided
    ) -> Verification | None:
        """What can be known without the teacher; None if it is to solve the problem again."""
        if isinstance(programs, Verification):
            return programs
        seed, example = candidate.seed, candidate.example
        if example.problem.split() == seed.prompt.split():
            return self._own_problem(candidate)
        kind = seed.kind
        if programs is not None and programs.sources:
            verification = self._run(programs)
            # Of values that the teacher expects some are wrong, unless the program returns them.
            if self._strict or policy != "solve" or verification.reason != "check_failed":
                return verification
        elif kind == "instruction":
            final = example.solution.final_answer
            verdict = self._graders[kind].grade(seed.item(), final)
            if self._strict or verdict.correct:
                return _by_verdict(verdict, "instruction checks")
        elif kind == "math" and (expected := direct_answer(example.problem)) is not None:
            final = plain_answer(example.solution.final_answer)
            item = Item(seed.id, example.problem, (_latex(expected),))
            verdict = self._graders["math"].grade(item, rf"\boxed{{{final}}}")
            return _by_verdict(verdict, "symbolic", f"{final} isn't {expected}")
        if policy == "accept":
            return Verification(None, NOT_VERIFIED)
        if policy == "reject":
            return Verification("unverified", "none", "only the teacher could decide")
        if kind == "instruction":
            return Verification("unverified", "instruction checks", "the seed's don't fit it")
        return None

    def _own_problem(self, candidate: Candidate) -> Verification:
        """By the seed's own check."""
        seed, final = candidate.seed, candidate.example.solution.final_answer
        if seed.kind == "code":
            assert self._sandbox is not None
            program, entry_point = plain_program(final), seed.check["entry_point"]
            result = self._sandbox.check(program, f"{seed.check['tests']}\n", [entry_point])
            by = f"the seed's {TESTS} ({self._sandbox.info.backend})"
            if result.status == "infra_error":
                return Verification("unverified", by, result.detail)
            detail = f"{result.status}: {result.detail}"
            return (
                Verification(None, by)
                if result.passed
                else Verification("check_failed", by, detail)
            )
        if seed.kind == "math":
            final = rf"\boxed{{{plain_answer(final)}}}"
        verdict = self._graders[seed.kind].grade(seed.item(), final)
        return _by_verdict(verdict, "the seed's own check", "not the seed's answer")

    def _run(self, programs: _Programs) -> Verification:
        assert self._sandbox is not None
        by = f"{TESTS} ({self._sandbox.info.backend})"
        for name, source in programs.sources.items():
            result = self._sandbox.run(source)
            if result.status == "infra_error":
                return Verification("unverified", by, result.detail)
            if name == PROGRAM and not result.passed:
                return Verification("check_failed", by, f"{result.status}: {result.detail}")
            if name != PROGRAM and result.passed:
                return Verification("vacuous_tests", by, f"functions that return {name} pass")
        return Verification(None, by)

    def _solve(
        self, candidates: Sequence[Candidate], purpose: str
    ) -> tuple[list[tuple[Completion | None, ...]], bool]:
        """Every candidate's independent solutions, None where the budget had ended."""
        count = self._settings.num_solutions
        requests = [
            ChatRequest(
                render_solve(
                    self._pack, candidate.example.problem, _SOLVED_AS.get(candidate.seed.kind, "")
                ),
                purpose,
                seed,
            )
            for candidate in candidates
            for seed in candidate.call_seeds
        ]
        sampling = Sampling(self._settings.max_tokens, self._settings.temperature)
        answers, exhausted = generate_within_budget(self._teacher, requests, sampling)
        return [
            tuple(answers[start : start + count]) for start in range(0, len(requests), count)
        ], exhausted

    def _decide(
        self, candidate: Candidate, solutions: Sequence[Completion | None]
    ) -> Verification | None:
        completions = [one for one in solutions if one is not None]
        if len(completions) < len(solutions):
            return None
        kind, example = candidate.seed.kind, candidate.example
        final = plain_answer(example.solution.final_answer)
        if kind == "number":
            final = extract_flexible(final) or ""
        item = Item(candidate.seed.id, example.problem, (final,))
        grader = self._graders[kind]
        try:
            grader.check_item(item)
        except InputError:
            # The reference is the example's answer: what is wrong with it is the teacher's fault.
            detail = f"no {kind} answer: {example.solution.final_answer}"
            return Verification("check_failed", f"{kind} agreement", detail)
        verdicts = [grader.grade(item, completion.text) for completion in completions]
        agreeing = sum(verdict.correct for verdict in verdicts)
        by = f"{kind} agreement with {agreeing} of {len(verdicts)} solutions ({verdicts[0].source})"
        if 2 * agreeing > len(verdicts):
            return Verification(None, by)
        others = [verdict.extracted for verdict in verdicts if verdict.extracted is not None]
        if not others:
            return Verification("unverified", by, "no independent solution has an answer")
        return Verification("check_failed", by, f"{final}, but solved independently {others[0]}")

    def _agree(
        self,
        pool: ThreadPoolExecutor,
        solved: Sequence[tuple[Candidate, Sequence[Completion | None]]],
    ) -> Iterator[Verification | None]:
        """Whether solutions of programming problems return the same, in the candidates' order."""
        jobs = [_Agreement.read(candidate, own) for candidate, own in solved]
        sandbox = self._sandbox
        if sandbox is None:
            return
        waiting = [
            job
            if job is None or isinstance(job, Verification)
            else pool.submit(job.decide, sandbox)
            for job in jobs
        ]
        for one in waiting:
            yield one.result() if isinstance(one, Future) else one


@dataclasses.dataclass(frozen=True)
class _Agreement:
    """Several solutions of one programming problem, and what they are run on.

    Attributes:
        programs: The example's own first, each with the calls as it names its function.
    """

    programs: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def read(
        cls, candidate: Candidate, solutions: Sequence[Completion | None]
    ) -> _Agreement | Verification | None:
        """What is to be run, why nothing is, or None where the budget ended."""
        if any(one is None for one in solutions):
            return None
        example, check = candidate.example, candidate.seed.check
        program = plain_program(example.solution.final_answer)
        tests = plain_program(example.solution.verification)
        try:
            calls = calls_under_test(tests)
            name = main_function(program, tests or example.problem)
            if not calls:
                calls = renamed(calls_under_test(check["tests"]), check["entry_point"], name)
            programs = [(program, calls)]
            for one in solutions:
                assert one is not None
                found = _solution_program(one, name)
                if found is not None:
                    programs.append((found[0], renamed(calls, name, found[1])))
                else:
                    programs.append(("", ()))
        except InputError as error:
            return Verification("check_failed", AGREEMENT, str(error))
        if not calls:
            return Verification("unverified", AGREEMENT, "there are no inputs to run it on")
        return cls(tuple(programs))

    def decide(self, sandbox: Sandbox) -> Verification:
        """Run all, and compare with what the example's own returns."""
        (program, calls), *others = self.programs
        values = values_of(program, calls, sandbox)
        if values is None or not any(value is not None for value in values):
            return Verification("check_failed", AGREEMENT, "it fails on all inputs of its tests")
        agreeing = 1
        for other, own_calls in others:
            found = values_of(other, own_calls, sandbox) if own_calls else None
            agreeing += found is not None and all(map(same_values, values, found))
        by = f"{AGREEMENT}: {agreeing} of {len(self.programs)} return the same"
        if 2 * agreeing <= len(self.programs):
            return Verification("check_failed", by, "most solutions return other values")
        known = {value for value in values if value is not None}
        tested = sum(value is not None for value in values)
        if len(known) == 1 and (tested > 1 or known <= set(STUB_VALUES)):
            return Verification("vacuous_tests", by, f"it always returns {known.pop()}")
        return Verification(None, by, tests=write_tests(calls, values))


def _solution_program(completion: Completion, name: str) -> tuple[str, str] | None:
    """The program in a solution, and its function's name; None if there is none."""
    try:
        _, program = split_solution(answer_text(completion), "code")
        return program, main_function(program, f"{name}(")
    except (Unfit, InputError):
        return None


def generate_within_budget(
    teacher: Teacher, requests: Sequence[ChatRequest], sampling: Sampling
) -> tuple[list[Completion | None], bool]:
    """The answers that the budget allows, and whether it ended before the last.

    Args:
        teacher: Behind a budget, or not.
        requests: What to ask, in one batch.
        sampling: For all.

    Returns:
        One a request, None where the budget had ended.

    Raises:
        TeacherError: As `teacher.generate`.
    """
    answers: list[Completion | None] = [None] * len(requests)

    def keep(index: int, completion: Completion) -> None:
        answers[index] = completion

    try:
        if requests:
            teacher.generate(requests, sampling, keep)
    except BudgetExceeded:
        return answers, True
    return answers, False


def _by_verdict(verdict: Verdict, rule: str, detail: str = "") -> Verification:
    by = f"{rule} ({verdict.source})"
    if verdict.correct:
        return Verification(None, by)
    return Verification("check_failed", by, verdict.detail or detail)


def _latex(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    sign = "-" if value < 0 else ""
    return rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
