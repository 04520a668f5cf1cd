import pytest
from pydantic import ValidationError

from ioa_jax.adapter.programs import stub_program
from ioa_jax.adapter.schema import Example
from ioa_jax.adapter.verification import Candidate, VerificationSettings
from ioa_jax.adapter.verify import Verifier
from ioa_jax.errors import InputError
from ioa_jax.graders.registry import make_grader
from ioa_jax.sandbox import CheckResult, Sandbox
from ioa_jax.seeds import SeedItem
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.replay import LedgeredTeacher
from ioa_jax.teachers.spend import Budget
from tests.adapter.examples import example
from tests.teachers.recorded import ScriptedTeacher

KINDS = ("math", "number", "exact", "rouge", "instruction")
STORY = "Tom has 15 boxes of apples and shares them among 3 friends. How many does each get?"


@pytest.fixture(scope="module")
def graders():
    made = {kind: make_grader(kind) for kind in KINDS}
    yield made
    for grader in made.values():
        grader.close()


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as box:
        yield box


def candidate(kind, final, problem=STORY, verification="", solutions=1, **check):
    solution = {"steps": ["a"], "final_answer": final, "verification": verification}
    seed = SeedItem("s", "prompt", "reference", {"kind": kind} | check, "math")
    read = Example.model_validate(example(problem=problem, solution=solution))
    return Candidate(seed, read, tuple(range(solutions)))


def judge(one, graders, answers=(), sandbox=None, strict=True, **settings):
    """What becomes of a candidate whose independent solutions are `answers`."""
    teacher = ScriptedTeacher(lambda request, number: answers[request.seed])
    chosen = VerificationSettings(num_solutions=len(one.call_seeds), **settings)
    verifier = Verifier(teacher, "micro", chosen, graders, sandbox, strict)
    verified = verifier.verify([one])
    (verification,) = verified.found
    assert not verified.exhausted
    assert verification is not None
    return verification, teacher.asked


def test_an_equation_is_worked_out_without_the_teacher(graders):
    one = candidate("math", "x = 5", "Solve 3x + 4 = 19.")
    verification, asked = judge(one, graders)
    assert verification.reason is None
    assert verification.verified_by.startswith("symbolic (math-verify")
    assert asked == []
    wrong = candidate("math", r"\frac{5}{2}", "Solve 3x + 4 = 19.")
    verification, _ = judge(wrong, graders)
    assert (verification.reason, verification.detail) == (
        "check_failed",
        r"\frac{5}{2} isn't 5",
    )
    fraction = candidate("math", "-1.5", "What is 1/2 - 2?")
    assert judge(fraction, graders)[0].reason is None


def test_an_answer_has_to_agree_with_an_independent_solution(graders):
    one = candidate("math", "$5$")
    verification, (request,) = judge(one, graders, [r"15/3 = \boxed{5}"])
    assert verification.reason is None
    assert "math agreement with 1 of 1" in verification.verified_by
    assert request.purpose == "verification"
    # The example's own solution isn't shown.
    assert request.messages[0]["content"] == STORY + "\nPut the final answer in \\boxed{}."
    verification, _ = judge(one, graders, [r"\boxed{4}"])
    assert verification.reason == "check_failed"
    assert "5, but solved independently 4" in verification.detail
    verification, _ = judge(one, graders, ["I can't."])
    assert verification.reason == "unverified"


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([r"\boxed{5}", r"\boxed{5}", r"\boxed{6}"], None),
        ([r"\boxed{5}", r"\boxed{6}", r"\boxed{6}"], "check_failed"),
        ([r"\boxed{5}", "what?", "what?"], "check_failed"),
        # Half isn't more than half.
        ([r"\boxed{5}", r"\boxed{6}"], "check_failed"),
        ([r"\boxed{5}", r"\boxed{5}"], None),
    ],
)
def test_more_than_half_of_the_solutions_decide(graders, answers, reason):
    one = candidate("math", "5", solutions=len(answers))
    verification, asked = judge(one, graders, answers, temperature=0.7)
    assert verification.reason == reason
    assert [request.seed for request in asked] == list(range(len(answers)))


@pytest.mark.parametrize(
    ("kind", "final", "solution", "reason"),
    [
        ("number", "5 apples", "So it is 5.0.", None),
        ("number", "5 apples", "So it is 6.", "check_failed"),
        ("number", "five", "So it is 5.", "check_failed"),
        ("exact", "a  b", "a b\n", None),
        ("exact", "a b", "A b", "check_failed"),
        ("rouge", "the cat sat on the mat", "the cat sat on a mat", None),
        ("rouge", "the cat sat on the mat", "no idea", "check_failed"),
    ],
)
def test_other_kinds_agree_by_their_grader(graders, kind, final, solution, reason):
    verification, _ = judge(candidate(kind, final), graders, [solution])
    assert verification.reason == reason
    assert verification.verified_by.startswith(f"{kind} agreement")


def test_an_instruction_passes_the_checks_of_its_seed(graders):
    check = {
        "instruction_id_list": ["change_case:english_lowercase"],
        "kwargs": [{}],
    }
    verification, asked = judge(candidate("instruction", "all of it is low", **check), graders)
    assert verification.reason is None
    assert verification.verified_by.startswith("instruction checks")
    assert asked == []
    verification, _ = judge(candidate("instruction", "All of it is not", **check), graders)
    assert verification.reason == "check_failed"
    assert "english_lowercase" in verification.detail


DOUBLE = "def double(x):\n    return 2 * x"


