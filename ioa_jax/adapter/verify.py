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

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction

from ioa_jax.adapter.answer import plain_answer, plain_program
from ioa_jax.adapter.program_checks import PROGRAM, TESTS, Agreement, Programs
from ioa_jax.adapter.render import Pack, render_solve
from ioa_jax.adapter.symbolic import direct_answer
from ioa_jax.adapter.verification import (
    Candidate,
    Undecided,
    Verification,
    VerificationSettings,
    Verified,
)
from ioa_jax.errors import InputError
from ioa_jax.graders.base import Grader, Item, Verdict
from ioa_jax.graders.numbers import extract_flexible
from ioa_jax.sandbox import Sandbox
from ioa_jax.seeds import SeedItem
from ioa_jax.teachers.base import ChatRequest, Completion, Sampling, Teacher
from ioa_jax.teachers.spend import BudgetExceeded

VERIFICATION = "verification"
THREADS = 4
NOT_VERIFIED = "not verified"
# Domain by kind of check, as the prompts for solutions know it.
_SOLVED_AS = {"math": "math", "number": "math", "code": "code"}


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
            Programs.read(candidate.example, self._strict)
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
        self, candidate: Candidate, programs: Programs | Verification | None, policy: Undecided
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
            if result.status in ("infra_error", "bad_test"):
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

    def _run(self, programs: Programs) -> Verification:
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
        jobs = [Agreement.read(candidate, own) for candidate, own in solved]
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
