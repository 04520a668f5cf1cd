import pytest

from ioa_jax.errors import InputError
from suite.report.summary import Figures, choose_reference, summarize
from suite.report.tables import views
from suite.results import read_run
from suite.schema.models import TableFile
from suite.stats import holm
from tests.suite.runs import EFFECTS, MODULES, change_lines, change_settings, write_run


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
    assert {c.p_mcnemar_holm for c in table.comparisons} == {None}


def modules_of(table, method):
    return row_of(table, method).modules


def learn_before(line):
    """The teacher's own answers to items of the first module."""
    return {**line, "score": 1.0} if line["module"] == MODULES[0] else line


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """The undistilled student and the teacher are right in all of the first module."""
    directory = write_run(tmp_path_factory.mktemp("runs") / "a", items=120, tasks=("micro-math",))
    for cell in ("teacher", "undistilled"):
        change_lines(directory / "cells" / cell / "scores.jsonl", learn_before)
    return directory


def test_modules_that_were_deficient_stand_apart_for_every_method(uneven):
    figures = Figures(read_run(uneven), resamples=500)
    found = summarize(figures)
    assert found.modules == sorted(MODULES)
    assert found.deficient_modules is not None
    assert set(found.deficient_modules) == set(MODULES[1:])
    for method in ("undistilled", "ioa", "sft"):
        scores = figures.result.scores(method, "micro-math")
        ids = figures.result.ids["micro-math"]
        by_module = {
            module: scores[:, [int(name[-3:]) % 4 == k for name in ids]].mean()
            for k, module in enumerate(MODULES)
        }
        own = modules_of(found, method)
        assert own.all.mean == pytest.approx(sum(by_module.values()) / 4)
        assert own.deficient.mean == pytest.approx(sum(by_module[m] for m in MODULES[1:]) / 3)
        assert own.others.mean == pytest.approx(by_module[MODULES[0]])
        assert own.worst.score == pytest.approx(min(by_module.values()))
        assert by_module[own.worst.module] == pytest.approx(own.worst.score)
        assert own.all.low < own.all.mean < own.all.high
    assert {(c.method, c.over) for c in found.module_comparisons} == {
        (method, over)
        for method in ("undistilled", "sft", "sft_matched", "ioa_no_gate")
        for over in ("all", "deficient")
    }


def test_comparisons_over_modules_are_paired_and_corrected_among_themselves(uneven):
    figures = Figures(read_run(uneven), resamples=500)
    found = summarize(figures)
    ioa, sft = (modules_of(found, method) for method in ("ioa", "sft"))
    (one,) = (c for c in found.module_comparisons if (c.method, c.over) == ("sft", "deficient"))
    assert one.difference.mean == pytest.approx(ioa.deficient.mean - sft.deficient.mean)
    assert (one.difference.pairs, one.difference.seeds) == (3 * 90, 3)
    assert one.p_bootstrap_holm < 0.05
    raw = [c.difference.p_bootstrap for c in found.module_comparisons]
    assert [c.p_bootstrap_holm for c in found.module_comparisons] == holm(raw)


def test_items_without_a_module_have_no_means_over_modules(tmp_path):
    directory = write_run(tmp_path / "a", items=10, seeds=(0,), distill=False)
    for cell in (directory / "cells").iterdir():
        change_lines(
            cell / "scores.jsonl",
            lambda line: {**line, "module": None} if line["id"] == "micro-math-003" else line,
        )
    found = summarize(Figures(read_run(directory), resamples=50))
    assert (found.modules, found.deficient_modules, found.module_comparisons) == ([], None, [])
    assert not any(row.modules for row in found.rows)
    assert "modules" not in {view.name for view in views(found)}


def test_without_a_teachers_cell_nobody_knows_what_was_deficient(tmp_path):
    directory = write_run(tmp_path / "a", items=20, seeds=(0,), distill=False)
    change_settings(directory, lambda settings: settings.update(teacher={"spec": "openai:o1"}))
    found = summarize(Figures(read_run(directory), resamples=50))
    assert found.deficient_modules is None
    assert modules_of(found, "ioa").deficient is None
    assert {c.over for c in found.module_comparisons} == {"all"}
    (view,) = (view for view in views(found) if view.name == "modules")
    assert "isn't known" in " ".join(view.notes)


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
