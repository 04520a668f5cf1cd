import json
import math
import re
import shutil
import subprocess
import sys

import pytest

from ioa_jax.errors import InputError
from ioa_jax.files import read_json, write_json
from ioa_jax.journal import read_journal
from ioa_jax.teachers.ledger import Ledger, call_key
from suite.compare import DIFFERENT
from suite.data import DataSource
from suite.grading import as_json
from suite.probes import PROBES, SeedGrader, load_seed_items
from suite.profile_files import load_profile
from suite.report import write_report
from suite.run import run_job
from suite.schema import check_run_folder
from suite.table import summarize
from suite.tasks.base import MetricValues
from suite.tasks.seeds import SEED_TASKS
from suite.verify import mean_by_item, verify_run
from tests.suite.runs import change_lines, change_settings, write_lines, write_run
from tests.suite.world import write_profile

CELLS = ("teacher", "undistilled")


@pytest.fixture
def run(tmp_path):
    """Reported, without texts."""
    directory = write_run(tmp_path / "a", items=12, seeds=(0, 1), distill=False)
    write_report(directory)
    return directory


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """With all that a run leaves but texts."""
    directory = write_run(tmp_path_factory.mktemp("full") / "a", items=4, seeds=(0,))
    write_report(directory)
    return directory


def cut(path):
    path.write_text(path.read_text()[:-20])