@pytest.mark.parametrize(
    ("program", "tests", "reason", "detail"),
    [
        (DOUBLE, "assert double(2) == 4\nassert double(-1) == -2", None, ""),
        (f"```python\n{DOUBLE}\n```", "```\nassert double(2) == 4\n```", None, ""),
        (DOUBLE, "assert double(2) == 5", "check_failed", "failed: AssertionError"),
        (DOUBLE, "", "vacuous_tests", "return None pass"),
        (DOUBLE, "double(2)", "vacuous_tests", "return None pass"),
        (DOUBLE, "assert double(0) == 0", "vacuous_tests", "return 0 pass"),
        (DOUBLE, "try:\n    assert double(2) == 5\nexcept Exception: pass", "vacuous_tests", ""),
        (DOUBLE, "import sys\nsys.exit(0)", "check_failed", ""),
        (DOUBLE, "assert open('/etc/passwd').read()", "check_failed", ""),
        ("def double(x) return x", "assert double(1) == 2", "check_failed", "not Python"),
        ("double = lambda x: 2 * x", "assert double(1) == 2", "check_failed", "no function"),
        (DOUBLE, "assert double(1) ==", "check_failed", "not Python"),
    ],
)
def test_a_program_passes_tests_that_stubs_fail(sandbox, program, tests, reason, detail):
    one = candidate("code", program, verification=tests)
    verification, _ = judge(one, {}, sandbox=sandbox)
    assert verification.reason == reason
    assert detail in verification.detail
    assert verification.verified_by.startswith("tests in the sandbox")


def test_stubs_keep_signatures_and_lose_bodies():
    source = "import re\nclass A:\n    def f(self, x=1):\n        return re.sub('a', x)\n"
    assert stub_program(source, "'b'") == (
        "import re\n\nclass A:\n\n    def f(self, x=1):\n        return 'b'"
    )


def test_nothing_is_asked_where_verification_is_off():
    one = candidate("code", "no program")
    verification, asked = judge(one, {}, on=False)
    assert (verification.reason, verification.verified_by, asked) == (None, "none", [])


def test_what_the_budget_left_open_is_told_apart(graders, tmp_path):
    teacher = ScriptedTeacher(lambda request, number: "same", tokens=5)
    with LedgeredTeacher(teacher, Ledger(tmp_path), Budget(max_tokens=12)) as limited:
        settings = VerificationSettings(max_tokens=5)
        verifier = Verifier(limited, "micro", settings, graders)
        candidates = [candidate("exact", "same", f"Problem {i}") for i in range(3)]
        verified = verifier.verify(candidates)
    assert (verified.exhausted, verified.tokens) == (True, 10)
    assert [one and one.reason for one in verified.found] == [None, None, None]
    assert [one is None for one in verified.found] == [False, False, True]


def test_some_of_the_solutions_do_not_vote(graders, tmp_path):
    # The budget has room for five calls: the second problem gets two of its three solutions.
    teacher = ScriptedTeacher(lambda request, number: "same", tokens=5)
    with LedgeredTeacher(teacher, Ledger(tmp_path), Budget(max_tokens=25)) as limited:
        settings = VerificationSettings(max_tokens=5, num_solutions=3, temperature=0.7)
        verifier = Verifier(limited, "micro", settings, graders)
        problems = [candidate("exact", "same", f"Problem {i}", solutions=3) for i in range(2)]
        verified = verifier.verify(problems)
    assert (verified.exhausted, verified.tokens) == (True, 25)
    assert [one is None for one in verified.found] == [False, True]


def test_some_of_the_programs_do_not_vote(sandbox, tmp_path):
    teacher = ScriptedTeacher(lambda request, number: f"```python\n{DOUBLE}\n```", tokens=5)
    with LedgeredTeacher(teacher, Ledger(tmp_path), Budget(max_tokens=10)) as limited:
        settings = VerificationSettings(
            max_tokens=5, num_solutions=3, temperature=0.7, undecided="solve"
        )
        verifier = Verifier(limited, "micro", settings, {}, sandbox, strict=False)
        verified = verifier.verify([candidate("code", DOUBLE, solutions=3)])
    assert (verified.exhausted, verified.tokens, verified.found) == (True, 10, (None,))


@pytest.mark.parametrize("own_problem", [False, True])
def test_where_the_sandbox_fails_nothing_is_verified(sandbox, monkeypatch, own_problem):
    failed = CheckResult("infra_error", "no room left", "", "", 0.0, 0.0)
    monkeypatch.setattr(sandbox, "run", lambda *_: failed)
    monkeypatch.setattr(sandbox, "check", lambda *_: failed)
    one = candidate(
        "code",
        DOUBLE,
        "prompt" if own_problem else STORY,
        "assert double(2) == 4",
        entry_point="double",
        tests="assert double(2) == 4",
    )
    verification, _ = judge(one, {}, sandbox=sandbox)
    assert (verification.reason, verification.detail) == ("unverified", "no room left")


def test_what_is_missing_is_named():
    seed = SeedItem("s7", "p", "r", {"kind": "code"}, "code")
    verifier = Verifier(
        ScriptedTeacher(), "micro", VerificationSettings(), {"exact": make_grader("exact")}
    )
    with pytest.raises(InputError, match=r"'s7'.*sandbox"):
        verifier.check_seeds([seed])
    with pytest.raises(InputError, match=r"grader 'math'.*there are exact"):
        verifier.check_seeds([SeedItem("s8", "p", "r", {"kind": "math"}, "math")])
    with pytest.raises(ValidationError, match="temperature"):
        VerificationSettings(num_solutions=3)
