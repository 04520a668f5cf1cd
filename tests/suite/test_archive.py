import gc
import gzip
import json
import lzma
import shutil
import subprocess
import sys
from pathlib import PurePosixPath

import pytest

from ioa_jax.errors import InputError
from ioa_jax.files import packed, read_json, write_json
from ioa_jax.journal import read_journal
from suite.archive import RunCells, archive_run
from suite.compare import compare_runs
from suite.report import write_report
from suite.report.answers import taught_of
from suite.results import read_run
from suite.verify import verify_run
from tests.suite.runs import change_lines, write_lines, write_run

# What goes on with a run that was stopped.
NOT_KEPT = (
    "ledger/calls.jsonl",
    "shared/ab/dependencies.json",
    "cells/ioa-seed0/seconds.jsonl",
    "cells/ioa-seed0/distill/diagnosis/answers.jsonl",
    "cells/ioa-seed0/distill/parts/stage-01/material.json",
    "cells/ioa-seed0/distill/states/plan.json",
    "cells/ioa-seed0/distill/measured/end.json",
    "cells/ioa-seed0/distill/retained.json",
    "cells/ioa-seed0/tasks/micro-math/seconds.jsonl",
)


@pytest.fixture
def run(tmp_path):
    directory = write_run(tmp_path / "run", items=200, seeds=(0, 1))
    for name in NOT_KEPT:
        write_lines(directory / name, [{"step": "a", "number": 1, "seconds": 0.5}])
    write_json(directory / "cells" / "ioa-seed0" / "distill" / "forms.json", {"choices": {}})
    write_lines(
        directory / "cells" / "ioa-seed0" / "distill" / "rejects.jsonl",
        [{"reason": "schema", "raw": "x" * 50}] * 100,
    )
    write_report(directory)
    return directory


