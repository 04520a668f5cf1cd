import csv
import io

import pytest

from suite.report.summary import Figures, summarize
from suite.report.tables import comma_separated, latex, markdown, points_from, views
from suite.results import read_run
from suite.stats import Difference
from tests.suite.runs import write_run


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    directory = write_run(
        tmp_path_factory.mktemp("runs") / "a_b",
        items=200,
        sweeps=[("ioa", "diagnose.tau_gap", 0.1, 0.3, 0.2)],
        distill=False,
    )
    return summarize(Figures(read_run(directory), resamples=1000))


def test_markdown_has_figures_marks_and_what_they_mean(table):
    text = markdown(table)
    (ioa,) = (row for row in table.rows if row.method == "ioa")
    assert f"{100 * ioa.scores['micro-math'].mean:.1f} [" in text
    (sft,) = (line for line in text.splitlines() if line.startswith("| sft | ") and "†" in line)
    assert "] *† |" in sft
    (own,) = (line for line in text.splitlines() if line.startswith("| ioa | ") and "5,000" in line)
    assert "*" not in own
    assert "Items: micro-math 200, micro-instruct 200. Training seeds of a method: 3" in text
    assert "Differs from ioa after Holm's correction at 0.05" in text
    assert "1,000 resamples of seeds and items" in text
    assert "ioa minus each other method" in text


def test_every_row_has_all_cells(table):
    for view in views(table):
        assert {len(row) for row in view.rows} == {len(view.header)}, view.name


def test_csv_has_every_figure_unrounded(table):
    rows = list(csv.DictReader(io.StringIO(comma_separated(table))))
    assert len(rows) == (len(table.rows) + len(table.sweeps)) * 2
    (one,) = (r for r in rows if (r["method"], r["task"]) == ("sft", "micro-math"))
    (sft,) = (row for row in table.rows if row.method == "sft")
    assert float(one["mean"]) == sft.scores["micro-math"].mean
    (against,) = (c for c in table.comparisons if (c.method, c.task) == ("sft", "micro-math"))
    assert float(one["difference"]) == against.difference.mean
    assert float(one["p_mcnemar_holm"]) == against.p_mcnemar_holm
    (graded,) = (r for r in rows if (r["method"], r["task"]) == ("sft", "micro-instruct"))
    assert graded["p_mcnemar"] == ""


def test_latex_is_balanced_and_escaped(table):
    text = latex(table)
    assert text.count("\\begin{tabular}") == text.count("\\end{tabular}") == len(views(table))
    assert "sft\\_matched" in text
    body = [line for line in text.splitlines() if line.endswith("\\\\")]
    for view in views(table):
        separators = len(view.header) - 1
        assert any(line.count(" & ") == separators for line in body)
    # Percent signs that LaTeX would read as comments.
    assert not [line for line in text.splitlines()[1:] if "%" in line.replace("\\%", "")]


@pytest.mark.parametrize(
    ("mean", "words"),
    [
        (0.0316, "3.2 points above"),
        (-0.0044, "0.4 points below"),
        (0.0, "level with"),
        (-0.0004, "level with"),
    ],
)
def test_a_difference_in_words(mean, words):
    found = Difference(mean, mean - 0.1, mean + 0.1, 30, 3, 0.5, None, None, None)
    assert points_from(found) == words
