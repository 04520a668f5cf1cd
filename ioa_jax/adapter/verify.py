"""Whether an example is right: a check of its own, or agreement with independent solutions.

The rule follows from how the seed is checked:

- `math`: a problem that is nothing but an expression is worked out (`symbolic`); for any other, the
  teacher solves it without having seen the example's solution, and more than half of the solutions
  have to agree with its answer by maths equivalence.
- `number`, `exact`, `rouge`: as the second, by that grader.
- `code`: the program passes the tests that the teacher wrote, in the sandbox, and no program whose
  functions return a constant does. Program and tests run in the jail together, since the teacher
  wrote both: nothing of either may run outside.
- `instruction`: the answer passes the seed's own checks.
"""

from __future__ import annotations

import ast
import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ioa_jax.adapter.answer import plain_answer, plain_program
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

VERIFICATION = "verification"

# What a program without content may return. Tests that one of them passes say nothing.
STUB_VALUES = ("None", "True", "0", "''", "[]")
THREADS = 4
TESTS = "tests in the sandbox"
PROGRAM = "program"


class VerificationSettings(BaseModel):
    """How examples are verified."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    on: bool = Field(default=True, description="False takes examples as the teacher wrote them.")
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
    """

    seed: SeedItem
    example: Example
    call_seeds: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Verification:
    """What came of a candidate.

    Attributes:
        reason: Why it isn't right; None if it is.
        verified_by: How it was found out, with the library's version.
        detail: In words; empty where there is nothing to say.
    """

    reason: RejectReason | None
    verified_by: str
    detail: str = ""


@dataclasses.dataclass(frozen=True)
class _Programs:
    """What the sandbox runs: the program with its tests, then each stub with them.

    Attributes:
        sources: By `PROGRAM`, or by what the stub returns.
    """

    sources: dict[str, str]

    @classmethod
    def read(cls, example: Example) -> _Programs | Verification:
        """What is to be run, or why nothing is."""
        program = plain_program(example.solution.final_answer)
        tests = plain_program(example.solution.verification)
        try:
            parse_python(tests)
            stubs = {value: stub_program(program, value) for value in STUB_VALUES}
        except InputError as error:
            return Verification("check_failed", TESTS, str(error))
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
    ) -> None:
        """Nothing is called yet.

        Args:
            teacher: Who solves independently.
            pack: Prompt pack of the request for a solution.
            settings: How.
            graders: By the kind of check (`ioa_jax.graders.registry`), those of the seeds to come.
            sandbox: For checks of the kind `code`.
        """
        self._teacher = teacher
        self._pack: Pack = pack
        self._settings = settings
        self._graders = graders
        self._sandbox = sandbox

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

    def verify(self, candidates: Sequence[Candidate]) -> tuple[list[Verification | None], bool]:
        """Verify all; the independent solutions go to the teacher in one batch.

        Returns:
            One a candidate, None where the budget ended before it was known; and whether it did.

        Raises:
            InputError: As `check_seeds`; or an item of a seed lacks what its grader needs.
            SandboxError, TeacherError: As of the sandbox and the teacher.
        """
        if not self._settings.on:
            return [Verification(None, "none") for _ in candidates], False
        self.check_seeds([candidate.seed for candidate in candidates])
        # Reading Python changes the process's warnings, which threads mustn't do.
        programs = [
            _Programs.read(candidate.example) if candidate.seed.kind == "code" else None
            for candidate in candidates
        ]
        with ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(self._alone, candidates, programs))
            open_ = [index for index, one in enumerate(found) if one is None]
            solutions, exhausted = self._solve([candidates[index] for index in open_])
            votes = pool.map(self._vote, (candidates[index] for index in open_), solutions)
            for index, vote in zip(open_, votes, strict=True):
                found[index] = vote
        return found, exhausted

    def _alone(
        self, candidate: Candidate, programs: _Programs | Verification | None
    ) -> Verification | None:
        """What can be known without the teacher; None if nothing can."""
        if programs is not None:
            return programs if isinstance(programs, Verification) else self._run(programs)
        match candidate.seed.kind:
            case "instruction":
                final = candidate.example.solution.final_answer
                verdict = self._graders["instruction"].grade(candidate.seed.item(), final)
                return _by_verdict(verdict, "instruction checks")
            case "math":
                expected = direct_answer(candidate.example.problem)
                if expected is None:
                    return None
                final = plain_answer(candidate.example.solution.final_answer)
                item = Item(candidate.seed.id, candidate.example.problem, (_latex(expected),))
                verdict = self._graders["math"].grade(item, rf"\boxed{{{final}}}")
                return _by_verdict(verdict, "symbolic", f"{final} isn't {expected}")
            case _:
                return None

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
        self, candidates: Sequence[Candidate]
    ) -> tuple[list[tuple[Completion, ...] | None], bool]:
        """Every candidate's independent solutions, None where they aren't all there."""
        count = self._settings.num_solutions
        requests = [
            ChatRequest(
                render_solve(self._pack, candidate.example.problem, candidate.seed.domain),
                VERIFICATION,
                seed,
            )
            for candidate in candidates
            for seed in candidate.call_seeds
        ]
        sampling = Sampling(self._settings.max_tokens, self._settings.temperature)
        answers, exhausted = generate_within_budget(self._teacher, requests, sampling)
        solutions: list[tuple[Completion, ...] | None] = []
        for start in range(0, len(requests), count):
            own = tuple(one for one in answers[start : start + count] if one is not None)
            solutions.append(own if len(own) == count else None)
        return solutions, exhausted

    def _vote(
        self, candidate: Candidate, completions: Sequence[Completion] | None
    ) -> Verification | None:
        if completions is None:
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


def stub_program(program: str, value: str) -> str:
    """A program whose functions and methods do nothing but return a constant.

    Args:
        program: Python.
        value: The constant, as an expression.

    Raises:
        InputError: It isn't Python, or it defines no function.
    """
    tree = parse_python(program)
    body = ast.parse(f"def stub():\n    return {value}").body[0]
    assert isinstance(body, ast.FunctionDef)
    functions = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    if not functions:
        raise InputError("the program defines no function")
    for function in functions:
        function.body = body.body
    try:
        return ast.unparse(tree)
    except RecursionError:
        raise InputError("the program is nested too deeply") from None


def parse_python(source: str) -> ast.Module:
    """The syntax tree of Python that a teacher wrote.

    Raises:
        InputError: It isn't Python.
    """
    try:
        with warnings.catch_warnings():
            # Of its style, such as an escape that is none.
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"not Python: {error}") from None


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
