"""Our verdicts beside those of lm-evaluation-harness's tasks, on answers whose outcome is known."""

import json

import pytest

pytest.importorskip("lm_eval")

from ioa_jax.errors import InputError
from suite.data import DataSource
from suite.lm_eval_agreement import compare, report
from suite.tasks import load_task
from suite.tasks.code import HUMANEVAL_TEST
from tests.suite.test_eval import suite
from tests.suite.world import write_model

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agreement") / "model"
    write_model(folder)
    return folder


def answered(model, output, task, style, texts):
    """An evaluation with these answers."""
    suite("eval", "--model", model, "--tasks", task, "--style", style, "--output", output,
          "--limit", len(texts), "--max-tokens", 2, "--precision", "float32",
          "--shots", 0)  # fmt: skip
    path = output / "tasks" / task / "texts.jsonl"
    rows = {row["id"]: row for row in map(json.loads, path.read_text().splitlines())}
    items = load_task(task).load(DataSource.open()).items
    for item, text in zip(items, texts, strict=False):
        rows[item.id]["text"] = text
    path.write_text("".join(json.dumps(row) + "\n" for row in rows.values()))
    suite("regrade", output)
    (found,) = compare(output, DataSource.open())
    return found


def test_continuations_of_humaneval(model, tmp_path):
    rows = DataSource.open().load(HUMANEVAL_TEST).rows[:4]
    texts = [row["canonical_solution"] for row in rows]
    texts[1] = "    return None\n"
    texts[3] = "    import os\n    os._exit(0)\n"
    found = answered(model, tmp_path / "base", "humaneval", "base", texts)
    assert found.task == "humaneval 1.0"
    assert found.positive == {"pass@1": (2, 2)}
    assert not found.differences
    assert "| humaneval 1.0 | base | 4 | pass@1 | 4 | 2 | 2 | 0 |" in report([found])


def test_a_difference_is_listed_with_its_cause(model, tmp_path):
    row = DataSource.open().load(HUMANEVAL_TEST).rows[0]
    fenced = f"```python\n{row['prompt']}{row['canonical_solution']}```"
    found = answered(model, tmp_path / "chat", "humaneval", "chat", [fenced, "no"])
    assert found.task == "humaneval_instruct 4.0"
    assert found.positive == {"pass@1": (1, 0)}
    (difference,) = found.differences
    assert (difference.item, difference.ours, difference.theirs) == ("HumanEval/0", True, False)
    assert "fence" in difference.why
    assert "| HumanEval/0 | pass@1 | yes | no |" in report([found])


@pytest.fixture
def data_folder(monkeypatch):
    if DataSource.open().directory is None:
        pytest.skip("IOA_DATA_DIR isn't set")


@pytest.mark.usefixtures("data_folder")
def test_numbers_of_gsm8k(model, tmp_path):
    items = load_task("gsm8k").load(DataSource.open()).items[:5]
    gold = [item.references[0] for item in items]
    texts = [
        items[0].data["solution"],
        f"It is {gold[1]}",
        "#### none",
        f"#### {gold[3]}.00",
        f"#### {gold[4]}, of 1000001",
    ]
    found = answered(model, tmp_path / "gsm8k", "gsm8k", "chat", texts)
    assert found.positive == {"strict": (3, 2), "flexible": (3, 2)}
    assert [(d.outcome, d.why) for d in found.differences] == [
        ("strict", "equal as numbers, not as texts"),
        ("flexible", "equal as numbers, not as texts"),
    ]


@pytest.mark.usefixtures("data_folder")
def test_instructions_of_ifeval(model, tmp_path):
    # Long enough to break some and follow others.
    texts = ["Dear all,\n\nTHIS IS IT. P.S. yes, it is.\n\n* one\n* two\n<<title>>"] * 60
    found = answered(model, tmp_path / "ifeval", "ifeval", "chat", texts)
    ours, theirs = found.positive["strict"]
    assert 10 < ours < found.outcomes["strict"]
    unexplained = [one for one in found.differences if not one.why]
    assert not unexplained
    assert abs(ours - theirs) <= len(found.differences)


def test_an_evaluation_without_such_a_task(tmp_path):
    (tmp_path / "eval.json").write_text('{"tasks": {"dolly": {}}}')
    with pytest.raises(InputError, match="none of humaneval, gsm8k, ifeval"):
        compare(tmp_path, DataSource.open())
