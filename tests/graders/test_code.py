import dataclasses
import itertools
import math

import pytest

from ioa_jax.errors import InputError, SandboxError
from ioa_jax.graders.base import Item
from ioa_jax.graders.code import (
    CodeGrader,
    complete_function,
    continue_function,
    continue_program,
    find_program,
    pass_at_k,
)
from ioa_jax.graders.registry import check_golds
from ioa_jax.sandbox import Limits, Sandbox, probe
from suite.data import DataSource
from suite.tasks.code import HUMANEVAL as HUMANEVAL_TASK
from tests.graders import data

BEFORE = "import math\n\n\ndef helper(x):\n    return x + 1\n\n\n"
PROMPT = BEFORE + 'def twice(x):\n    """Two times x."""\n'
FUNCTION = "def twice(x):\n    return 2 * x\n"
HUMANEVAL = Item(
    "HumanEval/x",
    PROMPT,
    ("    return 2 * x\n",),
    {
        "kind": "humaneval",
        "prompt": PROMPT,
        "entry_point": "twice",
        "test": "def check(candidate):\n    assert candidate(helper(2)) == 6\n",
    },
)
MBPP = Item(
    "mbpp/1",
    "Write a function to double.",
    ("def twice(x):\r\n    return 2 * x",),
    {
        "kind": "mbpp",
        "entry_point": "twice",
        "test_list": ["assert twice(3) == 6", "assert math.isclose(twice(.5), start)"],
        "test_setup_code": "start = 1",
        "test_imports": ["import math"],
    },
)


@pytest.mark.parametrize(
    ("answer", "code", "rule"),
    [
        (f"Sure:\n```python\n{FUNCTION}```\nIt doubles.", BEFORE + FUNCTION, "fence"),
        (f"```\n{FUNCTION}", BEFORE + FUNCTION, "fence"),
        # The problem is quoted first, and an example of use comes last.
        (
            f"```python\n{PROMPT}```\nThus:\n```py\n{FUNCTION}```\n```python\nprint(twice(2))\n```",
            BEFORE + FUNCTION,
            "fence",
        ),
        # Cut short while it was written once more.
        (
            f"```python\n{FUNCTION}```\nOr:\n```python\ndef twice(x):\n  ret",
            BEFORE + FUNCTION,
            "fence",
        ),
        # In a list.
        (
            "1. So:\n   ```python\n   def twice(x):\n       return 2 * x\n   ```",
            BEFORE + FUNCTION,
            "fence",
        ),
        ("```python\n    return 2 * x\n```", PROMPT + "    return 2 * x", "fence_body"),
        ("```python\nreturn 2 * x\n```", PROMPT + "    return 2 * x", "fence_body"),
        (
            "```python\ny = x\nreturn 2 * y\n```",
            PROMPT + "    y = x\n    return 2 * y",
            "fence_body",
        ),
        (
            "```python\nif x:\n        return 2 * x\n    return 0\n```",
            PROMPT + "    if x:\n        return 2 * x\n    return 0",
            "fence_body",
        ),
        (
            "```python\nfor y in [x]:\n    return 2 * y\n```",
            PROMPT + "    for y in [x]:\n        return 2 * y",
            "fence_body",
        ),
        (
            f"From here on, code.\nfrom math import pi\nIt is this:\n{FUNCTION}\nThis doubles.\n",
            BEFORE + "from math import pi\n" + FUNCTION + "\n",
            "repeated_signature",
        ),
        (
            f"def other(y):\n    return y\n\n{FUNCTION}",
            f"{BEFORE}def other(y):\n    return y\n\n{FUNCTION}",
            "repeated_signature",
        ),
        ("    return 2 * x\n\nThis doubles.", PROMPT + "    return 2 * x\n", "bare_body"),
        ("return 2 * x", PROMPT + "    return 2 * x", "bare_body"),
        (" \n", PROMPT, "empty"),
    ],
)
def test_functions_in_answers(answer, code, rule):
    assert complete_function(answer, PROMPT, "twice") == (code, rule)


