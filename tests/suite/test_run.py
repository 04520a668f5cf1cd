"""The whole job on a small random model: once in this process, once killed again and again."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from ioa_jax.errors import InputError
from ioa_jax.files import locked, read_json
from ioa_jax.journal import read_journal
from suite import run as job
from suite.data import DataSource
from suite.merge import merge_runs
from suite.methods.base import MethodResult
from suite.methods.registry import load_method
from suite.models import find_spec
from suite.profile_files import load_profile
from suite.schema import check_run_folder
from suite.table import lines, summarize
from suite.verify import verify_run
from tests.suite.world import write_model, write_profile

CELLS = [
    "teacher", "undistilled", "sft-seed0", "sft-seed1", "sft_matched-seed0", "sft_matched-seed1",
]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_model(folder / "model")
    write_profile(folder / "tiny.yaml", folder / "model")
    return folder


@pytest.fixture(scope="module")
def finished(world):
    """A run that nothing interrupted."""
    name, profile = load_profile(str(world / "tiny.yaml"))
    directory = job.start_run(profile, name, world / "results", "whole")
    job.run_job(directory)
    return directory


def cell(directory, name):
    return read_json(directory / "cells" / name / "cell.json")


def scores(directory, name):
    return read_journal(directory / "cells" / name / "scores.jsonl")


def test_everything_is_recorded(finished):
    run = read_json(finished / "run.json")
    assert (run["version"], run["status"], run["error"]) == (3, "complete", None)
    assert run["environments"][0]["packages"]["jax"]
    teacher, student = run["models"]["teacher"], run["models"]["student"]
    assert student["parameters"] < teacher["parameters"]
    assert student["fingerprint"] not in teacher["fingerprint"]
    assert run["sandbox"]["backend"].endswith("landlock+seccomp")
    seeds, probes = run["seed_items"]["seeds"], run["seed_items"]["probes"]
    assert (len(seeds), len(probes)) == (24, 12)
    assert not set(seeds) & set(probes)
    tasks = {task["name"]: task for task in run["tasks"]}
    assert {name: (t["metric"], t["items"]) for name, t in tasks.items()} == {
        "humaneval": ("pass@1", 9),
        "probes": ("score", 12),
    }
    assert tasks["humaneval"]["provenance"][0]["rows_sha256"]
    assert sorted(path.name for path in (finished / "cells").iterdir()) == sorted(CELLS)
    for name in CELLS:
        record = cell(finished, name)
        assert (record["status"], record["error"]) == ("complete", None)
        rows = scores(finished, name)
        own = [row for row in rows if row["task"] == "probes"]
        assert {row["id"] for row in own} == set(probes)
        assert all(row["logprob"] < 0 and row["module"] for row in own)
        assert sum(row["task"] == "humaneval" for row in rows) == 9
        assert all(0 <= row["score"] <= 1 for row in rows)
        assert not (finished / "cells" / name / "checkpoints").exists()


def test_budgets_hold_and_are_used(finished):
    for name in CELLS[2:]:
        spend = cell(finished, name)["spend"]
        steps = read_journal(finished / "cells" / name / "train.jsonl")
        assert spend["student_tokens"] == sum(step["tokens"] for step in steps)
        # Not more than the budget, and less by no more than an example.
        assert 6000 - 256 < spend["student_tokens"] <= 6000
        assert spend["steps"] == len(steps)
        assert spend["student_tokens_by_part"] == {"all": spend["student_tokens"]}
        assert set(spend["seconds"]) == {"training", "curve", "method", "evaluation"}
        assert spend["by_purpose"]["answer"]["completion_tokens"] == spend["teacher_tokens"] <= 1000
    sft = cell(finished, "sft-seed0")["spend"]
    matched = cell(finished, "sft_matched-seed0")
    assert sft["teacher_requests"] == 24
    assert matched["notes"]["rounds"] > 1
    assert matched["spend"]["teacher_tokens"] > 2 * sft["teacher_tokens"]
    assert cell(finished, "undistilled")["spend"]["student_tokens"] == 0


def test_cells_share_the_ledger_but_count_alike(finished):
    from ioa_jax.teachers.ledger import Ledger

    spends = [cell(finished, name)["spend"] for name in CELLS[2:]]
    calls = len(Ledger(finished / "ledger"))
    # The first round of sft_matched is what sft asks for; the two seeds share nothing.
    assert calls == sum(spend["teacher_requests"] for spend in spends) - 2 * 24


def test_points_of_the_curve(finished):
    for name in CELLS[2:]:
        points = read_journal(finished / "cells" / name / "curve.jsonl")
        assert [point["task"] for point in points] == ["humaneval", "probes"] * 2
        tokens = sorted({point["student_tokens"] for point in points})
        assert [int(t // 2000) for t in tokens] == [1, 2]
        assert all(point["items"] == 3 and point["teacher_tokens"] > 0 for point in points)


def test_training_changes_the_student_and_seeds_differ(finished):
    values = [
        tuple(row["logprob"] for row in scores(finished, name) if row["logprob"] is not None)
        for name in CELLS[1:]
    ]
    assert len(set(values)) == 5


def test_table_is_the_mean_of_the_records(finished):
    summary = summarize(finished)
    assert (summary["unfinished"], summary["failed"]) == ([], {})
    row = next(row for row in summary["rows"] if row["method"] == "sft")
    assert row["seeds"] == [0, 1]
    both = [r for name in ("sft-seed0", "sft-seed1") for r in scores(finished, name)]
    for task in ("humaneval", "probes"):
        values = [r["score"] for r in both if r["task"] == task]
        assert row["scores"][task] == pytest.approx(sum(values) / len(values))
    logprobs = [r["logprob"] for r in both if r["task"] == "probes"]
    assert row["logprob"] == pytest.approx(sum(logprobs) / len(logprobs))
    table = read_json(finished / "table.json")
    written = next(row for row in table["rows"] if row["method"] == "sft")
    for task, mean in row["scores"].items():
        assert written["scores"][task]["mean"] == pytest.approx(mean)
    assert [line[0] for line in lines(summary)] == [
        "teacher (reference)", "undistilled", "sft", "sft_matched",
    ]  # fmt: skip


def test_the_report_fits_the_records(finished):
    check_run_folder(finished)
    found = verify_run(finished, DataSource())
    assert found.findings == ()
    # Of six cells, with humaneval's 9 items and 12 probes each, and of curves; four tables.
    assert (found.texts, found.scores, found.spends, found.tables) == (6 * 21 + 48, 6 * 21, 6, 4)
    assert found.skipped == ()
    assert "sft_matched" in (finished / "report.html").read_text()


def test_a_finished_run_is_not_done_again(finished):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*.jsonl")}
    assert job.run_job(finished) == summarize(finished)
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*.jsonl")} == before
    assert read_json(finished / "run.json")["tasks"][0]["metric"] == "pass@1"


def test_a_run_folder_is_made_once(finished):
    name, profile = load_profile(str(finished.parents[2] / "tiny.yaml"))
    with pytest.raises(InputError, match="--resume"):
        job.start_run(profile, name, finished.parents[1], finished.name)
    with pytest.raises(InputError, match="name of a folder"):
        job.start_run(profile, name, finished.parents[1], "../elsewhere")


@pytest.mark.parametrize("part", ["teacher", "student"])
def test_a_model_that_the_profile_does_not_pin_is_refused(world, part):
    pin = f"{part}.fingerprint=no-such-model"
    name, profile = load_profile(str(world / "tiny.yaml"), [pin])
    directory = job.start_run(profile, name, world / "results", f"pinned-{part}")
    with pytest.raises(InputError, match=f"setting '{part}.fingerprint' pins no-such-model"):
        job.run_job(directory)
    assert read_json(directory / "run.json")["status"] == "failed"


def test_a_model_that_the_world_does_not_have_is_refused():
    with pytest.raises(InputError, match="'micro:nobody': the embedded world has"):
        find_spec("micro:nobody")
    assert find_spec("smollm2") == "smollm2"


def test_another_model_under_a_resumed_run_is_refused(finished, tmp_path):
    directory = tmp_path / "run"
    directory.mkdir()
    run = read_json(finished / "run.json")
    run["models"]["teacher"]["fingerprint"] = "0" * 64
    (directory / "run.json").write_text(json.dumps(run))
    with pytest.raises(InputError, match="models have changed"):
        job.run_job(directory)
    assert read_json(directory / "run.json")["status"] == "failed"
    assert "models have changed" in read_json(directory / "run.json")["error"]


def test_two_processes_do_not_share_a_run(finished):
    with locked(finished), pytest.raises(InputError, match="another process"):
        job.run_job(finished)


def test_not_a_run(tmp_path):
    with pytest.raises(InputError, match=r"run\.json"):
        job.run_job(tmp_path)


def test_a_failed_cell_is_reported_tried_again_and_does_not_stop_the_others(
    world, finished, monkeypatch
):
    name, profile = load_profile(
        str(world / "tiny.yaml"), ["methods=[sft, undistilled]", "seeds=[0]", "curve.points=0"]
    )
    directory = job.start_run(profile, name, world / "results", "failing")

    def fail(context):
        raise ValueError("no luck")

    monkeypatch.setattr(load_method("sft"), "run", fail, raising=False)
    summary = job.run_job(directory)
    assert summary["failed"] == {"sft-seed0": "ValueError: no luck"}
    assert [row["method"] for row in summary["rows"]] == ["teacher", "undistilled"]
    assert "sft-seed0, failed: ValueError: no luck" in (directory / "table.md").read_text()
    run = read_json(directory / "run.json")
    assert (run["status"], run["error"]) == ("failed", "these cells failed: sft-seed0")

    def tell_nonsense(context):
        return MethodResult(context.student, {"sweep": "all of it"})

    monkeypatch.setattr(load_method("sft"), "run", tell_nonsense, raising=False)
    (error,) = job.run_job(directory)["failed"].values()
    assert "cells/sft-seed0/cell.json: field 'notes.sweep'" in error
    monkeypatch.undo()
    assert job.run_job(directory)["failed"] == {}
    assert read_json(directory / "run.json")["status"] == "complete"
    # The same cell as in a run of other cells.
    assert scores(directory, "sft-seed0") == scores(finished, "sft-seed0")


@pytest.mark.slow
def test_shares_make_the_same_run_and_are_joined(world, finished):
    from suite.cells import Share

    name, profile = load_profile(str(world / "tiny.yaml"))
    parts = []
    for index in (1, 2):
        share = Share(index, 2)
        directory = job.start_run(profile, name, world / "results", f"part{index}", share)
        summary = job.run_job(directory)
        assert 0 < len(summary["unfinished"]) < len(CELLS)
        parts.append(directory)
    joined = merge_runs(parts, world / "results" / "tiny" / "joined")
    whole = summarize(finished)
    for part in ("rows", "cells", "unfinished", "failed"):
        assert joined[part] == whole[part]
    run = read_json(world / "results" / "tiny" / "joined" / "run.json")
    assert (run["status"], run["share"], run["merged"]) == ("complete", None, ["part1", "part2"])
    # Nothing is left to do in it, and the ledger answers what any cell asked.
    assert job.run_job(world / "results" / "tiny" / "joined")["cells"] == joined["cells"]

    with pytest.raises(InputError, match="is complete in"):
        merge_runs([parts[0], finished], world / "results" / "tiny" / "twice")
    other = read_json(parts[1] / "run.json")
    (parts[1] / "run.json").write_text(json.dumps(other | {"settings_sha256": "0" * 64}))
    with pytest.raises(InputError, match=r"'settings_sha256': .*one of the two was changed"):
        merge_runs(parts, world / "results" / "tiny" / "mixed")


def start(world, *arguments):
    environment = {
        **os.environ,
        # Compiled once for all the processes of this test, at the most.
        "JAX_COMPILATION_CACHE_DIR": os.environ.get(
            "JAX_COMPILATION_CACHE_DIR", str(world / "jax")
        ),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    log = (world / "killed.log").open("ab")
    with log:
        return subprocess.Popen(
            [sys.executable, "-m", "suite", "run", *arguments],
            env=environment,
            stdout=log,
            stderr=log,
        )


# What has to be there when the next kill comes: a file and its number of lines.
KILLS = [
    ("cells/teacher/tasks/humaneval/verdicts.jsonl", 3),
    ("cells/sft-seed0/teacher.jsonl", 6),
    ("cells/sft-seed0/train.jsonl", 5),
    ("cells/sft-seed0/curve.jsonl", 3),
    ("cells/sft_matched-seed1/train.jsonl", 5),
    ("cells/sft_matched-seed1/tasks/humaneval/texts.jsonl", 5),
]


@pytest.mark.slow
def test_a_run_killed_again_and_again_gives_the_same_table(world, finished):
    directory = world / "results" / "tiny" / "killed"
    arguments = ["--profile", str(world / "tiny.yaml"), "--output", str(world / "results")]
    arguments += ["--run-id", "killed"]
    killed = 0
    for name, count in KILLS:
        process = start(world, *arguments)
        deadline = time.monotonic() + 300
        while process.poll() is None and len(read_journal(directory / name)) < count:
            assert time.monotonic() < deadline, (world / "killed.log").read_text()
            time.sleep(0.002)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        assert process.wait() == -signal.SIGKILL, (world / "killed.log").read_text()
        assert read_json(directory / "run.json")["status"] == "running"
        arguments = ["--resume", str(directory)]
    assert killed == len(KILLS)
    assert start(world, *arguments).wait() == 0, (world / "killed.log").read_text()
    ours, theirs = read_json(directory / "table.json"), read_json(finished / "table.json")
    for part in ("rows", "comparisons", "unfinished"):
        assert ours[part] == theirs[part]
    for name in CELLS:
        for file in ("scores.jsonl", "curve.jsonl", "train.jsonl"):
            place = f"cells/{name}/{file}"
            own, other = read_journal(directory / place), read_journal(finished / place)
            assert strip(own) == strip(other), place


def strip(records):
    """Records without what differs from run to run, in an order of their own."""
    clean = [
        {name: value for name, value in record.items() if "seconds" not in name}
        for record in records
    ]
    return sorted(json.dumps(record, sort_keys=True) for record in clean)


@pytest.mark.slow
def test_two_workers_leave_what_one_leaves(world, finished):
    name, profile = load_profile(str(world / "tiny.yaml"))
    directory = job.start_run(profile, name, world / "results", "workers")
    summary = job.run_job(directory, jobs=2)
    assert summary["failed"] == {}
    assert (directory / "workers/2.log").is_file()
    assert read_json(directory / "run.json")["status"] == "complete"
    check_run_folder(directory)
    mine, theirs = (summarize(one) for one in (directory, finished))
    assert [row["method"] for row in mine["rows"]] == [row["method"] for row in theirs["rows"]]
    for method in CELLS:
        one, other = (cell(folder, method) for folder in (directory, finished))
        assert one["status"] == "complete"
        for figure in ("teacher_tokens", "student_tokens", "steps"):
            assert one["spend"][figure] == other["spend"][figure]
        # Products that other numbers of threads share out are rounded otherwise.
        pairs = zip(scores(directory, method), scores(finished, method), strict=True)
        for row, expected in pairs:
            assert row["id"] == expected["id"]
            if row["task"] == "probes":
                assert row["logprob"] == pytest.approx(expected["logprob"], abs=0.05)
