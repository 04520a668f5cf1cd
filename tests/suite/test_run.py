"""The whole job on a small random model: once in this process, once killed again and again."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from ioa_jax.errors import InputError
from suite import run as job
from suite.journal import read_journal, read_json
from suite.profile import load_profile
from suite.table import lines, markdown, summarize
from tests.suite.world import write_model, write_profile

CELLS = [
    "teacher", "undistilled-seed0", "sft-seed0", "sft-seed1", "staged-seed0", "staged-seed1",
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


def test_everything_is_recorded(finished):
    run = read_json(finished / "run.json")
    assert run["status"] == "complete"
    assert run["error"] is None
    assert run["environments"][0]["packages"]["jax"]
    teacher, student = run["models"]["teacher"], run["models"]["student"]
    assert student["parameters"] < teacher["parameters"]
    assert student["fingerprint"] != teacher["fingerprint"]
    assert run["sandbox"]["backend"].endswith("landlock+seccomp")
    assert len(run["tasks"]["seeds"]) == 24
    assert not set(run["tasks"]["seeds"]) & set(run["tasks"]["probes"])
    assert sorted(path.name for path in (finished / "cells").iterdir()) == sorted(CELLS)
    for cell in CELLS:
        probes = read_journal(finished / "cells" / cell / "probes.jsonl")
        assert {probe["id"] for probe in probes} == set(run["tasks"]["probes"])
        assert all(probe["logprob"] < 0 for probe in probes)
        problems = read_journal(finished / "cells" / cell / "humaneval.jsonl")
        assert len(problems) == 9
        assert all(problem["verdict"]["status"] for problem in problems)
        assert not (finished / "cells" / cell / "checkpoints").exists()


def test_gaps_are_those_of_the_recorded_probes_and_order_the_stages(finished):
    def logprobs(cell):
        records = read_journal(finished / "cells" / cell / "probes.jsonl")
        return {record["module"]: record["logprob_per_token"] for record in records}

    teacher, student = logprobs("teacher"), logprobs("undistilled-seed0")
    gaps = {gap["module"]: gap["logprob"] for gap in read_json(finished / "gaps.json")["modules"]}
    assert gaps == pytest.approx({m: teacher[m] - student[m] for m in teacher})
    stages = read_json(finished / "curriculum.json")["stages"]
    assert [len(stage) for stage in stages] == [4, 4, 4]
    order = [gaps[module] for stage in stages for module in stage]
    assert order == sorted(order)


def test_both_methods_learn_from_the_same_answers_for_the_same_number_of_tokens(finished):
    answers = read_journal(finished / "teacher.jsonl")
    assert len(answers) == 24
    spends = {
        cell: read_json(finished / "cells" / cell / "spend.json")
        for cell in CELLS
        if cell.startswith("s")
    }
    assert len(spends) == 4
    for spend in spends.values():
        assert spend == spends["sft-seed0"]
        assert spend["teacher_tokens"] == sum(answer["tokens"] for answer in answers)
        assert spend["unfinished_answers"] == sum(a["finish_reason"] == "length" for a in answers)
        assert spend["cut_examples"] == 0
    # Some answers end by themselves and some don't; both kinds are needed here.
    assert 0 < spends["sft-seed0"]["unfinished_answers"] < 24


def test_staged_trains_stage_by_stage(finished):
    steps = read_journal(finished / "cells" / "staged-seed0" / "train.jsonl")
    parts = [step["part"] for step in steps]
    assert parts == sorted(parts)
    assert set(parts) == {"stage1", "stage2", "stage3"}
    tokens = sum(step["tokens"] for step in steps)
    whole = read_journal(finished / "cells" / "sft-seed0" / "train.jsonl")
    assert {step["part"] for step in whole} == {"all"}
    assert tokens == sum(step["tokens"] for step in whole)
    assert tokens == read_json(finished / "cells" / "sft-seed0" / "spend.json")["student_tokens"]


def test_training_changes_the_student_and_seeds_differ(finished):
    rows = {row["method"]: row for row in read_json(finished / "table.json")["rows"]}
    assert list(rows) == ["teacher", "undistilled", "sft", "staged"]
    assert rows["undistilled"]["student_tokens"] == 0
    assert rows["sft"]["seeds"] == [0, 1]
    logprobs = [
        cell["probe_logprob"]
        for cell in read_json(finished / "table.json")["cells"]
        if cell["method"] != "teacher"
    ]
    assert len(set(logprobs)) == 5


def test_table_is_the_mean_of_the_records(finished):
    summary = read_json(finished / "table.json")
    assert summary["unfinished"] == []
    both = [
        record
        for seed in (0, 1)
        for record in read_journal(finished / "cells" / f"sft-seed{seed}" / "probes.jsonl")
    ]
    row = next(row for row in summary["rows"] if row["method"] == "sft")
    assert row["probe_rouge_l"] == pytest.approx(sum(r["rouge_l"] for r in both) / len(both))
    assert row["probe_logprob"] == pytest.approx(
        sum(r["logprob"] / r["tokens"] for r in both) / len(both)
    )
    assert row["humaneval_problems"] == 9
    text = (finished / "table.md").read_text()
    assert text == markdown(summary)
    assert f"| sft | {row['probe_logprob']:.3f} |" in text
    assert [line[0] for line in lines(summary)] == [
        "teacher (reference)", "undistilled", "sft", "staged",
    ]  # fmt: skip


def test_a_finished_run_is_not_done_again(finished):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*.jsonl")}
    assert job.run_job(finished) == summarize(finished)
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*.jsonl")} == before


def test_a_run_folder_is_made_once(finished):
    name, profile = load_profile(str(finished.parents[2] / "tiny.yaml"))
    with pytest.raises(InputError, match="--resume"):
        job.start_run(profile, name, finished.parents[1], finished.name)
    with pytest.raises(InputError, match="name of a folder"):
        job.start_run(profile, name, finished.parents[1], "../elsewhere")


def test_another_model_under_a_resumed_run_is_refused(world, finished, tmp_path):
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
    with job._lock(finished), pytest.raises(InputError, match="another process"):
        job.run_job(finished)


def test_not_a_run(tmp_path):
    with pytest.raises(InputError, match=r"run\.json"):
        job.run_job(tmp_path)


def start(world, *arguments):
    environment = {
        **os.environ,
        # Compiled once for all the processes of this test.
        "JAX_COMPILATION_CACHE_DIR": str(world / "jax"),
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
    ("cells/teacher/humaneval.jsonl", 3),
    ("teacher.jsonl", 6),
    ("cells/sft-seed0/train.jsonl", 5),
    ("cells/sft-seed0/probes.jsonl", 2),
    ("cells/staged-seed1/train.jsonl", 5),
    ("cells/staged-seed1/humaneval.jsonl", 5),
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
    for part in ("rows", "cells", "unfinished"):
        assert ours[part] == theirs[part]
    # Not only the means: every answer and every step is the same.
    for path in sorted(finished.rglob("*.jsonl")):
        if path.name == "seconds.jsonl":
            continue
        own = read_journal(directory / path.relative_to(finished))
        assert strip(own) == strip(read_journal(path)), path


def strip(records):
    """Records without what differs from run to run, in an order of their own."""
    clean = [
        {name: value for name, value in record.items() if "seconds" not in name}
        for record in records
    ]
    return sorted(json.dumps(record, sort_keys=True) for record in clean)
