import json

import pytest

from ioa_jax.errors import InputError
from suite.data import DataSource
from suite.grading import open_grader
from suite.tasks import load_task
from suite.tasks.turns import conversation, next_prompt
from suite.texts import write_prompts

QUESTIONS = [
    {"question_id": 1, "category": "writing", "turns": ["Name a bird.", "Name a larger one."]},
    {"question_id": 2, "category": "math", "turns": ["What is 1 + 1?", "And twice that?"]},
]
REFERENCES = [{"question_id": 2, "choices": [{"turns": ["It is 2.", "It is 4."]}]}]


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "mt_bench"
    folder.mkdir()
    for name, rows in (("question_odd", QUESTIONS), ("reference_answer_gpt-4_odd", REFERENCES)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataSource(tmp_path, network=False)


def test_each_turn_is_an_item(data):
    items = {item.id: item for item in load_task("mt_bench").load(data).items}
    assert list(items) == ["mt_bench-1/1", "mt_bench-1/2", "mt_bench-2/1", "mt_bench-2/2"]
    assert [one.references for one in items.values()] == [(), (), ("It is 2.",), ("It is 4.",)]
    last = items["mt_bench-2/2"]
    assert (last.data["category"], last.data["turn"]) == ("math", 2)
    assert conversation(last, items) == [items["mt_bench-2/1"], last]


def test_a_later_turn_comes_after_the_earlier_answer(data):
    task = load_task("mt_bench")
    turns = list(task.load(data).items[:2])
    chat = next_prompt(task, turns, ["<think>hm</think>A wren."], "chat", ())
    assert [dict(message) for message in chat.messages] == [
        {"role": "user", "content": "Name a bird."},
        {"role": "assistant", "content": "A wren."},
        {"role": "user", "content": "Name a larger one."},
    ]
    base = next_prompt(task, turns, ["A wren."], "base", ())
    assert base.text == (
        "### Instruction:\nName a bird.\n\n### Response:\nA wren.\n\n"
        "### Instruction:\nName a larger one.\n\n### Response:\n"
    )


def test_prompts_say_what_a_turn_follows(data, tmp_path):
    path = tmp_path / "prompts.jsonl"
    write_prompts(load_task("mt_bench"), path, data)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row.get("follows") for row in rows[:2]] == [None, "mt_bench-1/1"]
    assert [row["temperature"] for row in rows] == [0.7, 0.7, 0.0, 0.0]


def test_koala_has_prompts_and_no_references(tmp_path):
    (tmp_path / "koala").mkdir()
    path = tmp_path / "koala" / "koala_test_set.jsonl"
    rows = [{"id": f"koala_{i}", "prompt": f"Name {i} birds."} for i in range(2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load_task("koala")
    data = task.load(DataSource(tmp_path, network=False))
    assert [(item.id, item.prompt) for item in data.items] == [
        ("koala_0", "Name 0 birds."),
        ("koala_1", "Name 1 birds."),
    ]
    assert [item.references for item in data.items] == [(), ()]
    (source,) = data.sources
    assert source.subset == "koala_test_set, 2 of 180 items"
    # Its sha256 isn't known, and so what was read isn't known to be it.
    assert not source.checked
    assert task.prompt(data.items[1], "base").text == (
        "### Instruction:\nName 1 birds.\n\n### Response:\n"
    )
    written = tmp_path / "prompts.jsonl"
    write_prompts(task, written, DataSource(tmp_path, network=False))
    assert all("temperature" not in json.loads(line) for line in written.read_text().splitlines())
    with pytest.raises(InputError, match=r"koala/test: not found here.*koala_test_set\.jsonl"):
        task.load(DataSource(tmp_path / "koala", network=False))


def test_no_program_grades_open_questions():
    with (
        pytest.raises(InputError, match="`python -m suite judge`"),
        open_grader(load_task("mt_bench"), "chat", False),
    ):
        pass


def test_turns_have_to_be_texts(data, tmp_path):
    (tmp_path / "mt_bench" / "question_odd.jsonl").write_text(
        json.dumps({"question_id": 5, "category": "math", "turns": [1]}) + "\n"
    )
    with pytest.raises(InputError, match="item mt_bench-5: field 'turns'"):
        load_task("mt_bench").load(data)
