"""HumanEval+ and MBPP+, on rows of our own."""

import pytest

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item, Verdict
from ioa_jax.graders.code import CodeGrader
from suite.data import DataSource
from suite.tasks import load_task
from suite.tasks.base import Graded
from tests.suite.tasks.test_tasks import write

PROMPT = 'def double(x):\n    """Two times x."""\n'


def humaneval_row(**changed):
    row = {
        "task_id": "HumanEval/0",
        "prompt": PROMPT,
        "entry_point": "double",
        "canonical_solution": "    return 2 * x\n",
        "base_input": [[1]],
        "plus_input": [[0.1], [-3], ["a"]],
        "atol": 0,
    }
    return row | changed


def mbpp_row(number, solution, inputs):
    return {
        "task_id": f"Mbpp/{number}",
        "prompt": '"""\nWrite a function.\nassert f((1, 2)) == 3\n"""\n',
        "entry_point": "f",
        "canonical_solution": solution,
        "base_input": inputs,
        "plus_input": [],
        "atol": 0,
    }


def load(name, folder, rows, tmp_path):
    # Files of the halves that nobody here has seen may be any.
    stem = "HumanEvalPlus_odd" if name == "humaneval_plus" else "MbppPlus_odd"
    write(tmp_path / folder, stem, rows)
    return load_task(name).load(DataSource(tmp_path, network=False)).items


def test_a_program_passes_the_first_tests_or_all(tmp_path):
    (item,) = load("humaneval_plus", "human_eval_plus", [humaneval_row()], tmp_path)
    task = load_task("humaneval_plus")
    assert task.prompt(item, "base").text == PROMPT
    assert PROMPT.strip() in task.prompt(item).messages[0]["content"]
    with CodeGrader() as grader:
        assert grader.grade_gold(item).correct
        whole = grader.grade(item, "```python\ndef double(x):\n    return x + x\n```")
        half = grader.grade(item, "```python\ndef double(x):\n    return int(x) * 2\n```")
        none = grader.grade(item, "```python\ndef double(x):\n    return x\n```")
    assert dict(whole.parts) == {"base": True, "plus": True}
    assert dict(half.parts) == {"base": True, "plus": False}
    assert dict(none.parts) == {"base": False, "plus": False}
    metrics = task.metrics([Graded(item, (whole, half))])
    assert list(metrics) == ["pass@1", "base pass@1"]
    assert (metrics["pass@1"].mean, metrics["base pass@1"].mean) == (0.5, 1.0)


def test_pass_at_k_of_both(tmp_path):
    verdicts = tuple(
        Verdict(plus, float(plus), "", "fence", "test", parts={"base": base, "plus": plus})
        for base, plus in [(True, True), *[(True, False)] * 8, (False, False)]
    )
    metrics = load_task("mbpp_plus").metrics([Graded(Item("i", ""), verdicts)])
    assert list(metrics) == ["pass@1", "pass@10", "base pass@1", "base pass@10"]
    assert metrics["pass@1"].mean == pytest.approx(0.1)
    assert metrics["base pass@1"].mean == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("number", "given", "shaped"),
    [
        (1, [[1, [2]]], [[1, [2]]]),
        (2, [[[1], [2, 3]]], [[(1,), (2, 3)]]),
        (63, [[[[1, 2]]]], [[[(1, 2)]]]),
        (75, [[[[1, 2]], 3]], [[[(1, 2)], 3]]),
        (106, [[[1], [2]]], [[[1], (2,)]]),
        (115, [[[[1, 1], []]]], [[[{1}, {}]]]),
        (124, [["1", "2j"]], [[1.0, 2j]]),
        (250, [[[1, 2], 3]], [[(1, 2), 3]]),
        (252, [["1+2j"]], [[1 + 2j]]),
        (259, [[[[1], [2]], [[3]]]], [[((1,), (2,)), ((3,),)]]),
        (278, [[[1, [2]]]], [[(1, (2,))]]),
        (307, [[[1, [2]], 3, 4]], [[(1, [2]), 3, 4]]),
        (580, [[[1, [2, [3]]]]], [((1, (2, (3,))),)]),
        (722, [[{"a": [1, 2]}, 3, 4]], [[{"a": (1, 2)}, 3, 4]]),
    ],
)
def test_inputs_have_the_types_that_json_lacks(tmp_path, number, given, shaped):
    solution = "def f(*given):\n    return True\n"
    (item,) = load("mbpp_plus", "mbpp_plus", [mbpp_row(number, solution, given)], tmp_path)
    assert f"_inputs = {shaped!r}\n" in item.data["test_list"][0]


def test_mbpps_prompts(tmp_path):
    row = mbpp_row(2, "def f(x):\n    return sum(x)\n", [[[1, 2]]])
    (item,) = load("mbpp_plus", "mbpp_plus", [row], tmp_path)
    task = load_task("mbpp_plus")
    base = task.prompt(item, "base")
    assert base.text == row["prompt"]
    assert "\nassert" in base.stop
    (message,) = task.prompt(item).messages
    assert message["content"].startswith("Write a function.\n\n")
    assert "```python\nassert f((1, 2)) == 3\n```" in message["content"]
    with CodeGrader(style="base") as grader:
        answer = "def f(x):\n    return x[0] + x[1]\n"
        assert grader.grade(item, answer + '\n"""\nAnother task.').correct


def test_references_that_need_more_get_it(tmp_path):
    solution = "def f(x):\n    return x\n"
    rows = [mbpp_row(number, solution, [[1]]) for number in (255, 599, 600)]
    items = load("mbpp_plus", "mbpp_plus", rows, tmp_path)
    memory, time, usual = (item.data["limits"] for item in items)
    assert memory["memory_bytes"] > 2.2e9
    assert time["cpu_seconds"] >= 4 * 16
    assert usual["cpu_seconds"] < time["cpu_seconds"]
    assert "memory_bytes" not in usual


def test_broken_inputs_are_named(tmp_path):
    for value in (3, [3]):
        with pytest.raises(InputError, match=r"HumanEval/0: field 'plus_input'"):
            load("humaneval_plus", "human_eval_plus", [humaneval_row(plus_input=value)], tmp_path)
    with pytest.raises(InputError, match=r"Mbpp/75: field 'base_input'"):
        load("mbpp_plus", "mbpp_plus", [mbpp_row(75, "def f(x): pass\n", [[1]])], tmp_path)
