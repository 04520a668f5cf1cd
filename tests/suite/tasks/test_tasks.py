import importlib.metadata
import json
import math

import pytest

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item, Verdict
from suite import tasks
from suite.data import DataSource
from suite.tasks import instructions, load_task, maths, task_lines, task_names
from suite.tasks.base import (
    THOUGHT_TOKENS,
    Example,
    Graded,
    content_ids,
    default_max_tokens,
    describe,
    take_examples,
)
from suite.tasks.code import CODEX_STOPS, entry_point

NAMES = [
    "math",
    "math500",
    "gsm8k",
    "aime24",
    "aime25",
    "aime26",
    "amc23",
    "gpqa_diamond",
    "mmlu_pro",
    "humaneval",
    "mbpp",
    "mbpp_sanitized",
    "humaneval_plus",
    "mbpp_plus",
    "livecodebench",
    "ifeval",
    "dolly",
    "self_instruct",
    "vicuna",
    "vicuna_bench",
    "koala",
    "mt_bench",
    "micro-math",
    "micro-code",
    "micro-instruct",
]


def write(folder, name, rows):
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{name}.jsonl").write_text(text)


def load(name, directory=None, shots=0):
    return load_task(name).load(DataSource(directory, network=False), shots)


def verdict(score, **parts):
    return Verdict(score == 1, float(score), None, "test", "test", parts=parts)


def graded(*scores):
    """Of each item the scores of its samples."""
    return [
        Graded(Item(id=f"i{n}", prompt=""), tuple(map(verdict, of_item)))
        for n, of_item in enumerate(scores)
    ]


# The registry.


def test_every_task_describes_itself():
    assert task_names() == NAMES
    table = task_lines()
    assert len(table) == 2 + len(NAMES)
    for name, line in zip(NAMES, table[2:], strict=True):
        task = load_task(name)
        assert task.name == name
        assert line.startswith(f"| `{name}` |")
        assert line.count("|") == 5
        assert task.licence in line


def test_an_unknown_task_names_the_known_ones():
    with pytest.raises(InputError, match=r"'maths' is unknown; there are math, math500"):
        load_task("maths")


def point(name, value):
    return importlib.metadata.EntryPoint(name, value, tasks.ENTRY_POINTS)


def test_an_entry_point_adds_a_task(monkeypatch):
    # Any object with the interface will do; under another name it is another task.
    points = [point("gsm8k", "suite.tasks.gsm8k:GSM8K")]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)
    with pytest.raises(InputError, match="has the name of ours"):
        task_names()
    # Another table: put back into this one, the name would stand last for the tests that follow.
    others = {name: where for name, where in tasks.TASKS.items() if name != "gsm8k"}
    monkeypatch.setattr(tasks, "TASKS", others)
    assert task_names()[-1] == "gsm8k"
    assert load_task("gsm8k").name == "gsm8k"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("other", "suite.tasks.nothing:TASK", "suite.tasks.nothing"),
        ("other", "suite.tasks.gsm8k:NOTHING", "NOTHING"),
        ("other", "suite.tasks.gsm8k:GSM8K", "a task of that name"),
    ],
)
def test_a_broken_entry_point_is_an_error(monkeypatch, name, value, message):
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point(name, value)])
    with pytest.raises(InputError, match=message):
        load_task(name)


# MATH and AIME.


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"so $\boxed{2}$.", "2"),
        (r"first \boxed{1}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"the sum is $\boxed 9$.", "9"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{ x }", "x"),
    ],
)
def test_the_last_boxed_answer(solution, answer):
    assert maths.boxed_answer(solution, "m") == answer


@pytest.mark.parametrize("solution", ["no answer", r"\boxed", r"\boxed{1", r"\boxed{\frac{1}{2}"])
def test_a_solution_without_a_boxed_answer(solution):
    with pytest.raises(InputError, match=r"item m: field 'solution'"):
        maths.boxed_answer(solution, "m")


def math_row(problem, subject, solution=r"It is \boxed{1}."):
    return {"problem": problem, "solution": solution, "type": subject}


def test_examples_take_the_subjects_in_turn():
    rows = [
        math_row("a0", "A", "without an answer"),
        math_row("a1", "A", r"[asy] draw(); [/asy] \boxed{1}"),
        math_row("a2", "A"),
        math_row("a3", "A"),
        math_row("b0", "B", "x" * maths.LONGEST_SOLUTION + r"\boxed{1}"),
        math_row("b1", "B"),
        math_row("c0 [asy]", "C"),
    ]
    assert [one.item.prompt for one in maths.choose_examples(rows)] == ["a2", "b1", "a3"]