def drop_stages(path):
    write_json(path, {**read_json(path), "stages": "none"})


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The teacher's answers to 12 probes: some are the references, some aren't."""
    import dataclasses

    folder = tmp_path_factory.mktemp("graded")
    write_profile(folder / "tiny.yaml", folder / "model", tasks=[], methods=["undistilled"])
    _, profile = load_profile(str(folder / "tiny.yaml"))
    directory = write_run(folder / "a", tasks=(PROBES,), effects={"undistilled": 0.0})
    change_settings(directory, lambda own: own.update(profile.model_dump(mode="json")))
    probes = load_seed_items(profile.seed_items, DataSource()).probes
    with SeedGrader(probes, profile.sandbox) as grader:
        for cell in CELLS:
            texts, verdicts, scores = [], [], []
            for i, probe in enumerate(probes):
                text = probe.reference if i % 2 else "I don't know."
                verdict = grader.grade(probe.item(), text)
                key = {"id": probe.id, "sample": 0}
                texts.append({**key, "text": text})
                verdicts.append({**key, "verdict": as_json(dataclasses.asdict(verdict))})
                scores.append({"task": PROBES, "id": probe.id, "score": verdict.score})
            place = directory / "cells" / cell
            write_lines(place / "tasks" / PROBES / "texts.jsonl", texts)
            write_lines(place / "tasks" / PROBES / "verdicts.jsonl", verdicts)
            write_lines(place / "scores.jsonl", scores)
    write_report(directory)
    return directory


def test_tables_that_were_just_written_agree(run):
    found = verify_run(run, None)
    assert found.findings == ()
    assert (found.texts, found.spends, found.tables) == (0, 10, 4)
    assert found.skipped == ("texts, since only the tables were asked for",)


def test_a_changed_record_shows_in_every_table(run):
    change_lines(
        run / "cells" / "ioa-seed0" / "scores.jsonl",
        lambda line: {**line, "score": 0.0} if line["id"] == "micro-instruct-001" else line,
    )
    found = "\n".join(verify_run(run, None).findings)
    assert "table.json: rows[ioa].scores.micro-instruct.mean: " in found
    assert "comparisons[sft, micro-instruct].difference.mean" in found
    assert "rows[sft].scores" not in found
    for name in ("table.md", "table.csv", "table.tex"):
        assert f"{name}: isn't what the records give" in found


def test_a_changed_table_is_found(run):
    table = read_json(run / "table.json")
    table["rows"][0]["scores"]["micro-math"]["mean"] += 0.01
    write_json(run / "table.json", table)
    (finding,) = verify_run(run, None).findings
    assert "rows[teacher].scores.micro-math.mean" in finding


def test_the_figures_of_an_earlier_table_are_looked_at(run):
    table = read_json(run / "table.json")
    for field in ("modules", "deficient_modules", "deficient_below", "module_comparisons", "power"):
        del table[field]
    for row in (*table["rows"], *table["sweeps"]):
        del row["modules"]
    # What it had of McNemar's test over two seeds.
    for one in table["comparisons"]:
        one["difference"]["p_mcnemar"] = one["p_mcnemar_holm"] = 0.01
    table["version"] = 3
    write_json(run / "table.json", table)
    (run / "table.md").write_text("other words")
    found = verify_run(run, None)
    assert (found.findings, found.tables) == ((), 1)
    assert "table.md, table.csv, table.tex: their words are of version 3" in found.skipped[-1]
    check_run_folder(run)
    table["comparisons"][0]["p_bootstrap_holm"] = 0.7
    write_json(run / "table.json", table)
    (finding,) = verify_run(run, None).findings
    assert "p_bootstrap_holm: 0.7, but " in finding
    write_report(run)
    assert read_json(run / "table.json")["version"] == 4
    assert verify_run(run, None).tables == 4


def test_methods_that_there_no_longer_are_do_not_keep_texts_from_being_graded(graded, tmp_path):
    run = shutil.copytree(graded, tmp_path / "a")

    def change(settings):
        settings["methods"] += ["gone", "ioa@organizer.gone=1"]
        settings["options"] = {"organizer": {"gone": 1}}

    change_settings(run, change)
    found = verify_run(run, DataSource())
    assert found.texts == 24
    # The table lacks their cells, and nothing else differs.
    assert all("unfinished" in line or "table." in line for line in found.findings)
    seeds = read_json(run / "run.json")["settings"]["seeds"]
    assert len(summarize(run)["unfinished"]) == 2 * len(seeds)


def test_a_run_neither_names_files_to_read_nor_loosens_the_sandbox(graded, tmp_path):
    run = shutil.copytree(graded, tmp_path / "a")
    own = tmp_path / "seeds.jsonl"
    shutil.copyfile(SEED_TASKS, own)

    def change(settings):
        settings["seed_items"]["source"] = str(tmp_path / "not read")
        settings["sandbox"]["allow_weak"] = True

    change_settings(run, change)
    write_report(run)
    found = verify_run(run, DataSource())
    assert (found.texts, found.findings) == (0, ())
    assert any("isn't read on its word; name yours by --seeds" in line for line in found.skipped)
    assert any("settings.sandbox: " in line for line in found.skipped)
    assert verify_run(run, DataSource(), seeds=own).texts == 24


def break_line(change):
    """Changes the second line of a file, as text."""

    def damage(path):
        first, second, *rest = path.read_text().splitlines(keepends=True)
        path.write_text("".join([first, change(second), *rest]))

    return damage


def with_fields(**changes):
    def change(line):
        record = json.loads(line)
        return json.dumps({**record, **changes}) + "\n"

    return break_line(change)


CALL = {"calls": 1, "prompt_tokens": 1, "completion_tokens": -400, "cost": None}
BROKEN = {
    "a curve without figures": ("sft-seed0/curve.jsonl", with_fields(score=math.nan), "NaN is no"),
    "a curve above all": ("sft-seed0/curve.jsonl", with_fields(score=7), "field 'score'"),
    "a point twice": ("sft-seed0/curve.jsonl", break_line(lambda line: line * 2), "occurs twice"),
    "tokens that were paid back": (
        "sft-seed0/teacher.jsonl", with_fields(usage=CALL), "field 'usage.completion_tokens'"
    ),
    "half a call": ("sft-seed0/teacher.jsonl", break_line(lambda line: line[:30] + "\n"), "not JS"),
    "a step backwards": ("sft-seed0/train.jsonl", with_fields(tokens=-5), "field 'tokens'"),
    "an endless step": ("sft-seed0/train.jsonl", with_fields(seconds=math.inf), "Infinity is no"),
    "an answer without text": (
        "sft-seed0/curve/15000/micro-math/texts.jsonl", with_fields(text=None), "field 'text'"
    ),
    "a broken decision": ("ioa-seed0/distill/record.json", cut, "not JSON"),
    "a broken gate": ("ioa-seed0/distill/gates.jsonl", with_fields(stage={}), "gates.jsonl:2"),
    "a stage of nothing": ("ioa-seed0/distill/retention.json", drop_stages, "retention.json: "),
}  # fmt: skip


@pytest.mark.parametrize(("name", "damage", "told"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_named_whatever_is_made_of_it(full, tmp_path, name, damage, told):
    run = shutil.copytree(full, tmp_path / "a")
    damage(run / "cells" / name)
    found = verify_run(run, None)
    (finding, *_) = found.findings
    assert finding.startswith(f"{run / 'cells' / name}:")
    assert told in finding
    assert "what follows from the files, until these are mended" in found.skipped


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("scores.jsonl", {"score": 7}, "scores.jsonl:2: field 'score'"),
        ("scores.jsonl", {"score": -1}, "scores.jsonl:2: field 'score'"),
        ("scores.jsonl", {"score": math.nan}, "scores.jsonl:2: not JSON: NaN"),
        ("scores.jsonl", {"logprob": 7}, "scores.jsonl:2: field 'logprob'"),
        ("cell.json", {"seconds": {"method": -1}}, "cell.json: field 'spend.seconds.method'"),
        ("cell.json", {"teacher_tokens": -1}, "cell.json: field 'spend.teacher_tokens'"),
    ],
)
def test_figures_that_cant_be_are_in_no_table(full, tmp_path, name, changes, told):
    run = shutil.copytree(full, tmp_path / "a")
    path = run / "cells" / "sft-seed0" / name
    if name == "cell.json":
        record = read_json(path)
        write_json(path, {**record, "spend": {**record["spend"], **changes}})
    else:
        with_fields(**changes)(path)
    for read in (summarize, lambda run: verify_run(run, None)):
        with pytest.raises(InputError, match=re.escape(told)):
            read(run)


def test_changed_settings_are_those_of_no_run(run):
    record = read_json(run / "run.json")
    record["settings"]["train"]["learning_rate"] = 0.5
    write_json(run / "run.json", record)
    for read in (summarize, lambda run: verify_run(run, None), run_job):
        with pytest.raises(InputError, match=r"run\.json: field 'settings_sha256': .*was changed"):
            read(run)


def test_a_flipped_bit_in_a_ledger_is_found(run):
    ledger = Ledger(run / "ledger")
    content = {"kind": "test", "model": "m"}
    ledger.append({"key": call_key(content), **content, "result": {"text": "5 apples"}})
    path = run / "ledger" / "000000.jsonl"
    assert verify_run(run, None).files.read["ledger/[0-9]*.jsonl"] == 1
    path.write_text(path.read_text().replace("5 apples", "4 apples"))
    (finding,) = verify_run(run, None).findings
    assert finding.startswith(f"{path}:1 was changed: ")


def test_every_file_is_read_or_named(full, tmp_path):
    run = shutil.copytree(full, tmp_path / "a")
    (run / "cells" / "sft-seed0" / "notes.txt").write_text("?")
    (run / "more.csv").write_text("?")
    files = verify_run(run, None).files
    unknown = files.others["no files of a run"]
    assert unknown == ("cells/sft-seed0/notes.txt", "more.csv")
    named = sum(map(len, files.others.values()))
    there = sum(path.is_file() for path in run.rglob("*"))
    # The tables are made again.
    assert sum(files.read.values()) + named + 3 == there
    assert files.read["cell.json"] == len(list(run.glob("cells/*/cell.json")))


def test_the_last_bits_do_not_count(run):
    table = read_json(run / "table.json")
    table["rows"][0]["mean"]["low"] += 1e-13
    write_json(run / "table.json", table)
    assert verify_run(run, None).findings == ()


def test_the_reference_that_was_asked_for_is_kept(run):
    write_report(run, "sft")
    assert read_json(run / "table.json")["reference"] == "sft"
    assert verify_run(run, None).findings == ()


def spend_of(run, name):
    path = run / "cells" / name / "cell.json"
    return path, read_json(path)


@pytest.mark.parametrize(
    ("cell", "figure", "right"),
    [
        ("teacher", "teacher_tokens", 0),
        ("undistilled", "steps", 0),
        ("sft-seed1", "teacher_tokens", 5000),
        ("sft-seed1", "student_tokens", 60000),
        ("ioa-seed0", "teacher_requests", 100),
    ],
)
def test_changed_tokens_are_found(run, cell, figure, right):
    path, record = spend_of(run, cell)
    record["spend"][figure] = right + 7
    write_json(path, record)
    # The table that others see is made of the same figure.
    write_report(run)
    assert verify_run(run, None).findings == (f"{path}: spend.{figure}: {right + 7}, but {right}",)


def test_a_changed_purpose_is_found(run):
    path, record = spend_of(run, "ioa-seed1")
    record["spend"]["by_purpose"]["synthesis"]["prompt_tokens"] -= 1
    del record["spend"]["student_tokens_by_part"]["stage-02"]
    write_json(path, record)
    assert verify_run(run, None).findings == (
        f"{path}: spend.by_purpose.synthesis.prompt_tokens: 8359, but 8360",
        f"{path}: spend.student_tokens_by_part.stage-02: None, but 25000",
    )


def test_what_a_diagnosis_trained_on_is_in_its_own_file(tmp_path):
    run = write_run(tmp_path / "a", items=4, seeds=(0,))
    found = verify_run(run, None)
    assert (found.findings, found.spends) == ((), 6)
    path, record = spend_of(run, "ioa-seed0")
    record["spend"]["student_tokens"] += 500
    record["spend"]["student_tokens_by_part"]["further"] += 500
    write_json(path, record)
    assert verify_run(run, None).findings == (
        f"{path}: spend.student_tokens: 60500, but 60000",
        f"{path}: spend.student_tokens_by_part.further: 1500, but 1000",
    )


def test_what_another_cell_asked_counts_as_its_own(run):
    path, record = spend_of(run, "sft_matched-seed0")
    change_lines(path.with_name("teacher.jsonl"), lambda line: None)
    (finding, *_) = verify_run(run, None).findings
    assert finding.startswith(f"{path}: spend.by_purpose.answer.calls: 100, but None")
    record["spend"]["teacher_of"] = "sft"
    write_json(path, record)
    assert verify_run(run, None).findings == ()
    change_lines(
        run / "cells" / "sft-seed0" / "teacher.jsonl",
        lambda line: None if line["key"] == "answer-0" else line,
    )
    found = verify_run(run, None).findings
    assert f"{path}: spend.teacher_tokens: 5000, but 4950" in found
    assert f"{run / 'cells/sft-seed0/cell.json'}: spend.teacher_tokens: 5000, but 4950" in found


def test_what_is_taken_on_trust_is_said(run):
    path, record = spend_of(run, "sft-seed0")
    path.with_name("teacher.jsonl").unlink()
    path.with_name("train.jsonl").unlink()
    other, record = spend_of(run, "sft-seed1")
    record["spend"]["student_tokens"] += 5
    record["spend"]["student_tokens_by_part"]["further"] = 5
    write_json(other, record)
    write_report(run)
    found = verify_run(run, None)
    assert found.findings == ()
    trusted = "teacher_tokens, teacher_requests, by_purpose, student_tokens, steps"
    assert f"{path}: {trusted}: taken on trust, since no file says so" in found.skipped
    assert f"{other}: 5 of student_tokens: taken on trust, since no file says so" in found.skipped
    assert found.spends == 8


def test_without_tables_there_is_nothing_to_compare(run):
    (run / "table.json").unlink()
    found = verify_run(run, None)
    assert found.tables == 0
    assert "`report` writes it" in found.skipped[1]


def test_cells_without_texts_are_named_unless_they_are_all(graded, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(graded, run)
    saved = [run / "cells" / cell / "tasks" / PROBES / "texts.jsonl" for cell in CELLS]
    saved[1].unlink()
    assert f"{PROBES}: no texts were saved of undistilled" in verify_run(run, DataSource()).skipped
    saved[0].unlink()
    assert f"{PROBES}: no texts were saved of any cell" in verify_run(run, DataSource()).skipped


def test_texts_are_graded_again(graded):
    found = verify_run(graded, DataSource())
    assert found.findings == ()
    assert (found.texts, found.scores) == (24, 24)


def test_a_changed_text_and_a_changed_verdict_are_found(graded, tmp_path):
    import shutil

    directory = shutil.copytree(graded, tmp_path / "a")
    folder = directory / "cells" / "teacher" / "tasks" / PROBES
    rows = [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]
    right = next(row["id"] for row in rows if row["verdict"]["correct"])
    wrong = next(row["id"] for row in rows if not row["verdict"]["correct"])
    change_lines(
        folder / "texts.jsonl", lambda row: {**row, "text": "No."} if row["id"] == right else row
    )

    def change(row):
        if row["id"] == wrong:
            return {**row, "verdict": {**row["verdict"], "correct": True}}
        return row

    change_lines(folder / "verdicts.jsonl", change)
    found = verify_run(directory, DataSource()).findings
    assert any(f"{right}, sample 0: correct True, but False" in line for line in found)
    assert any(f"{wrong}, sample 0: correct True, but False" in line for line in found)
    assert any(f"scores.jsonl: {PROBES}: {right}: score 1.0, but " in line for line in found)


def test_small_changes_and_scores_are_found_too(graded, run, tmp_path):
    directory = shutil.copytree(graded, tmp_path / "b")
    cell = directory / "cells" / "teacher"
    rows = [json.loads(line) for line in (cell / "scores.jsonl").read_text().splitlines()]
    right = next(row["id"] for row in rows if row["score"] == 1)
    wrong = next(row["id"] for row in rows if row["score"] == 0)
    # A verdict whose score alone isn't its own.
    change_lines(
        cell / "tasks" / PROBES / "verdicts.jsonl",
        lambda row: (
            {**row, "verdict": {**row["verdict"], "score": 0.5}} if row["id"] == wrong else row
        ),
    )
    # A second answer to an item, which is wrong.
    for name, more in (
        ("texts.jsonl", {"text": "I don't know."}),
        ("verdicts.jsonl", {"verdict": {"correct": False, "score": 0.0}}),
    ):
        with (cell / "tasks" / PROBES / name).open("a") as file:
            file.write(json.dumps({"id": right, "sample": 1, **more}) + "\n")
    change_lines(
        cell / "scores.jsonl",
        lambda row: {**row, "score": 0.004} if row["id"] == wrong else row,
    )
    found = [line for line in verify_run(directory, DataSource()).findings if "table" not in line]
    scores = f"{cell / 'scores.jsonl'}: {PROBES}"
    assert sorted(found) == sorted(
        [
            f"{cell / 'tasks' / PROBES / 'verdicts.jsonl'}: {wrong}, sample 0: score 0.5, but 0.0",
            f"{scores}: {wrong}: score 0.004, but 0.0",
            f"{scores}: {right}: score 1.0, but 0.5",
        ]
    )
    table = read_json(run / "table.json")
    table["rows"][0]["mean"]["low"] += 1e-4
    write_json(run / "table.json", table)
    assert len(verify_run(run, None).findings) == 1


def test_an_items_score_is_the_mean_of_its_values():
    values = MetricValues((1.0, 0.0, 1.0), ("a", "a", "b"))
    assert mean_by_item(values) == {"a": 0.5, "b": 1.0}


def drop(cell, name, item):
    change_lines(cell / name, lambda row: None if row["id"] == item else row)


def test_what_is_missing_on_either_side_is_found(graded, tmp_path):
    directory = shutil.copytree(graded, tmp_path / "a")
    cells = [directory / "cells" / cell for cell in CELLS]
    tasks = [cell / "tasks" / PROBES for cell in cells]
    lines = [json.loads(line) for line in (cells[0] / "scores.jsonl").read_text().splitlines()]
    first, second, third = (line["id"] for line in lines[:3])
    # All cells have the same items, and else can't be read.
    for cell in cells:
        drop(cell, "scores.jsonl", first)
    for name in ("texts.jsonl", "verdicts.jsonl"):
        drop(tasks[0], name, second)
    drop(tasks[1], "verdicts.jsonl", third)
    with (tasks[1] / "texts.jsonl").open("a") as file:
        file.write(json.dumps({"id": "another", "sample": 0, "text": "5"}) + "\n")
    found = verify_run(directory, DataSource()).findings
    again, saved = lines[0]["score"], lines[1]["score"]
    of_texts = [line for line in found if "table" not in line]
    assert sorted(of_texts) == sorted(
        [
            f"{cells[0] / 'scores.jsonl'}: {PROBES}: {first}: score None, but {again}",
            f"{cells[1] / 'scores.jsonl'}: {PROBES}: {first}: score None, but {again}",
            f"{cells[0] / 'scores.jsonl'}: {PROBES}: {second}: score {saved}, but None",
            f"{tasks[1] / 'verdicts.jsonl'}: {third}, sample 0: no verdict was saved",
            f"{tasks[1] / 'texts.jsonl'}: the task has no item 'another'",
        ]
    )


def test_a_probability_that_is_not_its_logarithms(tmp_path):
    directory = write_run(
        tmp_path / "a", items=4, effects={"undistilled": 0.0}, tasks=(PROBES,), distill=False
    )
    (finding, *_) = verify_run(directory, DataSource()).findings
    assert "probes-000: score" in finding
    assert "log-probability gives" in finding


def test_the_exit_code_says_so(run):
    def verify():
        command = [sys.executable, "-m", "suite", "verify", str(run), "--tables-only"]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    good = verify()
    assert good.returncode == 0, good.stderr
    assert "everything agrees" in good.stdout
    (run / "table.md").write_text("another table")
    bad = verify()
    assert bad.returncode == DIFFERENT
    assert "differences: 1" in bad.stdout


def test_points_of_a_curve_follow_from_their_texts(graded, tmp_path):
    run = shutil.copytree(graded, tmp_path / "a")
    cell = run / "cells" / "undistilled"
    shutil.copytree(cell / "tasks" / PROBES, cell / "curve" / "50" / PROBES)
    scores = [row["score"] for row in read_journal(cell / "scores.jsonl")]
    mean = math.fsum(scores) / len(scores)
    point = {"student_tokens": 50, "teacher_tokens": 0, "task": PROBES, "score": mean, "items": 12}
    write_lines(cell / "curve.jsonl", [point])
    found = verify_run(run, DataSource())
    assert (found.findings, found.texts) == ((), 36)
    write_lines(cell / "curve.jsonl", [{**point, "score": 0.9}])
    assert verify_run(run, DataSource()).findings == (
        f"{cell / 'curve.jsonl'}: {PROBES} at 50 tokens: score 0.9 of 12 items, but {mean} of 12",
    )
