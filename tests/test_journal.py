import gzip
import json

import pytest

from ioa_jax.errors import InputError
from ioa_jax.files import read_json, write_json
from ioa_jax.journal import Journal, read_journal
from ioa_jax.rows import SecondsRow, StepRow

STEP = {"part": "a", "step": 1, "tokens": 7, "seconds": 0.5}
SECONDS = {"step": "a", "number": 0, "seconds": 3}


def test_records_are_on_disk_at_once_and_found_again(tmp_path):
    path = tmp_path / "new" / "a.jsonl"
    with Journal(path, ("part", "step")) as journal:
        journal.append({"part": "a", "step": 1, "text": "ä\n"})
        assert read_journal(path) == [{"part": "a", "step": 1, "text": "ä\n"}]
        journal.append({"part": "a", "step": 2})
    with Journal(path, ("part", "step")) as journal:
        assert len(journal) == 2
        assert ("a", 2) in journal
        assert ("b", 2) not in journal
        assert journal["a", 1]["text"] == "ä\n"
        with pytest.raises(ValueError, match="recorded already"):
            journal.append({"part": "a", "step": 2})
        assert [record["step"] for record in journal] == [1, 2]


def test_a_torn_last_line_is_removed(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1}\n{"id": 2, "te')
    assert read_journal(path) == [{"id": 1}]
    with Journal(path, ("id",)) as journal:
        assert len(journal) == 1
        journal.append({"id": 2})
    assert path.read_text() == '{"id": 1}\n{"id": 2}\n'


def test_a_compressed_journal_is_read_and_not_added_to(tmp_path):
    path = tmp_path / "a.jsonl"
    line = '{"id": 1, "text": "ä"}\n'
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line.encode()))
    assert read_journal(path) == [{"id": 1, "text": "ä"}]
    with pytest.raises(InputError, match=r"a\.jsonl\.gz: .*gunzip"):
        Journal(path, ("id",))
    (tmp_path / "a.jsonl.gz").write_bytes(b"no")
    with pytest.raises(InputError, match=r"a\.jsonl\.gz: "):
        read_journal(path)


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:12] + data[20:]])
def test_a_compressed_file_is_read_and_replaced_by_a_plain_one(tmp_path, damage):
    path = tmp_path / "a.json"
    data = gzip.compress(b'{"a": "\xc3\xa4"}')
    (tmp_path / "a.json.gz").write_bytes(data)
    assert read_json(path) == {"a": "ä"}
    (tmp_path / "a.json.gz").write_bytes(damage(data))
    with pytest.raises(InputError, match=r"a\.json\.gz: "):
        read_json(path)
    write_json(path, {"a": 2})
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]
    assert read_json(path) == {"a": 2}


def test_a_line_that_stops_within_a_letter_is_left_out(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": 1}\n{"text": "\xc3')
    assert read_journal(path) == [{"id": 1}]


@pytest.mark.parametrize(
    "line", ["{", "[1]", '{"name": 1}', '{"id": 1}', "", '{"id": 2, "x": NaN}', "\x00", "[" * 9999]
)
def test_another_bad_line_is_an_error(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1}\n' + line + "\n")
    with pytest.raises(InputError, match=r"a\.jsonl:2"):
        Journal(path, ("id",))


@pytest.mark.parametrize(
    ("row", "good", "changes", "field"),
    [
        (StepRow, STEP, {"tokens": -1}, "tokens"),
        (StepRow, STEP, {"step": 0}, "step"),
        (StepRow, STEP, {"tokens": True}, "tokens"),
        (StepRow, STEP, {"seconds": -0.5}, "seconds"),
        (SecondsRow, SECONDS, {"seconds": -1}, "seconds"),
        (SecondsRow, SECONDS, {"seconds": "7"}, "seconds"),
        (SecondsRow, SECONDS, {"number": -1}, "number"),
    ],
)
def test_figures_that_cant_be_are_named_by_line_and_field(tmp_path, row, good, changes, field):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(good) + "\n")
    assert read_journal(path, row) == [good]
    path.write_text(json.dumps(good) + "\n" + json.dumps({**good, **changes}) + "\n")
    for read in (read_journal, lambda path, row: Journal(path, ("seconds",), row)):
        with pytest.raises(InputError, match=rf"a\.jsonl:2: field '{field}': "):
            read(path, row)


def test_json_is_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}
    path.write_text("{")
    with pytest.raises(InputError, match=r"a\.json"):
        read_json(path)
    with pytest.raises(InputError, match="missing"):
        read_json(tmp_path / "missing.json")
