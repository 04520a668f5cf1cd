"""What verification runs of programs: tests with stubs beside them, and other solutions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ioa_jax.adapter.answer import plain_program
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
from ioa_jax.adapter.schema import Example
from ioa_jax.adapter.verification import Candidate, Verification
from ioa_jax.errors import InputError
from ioa_jax.sandbox import Sandbox
from ioa_jax.teachers.base import Completion
from ioa_jax.teachers.structured import Unfit, answer_text

TESTS = "tests in the sandbox"
PROGRAM = "program"
AGREEMENT = "agreement of programs"


@dataclasses.dataclass(frozen=True)
class Programs:
    """What the sandbox runs: the program with its tests, then each stub with them.

    Attributes:
        sources: By `PROGRAM`, or by what the stub returns; empty without tests.
    """

    sources: dict[str, str]

    @classmethod
    def read(cls, example: Example, strict: bool) -> Programs | Verification:
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


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Several solutions of one programming problem, and what they are run on.

    Attributes:
        programs: The example's own first, each with the calls as it names its function.
    """

    programs: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def read(
        cls, candidate: Candidate, solutions: Sequence[Completion | None]
    ) -> Agreement | Verification | None:
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
                found = solution_program(one, name)
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


def solution_program(completion: Completion, name: str) -> tuple[str, str] | None:
    """The program in a solution, and its function's name; None if there is none."""
    try:
        _, program = split_solution(answer_text(completion), "code")
        return program, main_function(program, f"{name}(")
    except (Unfit, InputError):
        return None
