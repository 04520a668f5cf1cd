import json
import subprocess
import sys

import pytest

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from suite.contamination import ContaminationIndex, build_index, check_file
from suite.data import DataSource

LONG = " ".join(f"word{i}" for i in range(30))
SHORT = "How can I improve my time management?"  # 7 words
TINY = "Compute sin 60."
SOLUTION = " ".join(f"step{i}" for i in range(20))


@pytest.fixture(scope="module")
def index():
    return ContaminationIndex(
        {
            "long": [Item(id="l", prompt=LONG, references=("18",), data={"solution": SOLUTION})],
            "short": [Item(id="s", prompt=SHORT), Item(id="t", prompt=TINY)],
        }
    )


def found(index, text):
    return [(one.task, one.item, one.field, one.kind, one.value) for one in index.find(text)]


def test_a_whole_item_in_a_longer_text(index):
    text = f"Please: {LONG.upper().replace(' ', ',  ')}! And then?"
    assert found(index, text) == [("long", "l", "prompt", "whole", 1.0)]


def test_thirteen_words_in_a_row_and_not_twelve(index):
    words = LONG.split()
    # The prompt has 30 - 13 + 1 = 18 runs of 13 words.
    (overlap,) = index.find("before " + " ".join(words[5:18]) + " after")
    assert (overlap.kind, overlap.value) == ("ngram", round(1 / 18, 4))
    assert overlap.match == " ".join(words[5:18])
    assert index.find("before " + " ".join(words[5:17]) + " after") == []


def test_solutions_are_looked_for_and_bare_answers_are_not(index):
    assert found(index, SOLUTION + " so 18") == [("long", "l", "solution", "whole", 1.0)]
    assert found(index, "18") == []


def test_short_items_count_when_contained_and_tiny_ones_when_alone(index):
    assert found(index, f"My question: {SHORT} Thanks.") == [("short", "s", "prompt", "whole", 1)]
    assert found(index, "compute SIN 60!") == [("short", "t", "prompt", "whole", 1.0)]
    assert found(index, "Compute sin 60 and cos 60.") == []


def test_near_duplicates_have_their_exact_similarity(index):
    words = LONG.split()
    # Other words at 12 and 24 leave no 13 words in a row. Each change breaks 3 of the 28 triples,
    # so 22 are in both and 34 in either.
    words[12] = words[24] = "other"
    assert found(index, " ".join(words)) == [("long", "l", "prompt", "near", round(22 / 34, 4))]
    words[6] = words[18] = "other"
    # 16 in both, 40 in either: below a half.
    assert found(index, " ".join(words)) == []


def test_texts_without_words(index):
    assert index.find("") == index.find("?! \u2026") == []


@pytest.mark.parametrize("similarity", [0.0, 1.0, -1])
def test_a_similarity_that_is_none(similarity):
    with pytest.raises(InputError, match="similarity"):
        ContaminationIndex({}, similarity)


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
    assert built.index.tasks == {"humaneval": 164}
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
