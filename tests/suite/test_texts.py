import json

import pytest

from ioa_jax.errors import InputError
from suite import texts as module
from suite.data import DataSource
from suite.tasks import load_task
from suite.tasks.base import Task
from suite.tasks.code import HUMANEVAL_TEST
from suite.tasks.micro import MICRO_MATH
from suite.texts import grade_texts, read_texts, write_prompts

NOWHERE = DataSource(network=False)


def lines(*rows):
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def micro():
    return {item.id: item for item in MICRO_MATH.load(NOWHERE).items}


def grade(tmp_path, text, task: Task = MICRO_MATH, data=NOWHERE, **options):
    path = tmp_path / "texts.jsonl"
    path.write_text(text, encoding="utf-8")
    return grade_texts(task, path, tmp_path / "verdicts.jsonl", data, **options)


GOOD = '{"id": "%s", "text": "1"}'


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (r'{"id": "%s", "text": "\ud83d"}', "half of a surrogate pair"),
        ('{"id": ["%s"], "text": "1"}', "field 'id': Input should be a valid string"),
        ('["%s", "1"]', "a JSON object is needed"),
        ('{"id": "%s"}', "field 'text': Field required"),
        ('{"id": "%s", "text": null}', "field 'text'"),
        ('{"text": "%s"}', "field 'id': Field required"),
        ('{"id": "%s?", "text": "1"}', "no item"),
        ('{"id": "%s", "text": "1", "sample": 0}', "sample 0, is on line 1 already"),
        ('{"id": "%s", "text": "1"}', "some lines of item"),
        ('{"id": "%s", "text": "1", "text": "2"}', "stands twice"),
        ('{"id": "%s", "text": "1"', "not JSON"),
    ],
)
def test_a_bad_line_is_named_before_anything_is_graded(tmp_path, monkeypatch, bad, message):
    def never(*arguments):
        raise AssertionError("something was graded")

    monkeypatch.setattr(module, "open_grader", never)
    name = next(iter(micro()))
    first = '{"id": "%s", "text": "1", "sample": 0}'
    with pytest.raises(InputError, match=r"texts\.jsonl:3: ") as caught:
        grade(tmp_path, f"{first % name}\n\n{bad % name}\n")
    assert message in str(caught.value)
    assert not (tmp_path / "verdicts.jsonl").exists()


def test_bytes_that_are_no_text_are_named_by_their_line(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_bytes((GOOD % "a").encode() + b'\n{"id": "a", "text": "\xed\xa0\xbd"}\n')
    with pytest.raises(InputError, match=r"texts\.jsonl:2: not UTF-8"):
        read_texts(path, "t", micro())


def test_several_samples_have_evals_figures(tmp_path):
    (one, two), *_ = [list(micro().values())[:2]]
    right = rf"\boxed{{{one.references[0]}}}"
    wrong = [r"\boxed{123456}", r"\boxed{123456.0}", r"\boxed{7654321}"]
    rows = [{"id": one.id, "text": t} for t in (right, right, wrong[0], wrong[2])]
    rows += [{"id": two.id, "text": t, "by": "x"} for t in (*wrong, wrong[2])]
    found = grade(tmp_path, lines(*rows), ks=(1, 2, 4))
    task = found["tasks"]["micro-math"]
    got = {name: round(value["mean"], 6) for name, value in task["metrics"].items()}
    assert got == {
        "accuracy": 0.25, "pass@1": 0.25, "pass@2": round(5 / 12, 6), "pass@4": 0.5, "avg@4": 0.25,
        "maj@2": 0.25, "maj@4": 0.5,
    }  # fmt: skip
    assert all(v["low"] <= v["mean"] <= v["high"] for v in task["metrics"].values())
    assert (task["graded"], found["texts"], found["correct"]) == (2, 8, 2)
    written = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    assert [row["sample"] for row in written] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert written[-1]["by"] == "x"
    with pytest.raises(InputError, match=r"--k 5: task 'micro-math' has 4 samples"):
        grade(tmp_path, lines(*rows), ks=(5,))


def test_ifevals_four_numbers(tmp_path):
    folder = tmp_path / "data" / "ifeval"
    folder.mkdir(parents=True)
    row = {
        "key": 1,
        "prompt": "Use no commas.",
        "instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"],
        "kwargs": [{}, {}],
    }
    (folder / "input_data_odd.jsonl").write_text(json.dumps(row) + "\n")
    found = grade(
        tmp_path,
        lines({"id": "ifeval-1", "text": "No comma here at all, but one."}),
        load_task("ifeval"),
        DataSource(tmp_path / "data", network=False),
    )
    metrics = found["tasks"]["ifeval"]["metrics"]
    assert list(metrics) == [
        "prompt_strict", "instruction_strict", "prompt_loose", "instruction_loose",
    ]  # fmt: skip
    assert metrics["prompt_strict"]["mean"] == 0.0


def test_prompts_are_what_a_model_would_get(tmp_path):
    task = load_task("humaneval")
    path = tmp_path / "prompts.jsonl"
    assert write_prompts(task, path, NOWHERE, limit=3) == 3
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    items = task.load(NOWHERE).items[:3]
    for row, item, source in zip(rows, items, NOWHERE.load(HUMANEVAL_TEST).rows, strict=False):
        assert row["id"] == item.id == source["task_id"]
        assert row["prompt"] == source["prompt"]
        assert row["messages"] == [dict(m) for m in task.prompt(item, "chat").messages]
        assert "\ndef" in row["stop"]


def test_prompts_have_examples_where_they_are_asked_for(tmp_path):
    path = tmp_path / "prompts.jsonl"
    write_prompts(MICRO_MATH, path, NOWHERE, shots=2, limit=1)
    (row,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert [m["role"] for m in row["messages"]] == ["user", "assistant"] * 2 + ["user"]
    assert row["prompt"].count("Task: ") == 3
