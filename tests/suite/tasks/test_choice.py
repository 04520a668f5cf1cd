"""GPQA-Diamond and MMLU-Pro, on rows of our own."""

import pytest

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Verdict
from suite.data import DataSource
from suite.tasks import load_task
from suite.tasks.base import Graded
from tests.suite.tasks.test_tasks import load, write


def gpqa_row(question, domain="Physics"):
    return {
        "Question": question,
        "Correct Answer": "right\n",
        **{f"Incorrect Answer {i}": f"wrong {i}" for i in (1, 2, 3)},
        "High-level domain": domain,
    }


def mmlu_row(question, answer, category="law", count=10, **more):
    options = [f"choice {i}" for i in range(count)]
    index = "ABCDEFGHIJ".index(answer)
    row = {"question": question, "options": options, "answer": answer, "answer_index": index}
    return row | {"category": category} | more


def test_gpqas_choices_have_an_order_of_each_items_own(tmp_path):
    rows = [gpqa_row(f"Question {i}?") for i in range(40)]
    write(tmp_path / "gpqa", "gpqa_diamond", rows)
    items = load("gpqa_diamond", tmp_path).items
    for item in items:
        assert sorted(item.data["choices"]) == ["right", "wrong 1", "wrong 2", "wrong 3"]
        assert item.data["choices"]["ABCD".index(item.references[0])] == "right"
    # The same again, in whatever company, and wherever the right one stood.
    write(tmp_path / "gpqa", "gpqa_diamond", rows[:0:-1])
    again = {item.id: item for item in load("gpqa_diamond", tmp_path).items}
    assert all(again[item.id] == item for item in items[1:])
    letters = [item.references[0] for item in items]
    assert min(map(letters.count, "ABCD")) >= 3


def test_gpqa_is_had_on_request(tmp_path):
    with pytest.raises(InputError, match=r"agree to its terms at https://hugg.*hf auth login"):
        load("gpqa_diamond", tmp_path)
    with pytest.raises(InputError) as other:
        load("mmlu_pro", tmp_path)
    assert "terms" not in str(other.value)


def test_mmlu_pro(tmp_path):
    rows = [mmlu_row("What is law?", "J"), mmlu_row("And matter?", "B", "physics", 3)]
    few = [
        mmlu_row(f"Example {i} of {category}?", "A", category, cot_content=f"A: So {i}.")
        for category in ("law", "physics")
        for i in range(2)
    ]
    write(tmp_path / "mmlu_pro", "test", rows)
    write(tmp_path / "mmlu_pro", "validation", few)
    data = load("mmlu_pro", tmp_path, shots=1)
    law, physics = data.items
    assert (law.references, physics.references) == (("J",), ("B",))
    task = load_task("mmlu_pro")
    base = task.prompt(physics, "base", data.examples)
    assert base.text == (
        "Question:\nExample 0 of physics?\nOptions:\n"
        + "".join(f"{letter}. choice {i}\n" for i, letter in enumerate("ABCDEFGHIJ"))
        + "Answer: So 0.\n\n"
        "Question:\nAnd matter?\nOptions:\nA. choice 0\nB. choice 1\nC. choice 2\nAnswer:"
    )
    assert base.stop == ("Question:",)
    (message,) = task.prompt(law).messages
    assert "(A) choice 0\n" in message["content"]
    assert "(J) choice 9\n" in message["content"]
    assert [one["role"] for one in task.prompt(law, "chat", data.examples).messages] == [
        "user",
        "assistant",
        "user",
    ]
    with pytest.raises(InputError, match="3 shots: it has 2 examples"):
        load("mmlu_pro", tmp_path, shots=3)


def test_categories_have_means_of_their_own(tmp_path):
    rows = [mmlu_row(f"{i}?", "A", "law" if i < 3 else "physics") for i in range(4)]
    write(tmp_path / "mmlu_pro", "test", rows)
    items = load("mmlu_pro", tmp_path).items
    scores = (1.0, 1.0, 0.0, 0.0)
    graded = [
        Graded(item, (Verdict(bool(score), score, "A", "alone", "string"),))
        for item, score in zip(items, scores, strict=True)
    ]
    metrics = load_task("mmlu_pro").metrics(graded)
    assert list(metrics) == ["accuracy", "accuracy, law", "accuracy, physics"]
    assert metrics["accuracy"].mean == 0.5
    assert metrics["accuracy, law"].mean == pytest.approx(2 / 3)
    assert metrics["accuracy, physics"].mean == 0


@pytest.mark.parametrize(
    "changed", [{"answer_index": 2}, {"answer": "K"}, {"options": ["only"]}, {"options": []}]
)
def test_an_answer_that_is_no_choice(tmp_path, changed):
    write(tmp_path / "mmlu_pro", "test", [mmlu_row("?", "A") | changed])
    with pytest.raises(InputError, match=r"mmlu_pro/test: item mmlu_pro-.*'answer_index'"):
        load_task("mmlu_pro").load(DataSource(tmp_path, network=False))