@pytest.mark.parametrize(
    ("completion", "code", "rule"),
    [
        ("    return 2 * x\n", PROMPT + "    return 2 * x\n", "completion"),
        ("    return 2 * x\n\nprint(1)", PROMPT + "    return 2 * x\n", "completion"),
        ("    return 2 * x\n# It\nprint(1)\ndef f(", PROMPT + "    return 2 * x", "completion"),
        ("    return 2 * x\nprint(1)\n# It", PROMPT + "    return 2 * x", "completion"),
        ("    return 2 * x\ndef other():", PROMPT + "    return 2 * x", "completion"),
        (
            "    if x:\n        return 2 * x\nif 1:",
            PROMPT + "    if x:\n        return 2 * x",
            "completion",
        ),
        ("", PROMPT, "empty"),
    ],
)
def test_continuations_of_functions(completion, code, rule):
    assert continue_function(completion, PROMPT) == (code, rule)


@pytest.mark.parametrize(
    ("answer", "code", "rule"),
    [
        (f"```python\n{FUNCTION}```", FUNCTION, "fence"),
        ("```python\ntwice = lambda x: 2 * x\n```", "twice = lambda x: 2 * x\n", "fence"),
        (
            f"```\nx\n```\n```\n{FUNCTION.replace('twice', 'dbl')}```",
            FUNCTION.replace("twice", "dbl"),
            "fence_other",
        ),
        (f"Here you are.\n{FUNCTION}Enjoy!", FUNCTION, "repeated_signature"),
        ("I can't.", "I can't.", "whole"),
        ("", "", "empty"),
    ],
)
def test_programs_in_answers(answer, code, rule):
    assert find_program(answer, "twice") == (code, rule)


def test_continuations_of_programs():
    assert continue_program(f"{FUNCTION}[DONE]\nmore") == (FUNCTION, "program")
    assert continue_program(FUNCTION) == (FUNCTION, "program")
    assert continue_program("[DONE]").rule == "empty"