def test_math_prompts(tmp_path):
    write(tmp_path / "math", "test", [math_row("What is 2 - 1?", "A")])
    data = load("math", tmp_path)
    (item,) = data.items
    assert item.references == ("1",)
    assert item.data["solution"] == r"It is \boxed{1}."
    examples = [Example(Item(id="e", prompt="1 + 1?"), r"\boxed{2}")]
    task = load_task("math")
    base = task.prompt(item, "base", examples)
    assert base.text == (
        "Problem:\n1 + 1?\n\nSolution:\n\\boxed{2}\n\nProblem:\nWhat is 2 - 1?\n\nSolution:\n"
    )
    assert base.stop == ("Problem:",)
    chat = task.prompt(item, "chat", examples)
    assert [one["role"] for one in chat.messages] == ["user", "assistant", "user"]
    assert chat.messages[1]["content"] == r"\boxed{2}"
    assert r"\boxed{}" in chat.messages[2]["content"]
    assert chat.text == ""
    assert chat.stop == ()


def test_aime_takes_whole_numbers_in_either_form(tmp_path):
    rows = [{"problem": "p", "answer": "033"}, {"problem": "q", "answer": 7}]
    write(tmp_path / "aime25", "test", rows)
    assert [item.references for item in load("aime25", tmp_path).items] == [("33",), ("7",)]
    for answer in ("1000", "x", "-1", ""):
        write(tmp_path / "aime25", "test", [{"problem": "p", "answer": answer}])
        with pytest.raises(InputError, match="field 'answer'"):
            load("aime25", tmp_path)


def test_amcs_answers_are_whole_in_a_file_of_floats(tmp_path):
    write(tmp_path / "amc", "amc23", [{"question": "p", "answer": 27.0}])
    (item,) = load("amc23", tmp_path).items
    assert (item.prompt, item.references) == ("p", ("27",))


# GSM8K.


def test_gsm8k(tmp_path):
    rows = [
        {"question": "Why 18?", "answer": "9 * 2 = <<9*2=18>>18\n#### 18"},
        {"question": "And this?", "answer": "#### -1,234.5"},
    ]
    write(tmp_path / "gsm8k", "test", rows)
    items = load("gsm8k", tmp_path).items
    assert [item.references for item in items] == [("18",), ("-1234.5",)]
    task = load_task("gsm8k")
    base = task.prompt(items[1], "base", [Example(items[0], rows[0]["answer"])])
    assert base.text == (
        "Question: Why 18?\nAnswer: 9 * 2 = <<9*2=18>>18\n#### 18\n\nQuestion: And this?\nAnswer:"
    )
    assert "Question:" in base.stop
    assert "####" in task.prompt(items[0]).messages[0]["content"]
    write(tmp_path / "gsm8k", "test", [{"question": "q", "answer": "it is 18"}])
    with pytest.raises(InputError, match=r"gsm8k/test: item gsm8k-.*: field 'answer'"):
        load("gsm8k", tmp_path)


def test_gsm8k_reports_both_rules():
    samples = [verdict(1, strict=False, flexible=True), verdict(1, strict=True, flexible=True)]
    found = load_task("gsm8k").metrics([Graded(Item(id="i", prompt=""), tuple(samples))])
    assert {name: metric.mean for name, metric in found.items()} == {"flexible": 1, "strict": 0.5}


# Code.


def test_humaneval_needs_no_folder_and_no_network():
    data = load("humaneval")
    assert len(data.items) == 164
    assert data.sources[0].checked
    item = data.items[0]
    assert item.data["kind"] == "humaneval"
    assert item.data["entry_point"] == "has_close_elements"
    task = load_task("humaneval")
    assert task.prompt(item, "base").text == item.data["prompt"]
    assert task.prompt(item, "base").stop == CODEX_STOPS
    assert item.prompt.strip() in task.prompt(item).messages[0]["content"]
    with pytest.raises(InputError, match="'humaneval': 1 shots: it has 0 examples"):
        load("humaneval", shots=1)


@pytest.mark.parametrize(
    ("tests", "name"),
    [
        (["assert f(1) == 2"], "f"),
        (["assert set(f(1)) == set(g(2))", "assert f(g(1)) == 3", "assert f(2) == 1"], "f"),
        (["assert sum(10, 15) == 6"], "sum"),
        (["assert math.isclose(f(1), 2, rel_tol=0.1)"], "f"),
        (["assert not f(1)", "assert (f(2))"], "f"),
        ([r"assert f('\w+') == 1"], "f"),
    ],
)
def test_the_tested_function(tests, name):
    assert entry_point(tests, "i") == name


