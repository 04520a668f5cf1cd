import csv
import io

import pytest

from suite.report.page import _sentences
from suite.report.summary import Figures, summarize
from suite.report.tables import comma_separated, latex, markdown, points_from, views
from suite.results import read_run
from suite.schema.models import PowerFile
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
    (sft,) = (line for line in text.splitlines() if line.startswith("| sft | ") and "5,000" in line)
    assert "] * |" in sft
    (own,) = (line for line in text.splitlines() if line.startswith("| ioa | ") and "5,000" in line)
    assert "*" not in own
    # McNemar's test is of one seed, and these are three.
    assert "†" not in text
    assert "McNemar" not in text
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
    assert float(one["p_bootstrap_holm"]) == against.p_bootstrap_holm
    assert one["p_mcnemar"] == ""


def test_marks_follow_the_corrected_p_alone(table):
    (one,) = (c for c in table.comparisons if (c.method, c.task) == ("sft", "micro-math"))
    assert one.difference.p_bootstrap < 0.05
    assert one.difference.low > 0
    changed = table.model_copy(
        update={
            "comparisons": [
                c.model_copy(update={"p_bootstrap_holm": 0.2}) for c in table.comparisons
            ],
            "module_comparisons": [
                c.model_copy(update={"p_bootstrap_holm": 0.2}) for c in table.module_comparisons
            ],
        }
    )
    assert any("*" in cell for view in views(table) for row in view.rows for cell in row)
    assert not any("*" in cell for view in views(changed) for row in view.rows for cell in row)
    sentences = list(_sentences(changed))
    assert sum("chance may explain it" in line for line in sentences) == len(sentences) == 4


def test_one_seed_has_mcnemars_mark(tmp_path):
    directory = write_run(tmp_path / "a", items=150, seeds=(0,), distill=False, curves=False)
    text = markdown(summarize(Figures(read_run(directory), resamples=500)))
    (sft,) = (line for line in text.splitlines() if line.startswith("| sft | ") and "5,000" in line)
    assert "] *† |" in sft
    assert "† by McNemar's test (right-or-wrong tasks with one seed)." in text
    assert "| p, McNemar |" in text


def test_modules_have_a_table_with_the_worst_of_each_method(table):
    (view,) = (view for view in views(table) if view.name == "modules")
    assert view.header == (
        "method",
        "all modules (4), %",
        "deficient modules (4), %",
        "other modules (0), %",
        "worst module, %",
    )
    rows = {row[0]: row for row in view.rows}
    assert rows["ioa"][3] == "-"
    assert rows["sft"][1].endswith("] *")
    assert rows["sft"][4].split(":")[0] in table.modules
    assert "less than 0.72 of the teacher's score" in " ".join(view.notes)
    assert "over the 8 rows" in markdown(table)


def test_power_stands_at_the_top(table):
    point = {"mean": 0.5, "by_seed": {90: 0.5, 91: 0.5}}
    power = PowerFile.model_validate(
        {
            "profile": "micro",
            "run_id": "r1",
            "revision": None,
            "settings": {},
            "untaught": {"mean": 0.4, "by_seed": {}},
            "uniform": point,
            "oracle": {"mean": 0.53, "by_seed": {90: 0.52, 91: 0.54}},
            "seed_sd": 0.01,
            "ratio": 3.0,
        }
    )
    text = markdown(table.model_copy(update={"power": power}))
    (line,) = (line for line in text.splitlines()[:4] if line.startswith("Power: "))
    assert "40.0 % (mean over all modules)" in line
    assert "3.0 of it apart, fewer than the 5 that a comparison needs." in line
    assert "seeds 90, 91" in line
    enough = power.model_copy(update={"ratio": 5.0})
    assert "fewer" not in markdown(table.model_copy(update={"power": enough})).splitlines()[2]
    assert "Power" not in markdown(table)


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
