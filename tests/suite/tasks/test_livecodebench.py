"""LiveCodeBench, on rows of our own."""

import hashlib
import json

import pytest

from ioa_jax.errors import InputError
from suite.contamination import build_index
from suite.data import DataSource
from suite.grading import check_grader, open_grader
from suite.tasks import livecodebench, load_task
from suite.texts import grade_texts, write_prompts
from tests.graders.test_contests import Hostile, case, fenced, packed
from tests.hub import hub


def row(number, day, **changed):
    found = {
        "question_title": "Sum",
        "question_content": f"Two lines have a number each. Print {number} times their sum.",
        "platform": "atcoder",
        "question_id": f"abc{number}_a",
        "contest_id": f"abc{number}",
        "contest_date": f"{day}T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps([case("1000\n2\n", str(1002 * number))]),
        "private_test_cases": packed(json.dumps([case("5\n-7\n", str(-2 * number))])),
        "metadata": "{}",
    }
    return found | changed


STARTER = "class Solution:\n    def joined(self, parts: List[str]) -> str:\n        "
METHOD = {
    "question_content": "Join the parts with a hyphen between.",
    "platform": "leetcode",
    "question_id": "3001",
    "starter_code": STARTER,
    "public_test_cases": json.dumps([case('["left", "right"]', '"left-right"')]),
    "private_test_cases": json.dumps([case("[]", '""')]),
    "metadata": '{"func_name": "joined"}',
}