@pytest.mark.parametrize(("test", "message"), [("assert x == 1", "calls"), ("assert (", "Python")])
def test_tests_that_test_nothing(test, message):
    with pytest.raises(InputError, match=rf"item i: field 'test_list': .*{message}"):
        entry_point([test], "i")


def pinned(source_name, rows, fields):
    from suite.data import rows_sha256

    return {source_name: rows_sha256(rows, fields)}


def test_mbpp(tmp_path):
    rows = [
        {
            "task_id": number,
            "text": f"Write number {number}.",
            "code": "def f():\r\n    return 1",
            "test_list": ["assert f() == 1"],
            "test_setup_code": "",
        }
        for number in (1, 2, 3, 4, 10, 11, 510, 511)
    ]
    write(tmp_path / "mbpp", "mbpp", rows)
    with pytest.raises(InputError, match="another file than the known one"):
        load("mbpp", tmp_path)
    fields = ("task_id", "text", "code", "test_list", "test_setup_code")
    pins = pinned("mbpp/test", rows[5:7], fields) | pinned("mbpp/prompt", rows[1:4], fields)
    task = load_task("mbpp")
    data = task.load(DataSource(tmp_path, pins), shots=3)
    assert [item.id for item in data.items] == ["mbpp/11", "mbpp/510"]
    assert [one.item.id for one in data.examples] == ["mbpp/2", "mbpp/3", "mbpp/4"]
    assert data.items[0].data["entry_point"] == "f"
    base = task.prompt(data.items[0], "base", data.examples[:1])
    assert "[BEGIN]\ndef f():\n    return 1\n[DONE]\n\nWrite number 11." in base.text
    assert base.text.endswith("assert f() == 1\n[BEGIN]\n")
    assert base.stop == ("[DONE]",)
    assert "assert f() == 1" in task.prompt(data.items[0]).messages[0]["content"]


def test_pass_at_k_for_as_many_samples_as_there_are():
    found = load_task("humaneval").metrics(graded([1, 0], [0, 0]))
    assert {name: metric.values for name, metric in found.items()} == {"pass@1": (0.5, 0.0)}
    ten = load_task("mbpp").metrics(graded([1] + [0] * 9, [0] * 10))
    assert ten["pass@1"].values == pytest.approx((0.1, 0.0))
    assert ten["pass@10"].values == (1.0, 0.0)
    assert ten["pass@10"].items == ("i0", "i1")


# Instructions.


def test_ifeval_leaves_out_unset_arguments_but_not_zeros(tmp_path):
    row = {
        "key": 1,
        "prompt": "Say nothing.",
        "instruction_id_list": ["a:b", "c:d"],
        "kwargs": [{"num": 0, "other": None}, None],
    }
    write(tmp_path / "ifeval", "input_data_odd", [row])
    (item,) = load("ifeval", tmp_path).items
    assert item.data == {"instruction_id_list": ["a:b", "c:d"], "kwargs": [{"num": 0}, {}]}
    assert load_task("ifeval").prompt(item).messages[0]["content"] == "Say nothing."
    for field, value in (("kwargs", [{}]), ("instruction_id_list", [])):
        write(tmp_path / "ifeval", "input_data_odd", [row | {field: value}])
        with pytest.raises(InputError, match=f"ifeval-1: field '{field}'"):
            load("ifeval", tmp_path)


def test_ifevals_four_figures():
    # Item 0 has two instructions and follows one of them strictly, both loosely; item 1 has one,
    # and follows it in one of two samples.
    def two(strict, loose):
        return verdict(0.0, strict=strict, loose=loose)

    found = load_task("ifeval").metrics(
        [
            Graded(Item(id="i0", prompt=""), (two([True, False], [True, True]),)),
            Graded(Item(id="i1", prompt=""), (two([True], [True]), two([False], [True]))),
        ]
    )
    assert found["prompt_strict"].values == (0.0, 0.5)
    assert found["instruction_strict"].values == (1.0, 0.0, 0.5)
    assert found["instruction_strict"].items == ("i0", "i0", "i1")
    assert found["prompt_loose"].mean == found["instruction_loose"].mean == 1.0


def dolly_rows(count):
    return [
        {"instruction": f"Ask {i}", "context": "", "response": f"Answer {i}"} for i in range(count)
    ]


def test_dollys_split_depends_on_the_items_alone():
    rows = dolly_rows(1600)
    first = instructions.dolly_splits(rows)
    assert [len(part) for part in (first.test, first.dev, first.train)] == [500, 1000, 100]
    # Nothing to do with the order of the rows, nor with a second answer to a question.
    again = instructions.dolly_splits([*rows[::-1], rows[3] | {"response": "Another"}, rows[4]])
    assert [item.id for item in again.test] == [item.id for item in first.test]
    parts = (again.test, again.dev, again.train)
    asked = [item.prompt for part in parts for item in part]
    assert len(set(asked)) == 1600
    (twice,) = [item for part in parts for item in part if item.prompt == "Ask 3"]
    assert twice.references == ("Another", "Answer 3")
    assert instructions.dolly_splits(rows[:-1]).test != ()
    with pytest.raises(InputError, match="1500 different items"):
        instructions.dolly_splits(rows[:1500])