@pytest.mark.parametrize("n", range(1, 7))
def test_pass_at_k_is_the_share_of_draws_with_a_correct_sample(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        draws = list(itertools.combinations(range(n), k))
        share = sum(min(draw) < c for draw in draws) / len(draws)
        assert pass_at_k(n, c, k) == pytest.approx(share)


def test_pass_at_k_of_many_samples():
    exact = 1 - math.comb(990, 100) / math.comb(1000, 100)
    assert pass_at_k(1000, 10, 100) == pytest.approx(exact)


@pytest.mark.parametrize(("n", "c", "k"), [(5, 1, 0), (5, 1, 6), (5, 6, 1), (5, -1, 1), (0, 0, 1)])
def test_pass_at_k_out_of_range(n, c, k):
    with pytest.raises(InputError):
        pass_at_k(n, c, k)


@pytest.mark.parametrize(
    ("item", "changes", "field"),
    [
        (HUMANEVAL, {"kind": "apps"}, "kind"),
        (HUMANEVAL, {"test": ""}, "test"),
        (HUMANEVAL, {"entry_point": None}, "entry_point"),
        (HUMANEVAL, {"entry_point": "thrice"}, "prompt"),
        (MBPP, {"test_list": []}, "test_list"),
        (MBPP, {"test_list": "assert 1"}, "test_list"),
    ],
)
def test_bad_items(grader, item, changes, field):
    bad = Item("bad", "?", item.references, {**item.data, **changes})
    with pytest.raises(InputError, match=f"'bad'.*field '{field}'"):
        grader.grade(bad, FUNCTION)


def test_an_unknown_style():
    with pytest.raises(InputError, match="style='instruct'"):
        CodeGrader("instruct")


@pytest.fixture(scope="module")
def sandbox():
    try:
        probe()
    except SandboxError as error:
        pytest.skip(str(error))
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def grader(sandbox):
    return CodeGrader(sandbox=sandbox)


@pytest.mark.parametrize("item", [HUMANEVAL, MBPP], ids=lambda item: item.id)
def test_verdicts(grader, sandbox, item):
    right = grader.grade(item, f"```python\n{FUNCTION}```")
    assert (right.correct, right.score, right.rule, right.status) == (True, 1.0, "fence", "passed")
    assert right.source == f"sandbox {sandbox.info.backend}, Python {sandbox.info.python}"
    wrong = grader.grade(item, f"```python\n{FUNCTION.replace('2', '3')}```")
    assert (wrong.correct, wrong.score, wrong.status) == (False, 0.0, "failed")
    assert wrong.extracted is not None
    assert "3 * x" in wrong.extracted
    assert grader.grade(item, "").status == "failed"
    assert grader.grade(item, "").extracted is None


def test_a_program_has_to_pass_every_test(grader):
    only_the_first = "def twice(x):\n    return 6 if x == 3 else 0\n"
    only_the_second = "def twice(x):\n    return 2 * x if x < 1 else 0\n"
    for program in (only_the_first, only_the_second):
        assert grader.grade(MBPP, program).status == "failed"


@pytest.mark.parametrize("item", [HUMANEVAL, MBPP], ids=lambda item: item.id)
def test_styles(sandbox, item):
    text = "    return 2 * x\n\nprint(" if item is HUMANEVAL else f"{FUNCTION}[DONE]"
    assert CodeGrader("base", sandbox=sandbox).grade(item, text).correct


@pytest.mark.parametrize(
    "text", ["\ud800\x00", "```python\n" * 50, "(" * 2000, "def twice(x):\n\x00"]
)
def test_whatever_the_text_is_there_is_a_verdict(grader, text):
    for item in (HUMANEVAL, MBPP):
        assert grader.grade(item, text).status == "failed"


def test_limits_are_kept(sandbox):
    grader = CodeGrader(limits=Limits(cpu_seconds=1), sandbox=sandbox)
    verdict = grader.grade(MBPP, "def twice(x):\n    while True:\n        pass\n")
    assert (verdict.correct, verdict.status) == (False, "timeout")


def test_an_item_may_need_more_than_the_limits(sandbox):
    # 300 MB of zeros, each byte written.
    large = "def twice(x):\n    return len(bytes(300 << 20)) and 2 * x\n"
    tight = Limits(memory_bytes=200 << 20)
    with CodeGrader(limits=tight, sandbox=sandbox) as grader:
        assert grader.grade(MBPP, large).status in ("memory", "failed")
        roomy = Item("roomy", "?", (), {**MBPP.data, "limits": {"memory_bytes": 1 << 30}})
        assert grader.grade(roomy, large).correct
        # It is the least that they get, and no cut.
        less = Item("less", "?", (), {**MBPP.data, "limits": {"memory_bytes": 1 << 20}})
        assert grader.grade(less, f"```python\n{FUNCTION}```").correct
    for limits in ({"memory": 1}, {"cpu_seconds": 0}, {"cpu_seconds": "5"}, [5]):
        bad = Item("bad", "?", (), {**MBPP.data, "limits": limits})
        with pytest.raises(InputError, match=r"'bad'.*field 'limits'"):
            CodeGrader(sandbox=sandbox).check_item(bad)


@pytest.mark.parametrize("item", [HUMANEVAL, MBPP], ids=lambda item: item.id)
def test_the_answer_alone_is_judged(grader, item):
    draft = "def twice(x):\n    return 0\n"
    answer = f"<think>\n```python\n{draft}```\n</think>\n{FUNCTION}"
    assert grader.grade(item, answer).correct
    verdict = grader.grade(item, f"<think>\n```python\n{FUNCTION}```\n")
    assert (verdict.correct, verdict.rule, verdict.status) == (
        False,
        "unfinished_thought",
        "failed",
    )


def test_a_program_runs_once_with_the_same_tests(sandbox, monkeypatch):
    sources = []
    check = sandbox.check
    monkeypatch.setattr(
        sandbox,
        "check",
        lambda source, *rest, **more: sources.append(source) or check(source, *rest, **more),
    )
    text, other = (f"```python\ndef twice(x):\n    return {code}\n```" for code in ("x", "x + x"))
    with CodeGrader(sandbox=sandbox, limits=Limits(cpu_seconds=1)) as grader:
        first = grader.grade(MBPP, text)
        assert grader.grade(MBPP, f"Again:\n\n{text}") == first
        assert len(sources) == 1
        grader.grade(MBPP, other)
        tested_otherwise = Item("other", "?", (), {**MBPP.data, "test_list": ["assert True"]})
        assert grader.grade(tested_otherwise, text).correct
        assert len(sources) == 3
        # Another time it may be in time.
        endless = "```python\ndef twice(x):\n    while True:\n        pass\n```"
        assert [grader.grade(MBPP, endless).status for _ in range(2)] == ["timeout"] * 2
        assert len(sources) == 5


def test_a_result_holds_for_its_imports_alone(grader):
    tested = {**MBPP.data, "test_list": ["assert twice(three) == 6"], "test_setup_code": ""}
    imported = Item("imported", "?", (), {**tested, "test_imports": ["three = 3"]})
    assert grader.grade(imported, FUNCTION).correct
    verdict = grader.grade(Item("not", "?", (), {**tested, "test_imports": []}), FUNCTION)
    assert (verdict.status, verdict.correct) == ("bad_test", False)


def test_a_failure_of_the_sandbox_is_not_kept(sandbox, monkeypatch):
    check, calls = sandbox.check, []

    def fail_once(*args, **named):
        calls.append(args)
        result = check(*args, **named)
        return result if len(calls) > 1 else dataclasses.replace(result, status="infra_error")

    monkeypatch.setattr(sandbox, "check", fail_once)
    with CodeGrader(sandbox=sandbox) as grader:
        found = [grader.grade(MBPP, FUNCTION) for _ in range(3)]
    assert [one.status for one in found] == ["infra_error", "passed", "passed"]
    assert len(calls) == 2


def test_golds(grader):
    assert check_golds(grader, [HUMANEVAL, MBPP]) == []
    broken = Item("broken", "?", ("    return x\n",), HUMANEVAL.data)
    assert [found for found, _ in check_golds(grader, [HUMANEVAL, broken])] == ["broken"]
    with pytest.raises(InputError, match=r"'none'.*'references'"):
        check_golds(grader, [Item("none", "?", (), MBPP.data)])


@pytest.mark.slow
def test_reference_solutions_of_humaneval_pass_as_answers(grader):
    # Through the extraction, too: as a code block.
    failed: list[str] = []
    for item in HUMANEVAL_TASK.load(DataSource()).items:
        answer = f"```python\n{item.prompt}{item.references[0]}```"
        verdict = grader.grade(item, answer)
        if (verdict.correct, verdict.rule) != (True, "fence"):
            failed.append(item.id)
    assert failed == []


@pytest.mark.slow
def test_reference_solutions_of_mbpp_pass(grader):
    from suite.tasks.code import entry_point

    items = [
        Item(
            str(row["task_id"]),
            row["text"],
            (row["code"],),
            {
                "kind": "mbpp",
                "entry_point": entry_point(row["test_list"], str(row["task_id"])),
                "test_list": row["test_list"],
                "test_setup_code": row["test_setup_code"],
            },
        )
        for row in data.rows("mbpp/mbpp.jsonl")
    ]
    assert len(items) > 700
    assert [(found, verdict.detail) for found, verdict in check_golds(grader, items)] == []