def files(directory):
    found = (path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    return {str(path) for path in found}


def test_an_archive_of_scores_gives_the_tables_and_says_what_it_lacks(run, tmp_path):
    whole, output = tmp_path / "whole", tmp_path / "archive"
    archive_run(run, whole)
    archive_run(run, output, evidence=False)
    assert files(output) == files(whole)
    all_cells, cells = RunCells(whole), RunCells(output)
    left = files(all_cells.path) - files(cells.path)
    assert {PurePosixPath(name).name for name in left} == {
        "train.jsonl",
        "teacher.jsonl",
        "rejects.jsonl",
    }
    found = verify_run(output, None)
    assert (found.findings, found.tables) == ((), 4)
    assert any("teacher_tokens" in line and "taken on trust" in line for line in found.skipped)
    before = (output / "table.md").read_bytes()
    write_report(output)
    assert (output / "table.md").read_bytes() == before


def test_an_archive_reads_as_the_run(run, tmp_path):
    output = tmp_path / "archive"
    archive_run(run, output)
    assert files(run) - files(output) >= set(NOT_KEPT)
    # What people read stays as it is; the cells are one file.
    plain = {name for name in files(run) if not name.startswith("cells/")} - set(NOT_KEPT)
    assert files(output) == plain | {"records.jsonl.xz"}
    for name in plain:
        assert (output / name).read_bytes() == (run / name).read_bytes()
    cells = RunCells(output)
    kept = {name.removeprefix("cells/") for name in files(run) - set(NOT_KEPT) - plain}
    assert files(cells.path) == kept
    for name in kept:
        read = read_journal if name.endswith(".jsonl") else read_json
        assert read(cells.path / name) == read(run / "cells" / name)
    found = verify_run(output, None)
    assert (found.findings, found.tables) == ((), 4)
    # The diagnosis is there and counted, so that nothing of the tokens is taken on trust.
    assert found.spends == len(read_run(run).cells)
    assert compare_runs(run, output).consistent
    before = {name: (run / name).read_bytes() for name in ("table.md", "report.html")}
    write_report(output)
    assert {name: (output / name).read_bytes() for name in before} == before


def test_a_form_of_archive_with_each_file_compressed_is_read(run, tmp_path):
    for path in sorted((run / "cells").rglob("scores.jsonl")):
        packed(path).write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert verify_run(run, None).findings == ()
    archive_run(run, tmp_path / "archive")
    assert verify_run(tmp_path / "archive", None).findings == ()


def test_any_text_survives_an_archive(run, tmp_path):
    # Python's splitlines would cut at the first five.
    rejects = [{"raw": "a\u2028b\x0cc\x85d\u2029e\rf\u0000g é 中 😀"}, {"raw": ""}]
    write_lines(run / "cells" / "ioa-seed0" / "distill" / "rejects.jsonl", rejects)
    (run / "cells" / "ioa-seed1" / "distill" / "rejects.jsonl").write_text("")
    archive_run(run, tmp_path / "archive")
    cells = RunCells(tmp_path / "archive")
    assert read_journal(cells.path / "ioa-seed0" / "distill" / "rejects.jsonl") == rejects
    assert (cells.path / "ioa-seed1" / "distill" / "rejects.jsonl").read_bytes() == b""


def test_the_temporary_folder_goes_with_the_run(run, tmp_path):
    archive_run(run, tmp_path / "archive")
    result = read_run(tmp_path / "archive")
    folder = result.files.path
    assert folder.is_dir()
    del result
    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"cell": "../x", "file": "scores.jsonl", "record": {}}, "line 1: not a record"),
        ({"cell": "x", "file": "/tmp/scores.jsonl", "record": {}}, "line 1: not a record"),
        ({"cell": "x", "file": "scores.sh", "record": {}}, "line 1: not a record"),
        ({"cell": "x", "file": "cell.json"}, "line 1: not a record"),
        ({"cell": 3, "file": "cell.json", "value": 1}, "line 1: not a record"),
        ([], "line 1: not a record"),
    ],
)
def test_nothing_is_written_outside_of_the_cells(run, tmp_path, line, message):
    archive_run(run, tmp_path / "archive")
    packed_line = lzma.compress(json.dumps(line).encode() + b"\n")
    (tmp_path / "archive" / "records.jsonl.xz").write_bytes(packed_line)
    with pytest.raises(InputError, match=rf"records\.jsonl\.xz: {message}"):
        read_run(tmp_path / "archive")


def test_a_broken_archive_is_named(run, tmp_path):
    archive_run(run, tmp_path / "archive")
    path = tmp_path / "archive" / "records.jsonl.xz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"records\.jsonl\.xz: "):
        read_run(tmp_path / "archive")
    path.unlink()
    (tmp_path / "archive" / "cells").mkdir()
    assert read_run(tmp_path / "archive").cells == ()
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"both cells/ and records\.jsonl\.xz"):
        read_run(tmp_path / "archive")


def test_a_change_in_an_archive_is_found(run, tmp_path):
    change_lines(
        run / "cells" / "sft-seed1" / "scores.jsonl",
        lambda line: {**line, "score": 0.0} if line["id"] == "micro-instruct-001" else line,
    )
    cell = run / "cells" / "sft-seed0" / "cell.json"
    record = read_json(cell)
    record["spend"]["student_tokens"] += 1
    write_json(cell, record)
    archive_run(run, tmp_path / "archive")
    findings = verify_run(tmp_path / "archive", None).findings
    assert any("rows[sft]" in line for line in findings)
    # By where it stands, not by the folder into which it was unpacked.
    packed_file = f"{tmp_path}/archive/records.jsonl.xz"
    assert any(line.startswith(f"{packed_file}: sft-seed0/cell.json: spend") for line in findings)


def curves_of(folder):
    return [cell.curve for cell in read_run(folder).cells]


def course_of(folder):
    return [one.run for one in taught_of(read_run(folder), "ioa")]


def archive_again(folder):
    archive_run(folder, folder.with_name("again"))


