import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from ioa_jax.errors import InputError
from ioa_jax.teachers import ledger as ledger_module
from ioa_jax.teachers.ledger import Ledger, call_key

APPEND = """
import sys
from pathlib import Path
from ioa_jax.teachers.ledger import Ledger
from tests.teachers.test_ledger import record

ledger = Ledger(Path(sys.argv[1]))
first, last = int(sys.argv[2]), int(sys.argv[3])
for n in range(first, last):
    ledger.append(record(f"k{n}", by=sys.argv[4], text="x" * 5000))
    print(n, flush=True)
"""


def start(directory, first, last, name):
    command = [sys.executable, "-c", APPEND, str(directory), str(first), str(last), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def record(name, **result):
    """Of a call that is told from others by its name."""
    content = {"model": "m", "name": name}
    return {"key": call_key(content), **content, "result": result}


def key(name):
    return record(name)["key"]


def names(records):
    return [one["name"] for one in records]


def test_a_record_is_found_again_by_another_process(tmp_path):
    ledger = Ledger(tmp_path / "new" / "ledger")
    assert ledger.find(key("a")) is None
    kept = ledger.append(record("a", text="ä\n\u2028"))
    assert kept["result"]["text"] == "ä\n\u2028"
    again = Ledger(tmp_path / "new" / "ledger")
    assert again.find(key("a")) == kept
    assert len(again) == 1
    assert again.models == ["m"]
    assert list(again) == [kept]


def test_the_first_record_of_a_key_stays(tmp_path):
    first, second = Ledger(tmp_path), Ledger(tmp_path)
    first.append(record("a", text="first"))
    # The second one opened before, and so hasn't seen it yet.
    assert second.append(record("a", text="second"))["result"]["text"] == "first"
    assert len(Ledger(tmp_path)) == 1


def test_of_two_lines_with_one_key_the_first_counts(tmp_path):
    # As where a record was added by hand, or two folders were put together.
    lines = [record("a", text="first"), record("b"), record("a", text="second")]
    for number, found in enumerate((lines[:2], lines[2:])):
        path = tmp_path / f"{number:06d}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in found))
    ledger = Ledger(tmp_path)
    assert ledger.find(key("a")) == lines[0]
    assert len(list(ledger)) == 2
    path = tmp_path / "000001.jsonl"
    path.write_text(path.read_text() + json.dumps(record("b", text="later")) + "\n")
    ledger.refresh()
    assert ledger.find(key("b")) == record("b")


def test_records_of_others_are_found_without_opening_again(tmp_path):
    first, second = Ledger(tmp_path), Ledger(tmp_path)
    first.append(record("a"))
    assert second.find(key("a")) == record("a")


def test_segments_are_closed_at_their_size(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_module, "SEGMENT_BYTES", 400)
    ledger = Ledger(tmp_path)
    for n in range(5):
        ledger.append(record(f"k{n}", text="x" * 60))
    assert sorted(p.name for p in tmp_path.glob("*.jsonl")) == [
        "000000.jsonl",
        "000001.jsonl",
        "000002.jsonl",
    ]
    assert set(names(Ledger(tmp_path))) == {f"k{n}" for n in range(5)}


@pytest.mark.parametrize("torn", [b'{"key": "b", "te', b"\x00\xff", b"{"])
def test_a_torn_last_line_is_dropped(tmp_path, torn):
    Ledger(tmp_path).append(record("a"))
    segment = tmp_path / "000000.jsonl"
    whole = segment.read_bytes()
    segment.write_bytes(whole + torn)
    ledger = Ledger(tmp_path)
    assert len(ledger) == 1
    # Readers change nothing: the line could be another process's, just being written.
    assert segment.read_bytes() == whole + torn
    ledger.append(record("b"))
    assert names(map(json.loads, segment.read_text().splitlines())) == ["a", "b"]


def test_a_segment_that_is_torn_from_its_start(tmp_path):
    (tmp_path / "000000.jsonl").write_text('{"key"')
    ledger = Ledger(tmp_path)
    ledger.append(record("a"))
    (line,) = (tmp_path / "000000.jsonl").read_text().splitlines()
    assert json.loads(line).items() > record("a").items()


@pytest.mark.parametrize("line", ["{", "[1]", '{"key": "b"}'])
def test_another_bad_line_is_an_error_that_says_where(tmp_path, line):
    Ledger(tmp_path).append(record("a"))
    size = (tmp_path / "000000.jsonl").stat().st_size
    with (tmp_path / "000000.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=rf"000000\.jsonl: the line at byte {size}"):
        Ledger(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"ledger .*file"):
        Ledger(tmp_path / "file" / "ledger")


def test_threads_share_a_ledger(tmp_path):
    ledger = Ledger(tmp_path)

    def work(name):
        for n in range(20):
            ledger.append(record(f"k{n}", by=name))

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledger) == 20
    assert len((tmp_path / "000000.jsonl").read_text().splitlines()) == 20


@pytest.mark.slow
def test_processes_share_a_ledger(tmp_path):
    workers = [start(tmp_path, 0, 40, name) for name in "ab"]
    for worker in workers:
        worker.communicate()
        assert worker.returncode == 0
    ledger = Ledger(tmp_path)
    assert sorted(names(ledger)) == sorted(f"k{n}" for n in range(40))
    assert len((tmp_path / "000000.jsonl").read_text().splitlines()) == 40


@pytest.mark.slow
def test_a_process_killed_while_it_appends(tmp_path):
    reported = []
    for round_number in range(3):
        first = 10_000 * round_number
        worker = start(tmp_path, first, first + 10_000, "killed")
        assert worker.stdout is not None
        # No particular moment is aimed at: appending is all that the process does.
        reported += [worker.stdout.readline().strip() for _ in range(20 + 7 * round_number)]
        os.kill(worker.pid, signal.SIGKILL)
        rest, _ = worker.communicate()
        reported += rest.split()
        assert worker.returncode == -signal.SIGKILL
    ledger = Ledger(tmp_path)
    # What the process was told is on disk is there; at most one record a kill more.
    keys = set(names(ledger))
    assert {f"k{n}" for n in reported} <= keys
    assert len(keys) <= len(reported) + 3
    assert all(r["result"]["text"] == "x" * 5000 for r in ledger)
    ledger.append(record("after"))
    assert Ledger(tmp_path).find(key("after")) == record("after")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"text": "right"', '"text": "wrong"', "doesn't have its SHA-256"),
        ('"name": "a"', '"name": "c"', "doesn't have its SHA-256"),
        ('"key": "', '"key": "0', "doesn't have its SHA-256"),
        ('"sha256": "', '"sha256": "0', "doesn't have its SHA-256"),
        ('"text"', '"t\\ud83d"', "not JSON: half of a surrogate pair"),
        ('"right"', "NaN", "not JSON: NaN"),
    ],
)
def test_a_changed_line_is_an_error_that_says_where(tmp_path, old, new, message):
    ledger = Ledger(tmp_path)
    for name in "ab":
        ledger.append(record(name, text="right"))
    path = tmp_path / "000000.jsonl"
    first, second = path.read_text().splitlines(keepends=True)
    path.write_text(second + first.replace(old, new))
    with pytest.raises(InputError, match=rf"the line at byte {len(second)}.*{message}.*remove"):
        Ledger(tmp_path)
    # One that opened it before notices too.
    path.write_text(first.replace(old, new) + second)
    with pytest.raises(InputError, match=rf"the line at byte 0.*{message}"):
        ledger.find(key("a"))


def test_lines_of_before_they_had_a_sum_are_held_to_their_key(tmp_path):
    path = tmp_path / "000000.jsonl"
    old = record("a", text="right")
    path.write_text(json.dumps(old) + "\n")
    assert Ledger(tmp_path).find(key("a")) == old
    path.write_text(json.dumps({**old, "name": "b"}) + "\n")
    with pytest.raises(InputError, match="its key isn't that of what was asked"):
        Ledger(tmp_path)


def test_keys_are_of_the_content_and_of_what_records_mean(monkeypatch):
    assert call_key({"a": 1, "b": "ä"}) == call_key({"b": "ä", "a": 1})
    assert call_key({"a": 1}) != call_key({"a": 2})
    key = call_key({"a": 1})
    # Records of another meaning aren't found.
    monkeypatch.setattr(ledger_module, "SCHEMA_VERSION", ledger_module.SCHEMA_VERSION + 1)
    assert call_key({"a": 1}) != key
    with pytest.raises(ValueError, match="Out of range"):
        call_key({"a": float("nan")})