def test_dollys_long_questions_are_in_no_part():
    longest = instructions.DOLLY_MAX_CHARACTERS
    rows = dolly_rows(1600)
    # Spaces around a text are not counted.
    kept = {"instruction": "Sum up.", "context": "x" * (longest - 7) + "\n", "response": "It."}
    long = kept | {"context": "x" * (longest - 6)}
    splits = instructions.dolly_splits([*rows, kept, long, long | {"response": "That."}])
    items = [item for part in (splits.test, splits.dev, splits.train) for item in part]
    assert len(items) == 1601
    assert max(len(item.data["instruction"] + item.data["input"]) for item in items) == longest
    # The split of the others is the one that they have without it.
    assert splits == instructions.dolly_splits([*rows, kept])
    with pytest.raises(InputError, match="1500 different items of up to 900 characters"):
        instructions.dolly_splits([*rows[:1500], long])


def test_headings_for_base_models(tmp_path):
    hub = {
        "id": "u0",
        "instruction": "Add them.",
        "instances": {"input": ["1, 2", ""], "output": ["3", "0"]},
    }
    ours = hub | {
        "instances": [{"input": "1, 2", "output": "3"}, {"input": "", "output": "0"}],
    }
    for row in (hub, ours):
        write(tmp_path / "self_instruct", "user_oriented_instructions", [row])
        items = load("self_instruct", tmp_path).items
        assert [item.id for item in items] == ["u0", "u0/1"]
        assert [item.references for item in items] == [("3",), ("0",)]
        assert items[0].prompt == "Add them.\n\n1, 2"
        task = load_task("self_instruct")
        assert task.prompt(items[0], "base").text == (
            "### Instruction:\nAdd them.\n\n### Input:\n1, 2\n\n### Response:\n"
        )
        assert "Input" not in task.prompt(items[1], "base").text
    write(
        tmp_path / "self_instruct",
        "user_oriented_instructions",
        [hub | {"instances": [{"input": "a"}]}],
    )
    with pytest.raises(InputError, match="item u0: field 'instances'"):
        load("self_instruct", tmp_path)


def test_rouge_is_averaged_over_samples():
    found = load_task("dolly").metrics(graded([0.25, 0.75], [0.0, 1.0]))
    assert found["rouge_l"].values == (0.5, 0.5)


# What all have in common.


def test_ids_come_from_the_text():
    ids = content_ids(["a", "b", "a"], "x")
    assert ids[1] == content_ids(["b"], "x")[0]
    assert ids[2] == ids[0] + "-2"
    assert len(set(ids)) == 3


def test_too_many_shots():
    example = Example(Item(id="e", prompt=""), "")
    assert take_examples("t", [example], 1) == (example,)
    for shots in (2, -1):
        with pytest.raises(InputError, match="it has 1 examples"):
            take_examples("t", [example], shots)


def test_a_description_is_ready_for_the_results():
    task = load_task("humaneval")
    data = load("humaneval")
    described = json.loads(json.dumps(describe(task, "base", 0, data)))
    assert described["stop"] == list(CODEX_STOPS)
    assert described["generation"] == {
        "max_tokens": 1024,
        "temperature": 0.0,
        "top_p": 1.0,
        "samples": 1,
    }
    assert described["data"][0]["subset"] == "HumanEval, 164 of 164 items"
    assert described["first_prompt"] == data.items[0].prompt


def test_mean_of_values():
    values = load_task("math").metrics(graded([1], [0], [0]))["accuracy"]
    assert math.isclose(values.mean, 1 / 3)


# Limits.


@pytest.mark.parametrize(
    ("template", "thinks"),
    [
        ("{{ messages }}<|im_end|>", False),
        ("{%- if enable_thinking %}<think>\n{% endif %}", True),
        ("{{ '<|start|>assistant<|channel|>final<|message|>' }}", True),
        ({"default": "plain", "tool_use": "<think>"}, True),
        (None, False),
    ],
)
def test_a_model_that_thinks_gets_more_room(template, thinks):
    task = load_task("math500")
    own = task.settings.max_tokens
    expected = own + (THOUGHT_TOKENS if thinks else 0)
    assert default_max_tokens(task, "chat", template) == expected
    assert default_max_tokens(task, "base", template) == own