def change_archive(folder, change):
    """Write the records of an archive anew, each as `change` has it."""
    path = folder / "records.jsonl.xz"
    rows = [
        json.loads(line) for line in lzma.decompress(path.read_bytes()).decode().split("\n")[:-1]
    ]
    text = "".join(json.dumps(change(row)) + "\n" for row in rows)
    path.write_bytes(lzma.compress(text.encode()))


@pytest.fixture(scope="module")
def small_archive(tmp_path_factory):
    """Without a report, which takes long to make."""
    folder = tmp_path_factory.mktemp("small")
    write_run(folder / "run", items=3, seeds=(0, 1))
    archive_run(folder / "run", folder / "archive")
    return folder / "archive"


@pytest.mark.parametrize(
    ("file", "changes", "message", "read"),
    [
        ("cell.json", {"status": "lost"}, "cell.json: field 'status'", read_run),
        ("cell.json", {"seed": 5}, "cell.json: is of method 'ioa' and seed 5", read_run),
        ("scores.jsonl", {"score": "x"}, "scores.jsonl:1: field 'score'", read_run),
        ("curve.jsonl", {"score": "x"}, "curve.jsonl:1: field 'score'", curves_of),
        ("distill/record.json", {"parked": 3}, "distill/record.json: field 'parked'", course_of),
        ("distill/gates.jsonl", {"stage": {}}, "distill/gates.jsonl:1: ", course_of),
        ("cell.json", {"status": "lost"}, "cell.json: field 'status'", archive_again),
    ],
)
def test_what_does_not_fit_is_named_by_where_it_stands(
    small_archive, tmp_path, file, changes, message, read
):
    shutil.copytree(small_archive, tmp_path / "archive")

    def change(row):
        field = "value" if "value" in row else "record"
        fits = (row["cell"], row["file"]) == ("ioa-seed1", file)
        return {**row, field: {**row[field], **changes}} if fits else row

    change_archive(tmp_path / "archive", change)
    with pytest.raises(InputError) as told:
        read(tmp_path / "archive")
    start = f"{tmp_path}/archive/records.jsonl.xz: ioa-seed1/{message}"
    assert str(told.value).startswith(start)
    assert "ioa-run-" not in str(told.value)


def test_records_of_a_file_that_stand_apart_are_named(small_archive, tmp_path):
    shutil.copytree(small_archive, tmp_path / "archive")
    path = tmp_path / "archive" / "records.jsonl.xz"
    text = lzma.decompress(path.read_bytes())
    path.write_bytes(lzma.compress(text + text[: text.index(b"\n") + 1]))
    with pytest.raises(
        InputError, match=r"records\.jsonl\.xz: .*: its records don't stand together"
    ):
        read_run(tmp_path / "archive")


def test_an_archive_of_an_archive_is_the_same(run, tmp_path):
    archive_run(run, tmp_path / "a")
    archive_run(tmp_path / "a", tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    for name in files(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_only_a_complete_run_is_archived_and_into_a_new_folder(run, tmp_path):
    with pytest.raises(InputError, match="exists"):
        archive_run(run, run)
    record = read_json(run / "run.json")
    write_json(run / "run.json", {**record, "status": "interrupted"})
    with pytest.raises(InputError, match=r"run: its status in run\.json isn't 'complete'"):
        archive_run(run, tmp_path / "a")
    write_json(run / "run.json", record)
    path = run / "cells" / "sft-seed0" / "cell.json"
    path.write_text(json.dumps(read_json(path) | {"status": "lost"}))
    with pytest.raises(InputError, match=r"cell\.json: field 'status'"):
        archive_run(run, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_by_the_command(run, tmp_path):
    def suite(*arguments):
        command = [sys.executable, "-m", "suite", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    made = suite("archive", run, "--output", tmp_path / "a")
    assert made.returncode == 0, made.stderr
    assert suite("verify", tmp_path / "a", "--tables-only").returncode == 0
    again = suite("archive", run, "--output", tmp_path / "a")
    assert again.returncode == 2
    assert "name another --output" in again.stderr
