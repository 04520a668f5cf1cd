import json
import subprocess
import sys

import pytest

from ioa_jax.adapter.duplicates import BenchmarkIndex
from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from suite.contamination import build_index, check_file
from suite.data import DataSource

LONG = " ".join(f"word{i}" for i in range(30))
SHORT = "How can I improve my time management?"  # 7 words
TINY = "Compute sin 60."
SOLUTION = " ".join(f"step{i}" for i in range(20))


@pytest.fixture(scope="module")
def index():
    return BenchmarkIndex(
        {
            "long": [Item(id="l", prompt=LONG, references=("18",), data={"solution": SOLUTION})],
            "short": [Item(id="s", prompt=SHORT), Item(id="t", prompt=TINY)],
        }
    )


def test_a_file_is_searched_in_every_field(index, tmp_path):
    path = tmp_path / "train.jsonl"
    rows = [
        {"prompt": "clean", "completion": "clean"},
        {"messages": [{"role": "user", "content": LONG}, {"role": "assistant", "content": "x"}]},
        {"prompt": LONG, "completion": SOLUTION, "weight": 1.5},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = check_file(path, index)
    assert (report.lines, report.affected) == (3, 2)
    assert [(one.line, one.place) for one in report.findings] == [
        (2, "messages.0.content"),
        (3, "prompt"),
        (3, "completion"),
    ]
    assert report.summary() == [("long", "whole", 2, 1)]
    assert json.loads(json.dumps(report.rows()))[0]["task"] == "long"
    path.write_text('{"tokens": [1, 2]}\n')
    with pytest.raises(InputError, match="no line has a text"):
        check_file(path, index)


def test_tasks_without_data_are_named():
    built = build_index(DataSource(network=False))
    # What comes with a package, and what is generated.
    assert built.index.tasks.keys() == {"humaneval", "micro-math", "micro-code", "micro-instruct"}
    assert built.index.tasks["humaneval"] == 164
    assert "gsm8k" in built.missing
    assert "humaneval" not in built.missing
    with pytest.raises(InputError, match="gsm8k/test"):
        build_index(DataSource(network=False), ["humaneval", "gsm8k"])
    with pytest.raises(InputError, match="pin 'humanevil/test': no task read it"):
        build_index(DataSource(pins={"humanevil/test": "0" * 64}, network=False), ["humaneval"])


def test_unscored_items_are_indexed_too(tmp_path):
    folder = tmp_path / "vicuna_bench"
    folder.mkdir()
    # Files of our own under the known names: pinned by their rows.
    from suite.data import rows_sha256
    from suite.tasks import instructions, load_task

    questions = [
        {"question_id": 1, "turns": ["Who goes there in the night?"]},
        {"question_id": 2, "turns": ["What is the name of this game?"]},
    ]
    answers = [{"question_id": 1, "choices": [{"turns": ["A friend."]}]}]
    for source, rows in (
        (instructions.VICUNA_TEST, questions),
        (instructions.VICUNA_REFERENCES, answers),
    ):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{source.layouts[0].parts[0].stem}.jsonl").write_text(text)
    pins = {
        source.name: rows_sha256(rows, source.fields)
        for source, rows in (
            (instructions.VICUNA_TEST, questions),
            (instructions.VICUNA_REFERENCES, answers),
        )
    }
    data = DataSource(tmp_path, pins)
    loaded = load_task("vicuna").load(data)
    assert [item.id for item in loaded.items] == ["vicuna-1"]
    built = build_index(data, ["vicuna"])
    assert built.index.tasks == {"vicuna": 2}
    assert [one.item for one in built.index.find("What is the name of this game?")] == ["vicuna-2"]


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "suite", "contamination", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_reports_what_overlaps_with_what(tmp_path):
    from suite.tasks import load_task

    item = load_task("humaneval").load(DataSource()).items[7]
    path = tmp_path / "train.jsonl"
    path.write_text(
        json.dumps({"prompt": f"Write this: {item.prompt}"}) + '\n{"prompt": "clean"}\n'
    )
    output = tmp_path / "found.jsonl"
    result = command(str(path), "--task", "humaneval", "--output", str(output))
    assert result.returncode == 0, result.stderr
    assert "humaneval: 164 test items from HumanEval, 164 of 164 items" in result.stdout
    assert "1 of 2 lines overlap" in result.stdout
    findings = [json.loads(line) for line in output.read_text().splitlines()]
    assert (1, "prompt", "HumanEval/7", "whole") in [
        (one["line"], one["place"], one["item"], one["kind"]) for one in findings
    ]
    assert {one["line"] for one in findings} == {1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl: not a file"),
        (["README.md", "--task", "chess"], "task 'chess' is unknown"),
        (["README.md", "--data-dir", "nowhere"], "--data-dir: nowhere is not a folder"),
        (["README.md", "--pin", "a=b"], "SOURCE=SHA256"),
        (["README.md", "--task", "humaneval"], "README.md:1: not JSON"),
    ],
)
def test_errors_are_one_line(arguments, message):
    result = command(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