def rows_of(number):
    """What the n-th file has here: a problem of each of two days."""
    return [row(10 * number, f"2024-0{number}-01"), row(10 * number + 1, f"2024-0{number}-20")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Data of ours as files 1 to 6, with their sha256 as the known ones."""
    for number in range(1, 7):
        write(tmp_path, number, rows_of(number), monkeypatch)
    return tmp_path


def write(folder, number, rows, monkeypatch):
    path = folder / "livecodebench" / f"test{number if number > 1 else ''}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    files = list(livecodebench.FILES)
    files[number - 1] = (len(rows), hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(livecodebench, "FILES", tuple(files))
    return path


def load(name, folder):
    return load_task(name).load(DataSource(folder, network=False))


def numbers(loaded):
    return [int(item.id.removeprefix("atcoder/abc").removesuffix("_a")) for item in loaded.items]


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ("", [60, 61]),
        ("@release=v2", [20, 21]),
        ("@release=release_v2", [10, 11, 20, 21]),
        ("@release=release_v1", [10, 11]),
        ("@release=v3_v5", [30, 31, 40, 41, 50, 51]),
        ("@release=release_v6@start=2024-02-20@end=2024-04-01", [21, 30, 31, 40]),
        ("@release=v2_v3@end=2024-02-20", [20, 21]),
        ("@start=2024-06-02", [61]),
    ],
)
def test_problems_by_release_and_window(folder, settings, found):
    loaded = load("livecodebench" + settings, folder)
    assert numbers(loaded) == found
    assert all(source.checked for source in loaded.sources)
    assert sum(source.items for source in loaded.sources) == len(found)
    assert load_task("livecodebench" + settings).name == "livecodebench" + settings


def test_what_was_read_is_told(folder):
    first, second = load("livecodebench@release=v5_v6@start=2024-06-02", folder).sources
    assert (first.name, first.subset) == ("livecodebench/test5", "test5, 0 of 2 items")
    assert (second.name, second.subset) == ("livecodebench/test6", "test6, 1 of 2 items")
    assert second.files == {"test6.jsonl": livecodebench.FILES[5][1]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("@release=v7", "release='v7': release_v1 to release_v6"),
        ("@release=v5_v4", "release='v5_v4'"),
        ("@release=release_v1_v2", "release='release_v1_v2'"),
        ("@start=2025-02-30", "start='2025-02-30': a day is needed"),
        ("@start=2025-02-02@end=2025-02-01", "start=2025-02-02 is after end=2025-02-01"),
        ("@until=2025-02-01", "setting 'until': there are release, start, end"),
        ("@release", "'release': write each setting once, as @NAME=VALUE"),
        ("@end=2025-02-01@end=2025-02-01", "write each setting once"),
    ],
)
def test_settings_that_are_none(settings, message):
    with pytest.raises(InputError, match=message):
        load_task("livecodebench" + settings)
    with pytest.raises(InputError, match=r"'humaneval@release=v1': humaneval has no settings"):
        load_task("humaneval@release=v1")


def test_a_window_without_a_contest_is_an_error(folder):
    with pytest.raises(InputError, match="no contest of its files is in the window"):
        load("livecodebench@start=2024-07-01", folder)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"contest_date": "soon"}, "field 'contest_date': 'soon': no date"),
        ({"contest_date": 3}, "field 'contest_date': a text is needed"),
        ({"starter_code": None}, "field 'starter_code': a text is needed"),
        ({"metadata": "{"}, "field 'metadata': not JSON"),
        ({"metadata": "[]"}, "field 'metadata': the JSON of an object"),
        ({"metadata": '{"func_name": "f()"}'}, "field 'metadata': func_name='f\\(\\)'"),
        ({"public_test_cases": "[{}]"}, "field 'public_test_cases': test 1: the texts 'input'"),
        (
            {"public_test_cases": packed(Hostile())},
            "field 'public_test_cases': a pickle of more than a text, with STACK_GLOBAL",
        ),
        (
            METHOD | {"public_test_cases": json.dumps([case("one", "1")])},
            "field 'public_test_cases': test 1: not JSON",
        ),
    ],
)
def test_malformed_fields_are_named_with_file_and_line(folder, monkeypatch, changed, message):
    rows = [row(1, "2024-06-01"), row(2, "2024-06-01", **changed)]
    write(folder, 6, rows, monkeypatch)
    with pytest.raises(InputError, match=rf"test6\.jsonl:2: {message}"):
        load("livecodebench", folder)


def test_another_file_than_the_known_one_is_refused(folder):
    with (folder / "livecodebench" / "test6.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(InputError, match=r"test6\.jsonl: sha256 is"):
        load("livecodebench", folder)


def test_a_file_that_is_missing_is_named(folder):
    (folder / "livecodebench" / "test5.jsonl").unlink()
    with pytest.raises(InputError, match=r"livecodebench has none of test5\.jsonl"):
        load("livecodebench@release=v5_v6", folder)


def test_hostile_private_tests_are_refused_before_an_answer_is(folder, monkeypatch):
    rows = [row(1, "2024-06-01"), row(2, "2024-06-01", private_test_cases=packed(Hostile()))]
    write(folder, 6, rows, monkeypatch)
    task = load_task("livecodebench")
    items = load("livecodebench", folder).items
    message = r"item 'atcoder/abc2_a': field 'private_tests': a pickle of more than a text"
    with (
        open_grader(task, "chat", False) as (grader, info),
        pytest.raises(InputError, match=message),
    ):
        check_grader(task, items, grader, info)


def test_items_without_reference_programs_are_checked(folder):
    task = load_task("livecodebench")
    with open_grader(task, "chat", False) as (grader, info):
        found = check_grader(task, load("livecodebench", folder).items, grader, info)
    assert (found["golds"], found["gold_failures"]) == (0, [])


def test_prompts_have_the_problem_and_no_tests(folder, monkeypatch, tmp_path):
    write(folder, 6, [row(3, "2024-06-01"), row(4, "2024-06-01", **METHOD)], monkeypatch)
    output = tmp_path / "prompts.jsonl"
    data = DataSource(folder, network=False)
    assert write_prompts(load_task("livecodebench"), output, data) == 2
    script, method = map(json.loads, output.read_text().splitlines())
    for prompt in (script, method):
        chat = prompt["messages"][0]["content"]
        for text in (prompt["prompt"], chat):
            for secret in ("1002", "3006", "-7", "left", "right"):
                assert secret not in text
        assert prompt["prompt"].endswith("\n\n```python\n")
        assert prompt["stop"] == ["\n```"]
    assert "Print 3 times their sum." in script["messages"][0]["content"]
    assert "standard input" in script["messages"][0]["content"]
    assert f"```python\n{STARTER.strip()}\n```" in method["messages"][0]["content"]
    assert "standard input" not in method["messages"][0]["content"]


def test_texts_are_graded_by_all_tests(folder, monkeypatch, tmp_path):
    write(folder, 6, [row(3, "2024-06-01"), row(4, "2024-06-01", **METHOD)], monkeypatch)
    right = fenced("print(3 * (int(input()) + int(input())))")
    texts = [
        ("atcoder/abc3_a", right),
        ("atcoder/abc3_a", right.replace("3 *", "3 * abs").replace("abs (", "abs(")),
        ("leetcode/3001", fenced(STARTER + "return '-'.join(parts)")),
        ("leetcode/3001", fenced("def joined(parts):\n    return '-'.join(parts) or None")),
    ]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"id": id, "text": text}) + "\n" for id, text in texts))
    task = load_task("livecodebench@start=2024-06-01")
    found = grade_texts(task, path, tmp_path / "out.jsonl", DataSource(folder, network=False))
    figures = found["tasks"]["livecodebench@start=2024-06-01"]
    assert figures["metrics"]["pass@1"]["mean"] == 0.5
    assert figures["metrics"]["pass@2"]["mean"] == 1.0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [one["correct"] for one in rows] == [True, False, True, False]


def test_the_problems_are_found_in_training_data(folder):
    index = build_index(DataSource(folder, network=False), ["livecodebench@release=v1"]).index
    (found,) = index.find("Two lines have a number each. Print 10 times their sum.")[:1]
    assert (found.task, found.item) == ("livecodebench@release=v1", "atcoder/abc10_a")


CODE = """
from ioa_jax.errors import InputError
from suite.data import DataSource
from suite.tasks import livecodebench, load_task
livecodebench.FILES = (*livecodebench.FILES[:5], (2, {!r}))
try:
    loaded = load_task("livecodebench").load(DataSource())
    print([item.id for item in loaded.items], loaded.sources[0].origin, loaded.sources[0].checked)
except InputError as error:
    print(error)
"""


def test_a_file_is_downloaded_once_at_the_pinned_revision(folder, tmp_path):
    local = folder / "livecodebench"
    known = hashlib.sha256((local / "test6.jsonl").read_bytes()).hexdigest()
    with hub() as server:
        server.add_folder("datasets", livecodebench.HUB, livecodebench.REVISION, local)
        said = server.run(CODE.format(known), tmp_path / "cache")
        origin = f"hub {livecodebench.HUB}@{livecodebench.REVISION}, test6.jsonl"
        assert said == f"['atcoder/abc60_a', 'atcoder/abc61_a'] {origin} True\n"
        assert not any("test5.jsonl" in request for request in server.requests)
        assert server.run(CODE.format(known), tmp_path / "cache", HF_HUB_OFFLINE="1") == said
        wrong = server.run(CODE.format("0" * 64), tmp_path / "cache")
        assert wrong == f"{origin}: sha256 is {known}, not {'0' * 64}\n"
        missing = server.run(CODE.format(known), tmp_path / "other", HF_HUB_OFFLINE="1")
    for part in (
        "livecodebench/test6: not found here",
        "--data-dir",
        "DIR/livecodebench has test6",
    ):
        assert part in missing
