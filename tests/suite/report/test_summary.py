import pytest

from ioa_jax.errors import InputError
from suite.report.summary import Figures, choose_reference, summarize
from suite.results import read_run
from suite.schema.models import TableFile
from tests.suite.runs import EFFECTS, change_lines, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "a", items=300)


@pytest.fixture(scope="module")
def table(run):
    return summarize(Figures(read_run(run), resamples=2000))


def row_of(table, method):
    (row,) = (row for row in table.rows if row.method == method)
    return row


def test_the_planted_effects_come_out(table):
    before = row_of(table, "undistilled").scores["micro-math"].mean
    for method in ("sft", "ioa"):
        found = row_of(table, method).scores["micro-math"]
        assert found.mean - before == pytest.approx(EFFECTS[method], abs=0.06)
        assert found.low < before + EFFECTS[method] < found.high
        assert (found.values, found.clusters) == (900, 300)


def test_every_method_is_compared_with_ioa_on_every_task(table):
    assert table.reference == "ioa"
    others = {comparison.method for comparison in table.comparisons}
    assert others == {"undistilled", "sft", "sft_matched", "ioa_no_gate"}
    assert len(table.comparisons) == 8
    (against_sft,) = (c for c in table.comparisons if (c.method, c.task) == ("sft", "micro-math"))
    assert against_sft.difference.low > 0.1
    assert against_sft.p_bootstrap_holm < 0.05
    assert against_sft.p_mcnemar_holm is not None
    assert against_sft.p_mcnemar_holm < 1e-6
    (graded,) = (c for c in table.comparisons if (c.method, c.task) == ("sft", "micro-instruct"))
    assert graded.p_mcnemar_holm is None


def test_the_retained_share_is_of_the_teacher(table):
    ioa, teacher = row_of(table, "ioa"), row_of(table, "teacher")
    share = ioa.retained["micro-math"]
    assert share.value == pytest.approx(
        ioa.scores["micro-math"].mean / teacher.scores["micro-math"].mean
    )
    assert share.low < share.value < share.high
    assert ioa.retained_mean.low < ioa.mean.mean / teacher.mean.mean < ioa.retained_mean.high
    assert teacher.retained == {}


def test_a_table_is_read_back_as_written(table):
    assert TableFile.model_validate_json(table.model_dump_json()) == table


def test_figures_do_not_depend_on_the_order_of_the_lines(run, table, tmp_path):
    import shutil

    copy = tmp_path / "a"
    shutil.copytree(run, copy)
    path = copy / "cells" / "ioa-seed1" / "scores.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert summarize(Figures(read_run(copy), resamples=2000)) == table


def test_unfinished_and_failed_cells_are_told(tmp_path):
    import json

    directory = write_run(tmp_path / "a", items=20, distill=False)
    (directory / "cells" / "sft-seed1" / "cell.json").unlink()
    path = directory / "cells" / "sft-seed2" / "cell.json"
    cell = json.loads(path.read_text())
    path.write_text(json.dumps({**cell, "status": "failed", "error": "no disk"}))
    table = summarize(Figures(read_run(directory), resamples=100))
    assert [(one.cell, one.reason) for one in table.unfinished] == [
        ("sft-seed1", "not done yet"),
        ("sft-seed2", "failed: no disk"),
    ]
    assert row_of(table, "sft").seeds == [0]
    # Paired by the seed that both have.
    assert {c.difference.seeds for c in table.comparisons if c.method == "sft"} == {1}


def test_a_run_of_the_teacher_alone_has_no_reference(tmp_path):
    directory = write_run(tmp_path / "a", items=5, effects={"undistilled": 0.0})
    table = summarize(Figures(read_run(directory), resamples=50))
    assert table.reference is None
    assert table.comparisons == []


def test_sweeps_stand_apart(tmp_path):
    sweeps = [("ioa", "diagnose.tau_gap", 0.1, 0.3, 0.2)]
    directory = write_run(tmp_path / "a", items=10, seeds=(0,), sweeps=sweeps, distill=False)
    table = summarize(Figures(read_run(directory), resamples=50))
    assert [row.method for row in table.sweeps] == ["ioa@diagnose.tau_gap=0.1"]
    assert "ioa@diagnose.tau_gap=0.1" not in {row.method for row in table.rows}
    assert "ioa@diagnose.tau_gap=0.1" not in {c.method for c in table.comparisons}


def test_a_reference_that_is_not_there(run):
    with pytest.raises(InputError, match="'gkd' has no finished cell; there are teacher"):
        choose_reference(read_run(run), "gkd")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: {**line, "score": 1.5}, "scores.jsonl:1: field 'score'"),
        (lambda line: {**line, "task": "other"}, "task 'other' isn't in run.json"),
        (lambda line: {**line, "id": "same"}, "item 'same' occurs twice"),
        (lambda line: None if line["id"] == "micro-math-003" else line, "only one of"),
        (lambda line: None if line["task"] == "micro-math" else line, "no item of task"),
    ],
)
def test_bad_records_are_named(tmp_path, change, message):
    directory = write_run(tmp_path / "a", items=5, seeds=(0,), distill=False)
    change_lines(directory / "cells" / "sft-seed0" / "scores.jsonl", change)
    with pytest.raises(InputError, match=message):
        read_run(directory)


def test_another_versions_run_is_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"version": 2}')
    with pytest.raises(InputError, match="another version"):
        read_run(tmp_path)
