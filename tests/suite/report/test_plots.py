import dataclasses
import re
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from ioa_jax.files import read_json, write_json
from ioa_jax.report.draw import COLOURS
from suite.report.answers import taught_of
from suite.report.plots import all_plots, mean_curve, recovered
from suite.report.summary import Figures, summarize
from suite.results import read_run
from tests.suite.runs import MODULES, teach_from_pool, teach_nothing, write_run

NAMES = [
    "methods",
    "budget-student",
    "budget-teacher",
    "gaps",
    "graph",
    "timeline",
    "mastery",
    "forgetting",
    "sensitivity",
]
ADD, MULTIPLY, DIVIDE, LINEAR = MODULES
TRUE = frozenset({(ADD, MULTIPLY), (MULTIPLY, DIVIDE), (ADD, LINEAR), ("else/where", ADD)})


def plots_of(directory, true_edges: frozenset[tuple[str, str]] | None = TRUE):
    result = read_run(directory)
    table = summarize(Figures(result, resamples=100))
    runs = [one.run for one in taught_of(result, "ioa")]
    return all_plots(result, table, runs, true_edges)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "a"
    sweeps = [
        ("ioa", "diagnose.tau_gap", 0.1, 0.3, 0.2),
        ("ioa", "diagnose.tau_gap", 0.2, 0.3, 0.3),
        ("ioa_no_gate", "diagnose.tau_gap", 0.1, 0.3, 0.1),
    ]
    return write_run(directory, items=20, sweeps=sweeps)


@pytest.fixture(scope="module")
def plots(run):
    return {plot.name: plot for plot in plots_of(run)}


def words(svg):
    return {element.text for element in ET.fromstring(svg).iter() if element.text}


def test_a_whole_run_has_every_figure(plots):
    assert list(plots) == NAMES
    for plot in plots.values():
        assert plot.svg is not None, plot.name
        assert plot.text.endswith(".")


def test_figures_are_the_same_bytes_again(run, plots):
    again = {plot.name: plot for plot in plots_of(run)}
    assert again == plots
    assert re.search(r"20\d\d-\d\d-\d\d|<dc:date>", plots["methods"].svg) is None


def test_figures_say_what_they_show(plots):
    assert {"teacher (reference line)", "sft_matched"} <= words(plots["methods"].svg)
    assert {"gate passed", "stage 1: multiplication"} <= words(plots["timeline"].svg)
    assert {"0.21", ADD} <= words(plots["forgetting"].svg)
    for name in ("forgetting", "mastery"):
        assert {"before", "1", "end", "after stage"} <= words(plots[name].svg)
        assert "2" not in words(plots[name].svg)
    # A panel for each method, since its points belong to one line.
    panels = {word for word in words(plots["sensitivity"].svg) if "@" in word}
    assert panels == {"ioa@diagnose.tau_gap", "ioa_no_gate@diagnose.tau_gap"}


def test_a_first_pass_has_its_own_place(tmp_path):
    directory = write_run(tmp_path / "a", items=6, seeds=(0,), curves=False)
    teach_from_pool(directory / "cells" / "ioa-seed0")
    plots = {plot.name: plot for plot in plots_of(directory)}
    for name in ("forgetting", "mastery"):
        assert {"before", "first pass", "end", "measured"} <= words(plots[name].svg)
        assert not {"1", "2", "after stage"} & words(plots[name].svg)
    assert plots["forgetting"].text.startswith("r(k) after the first pass through the stages and")
    assert {"gate not passed", "stage 2: division", "consolidation"} <= words(plots["timeline"].svg)


def test_a_cell_that_taught_nothing_has_its_figures(tmp_path):
    directory = write_run(tmp_path / "a", items=6, seeds=(0,), curves=False)
    teach_nothing(directory / "cells" / "ioa-seed0")
    plots = {plot.name: plot for plot in plots_of(directory)}
    assert plots["timeline"].svg is None
    assert "trained on nothing" in plots["timeline"].text
    assert "before" in words(plots["forgetting"].svg)
    assert "end" not in words(plots["forgetting"].svg)


def test_budget_curves_go_from_the_untrained_student_to_the_last_one(run):
    result = read_run(run)
    curve = mean_curve(result, "ioa", "student_tokens")
    assert [tokens for tokens, _ in curve[:-1]] == [0, 15000, 30000, 45000, 60000]
    cells = result.cells_of("ioa")
    assert curve[-1][0] == np.mean([cell.file.spend.student_tokens for cell in cells])
    (untrained,) = result.cells_of("undistilled")
    for cells_then, (_, score) in (((untrained,), curve[0]), (cells, curve[-1])):
        tasks = [
            [line.score for line in cell.lines[task].values() if int(line.id[-3:]) % 3 == 0]
            for cell in cells_then
            for task in result.ids
            if task in cells[0].curve_ids
        ]
        assert score == pytest.approx(np.mean([np.mean(scores) for scores in tasks]))


def test_what_another_cells_data_cost_was_spent_before_training(tmp_path):
    directory = write_run(tmp_path / "a", items=6, seeds=(0,), distill=False)
    usual = mean_curve(read_run(directory), "sft_matched", "teacher_tokens")
    assert [tokens for tokens, _ in usual] == [0, 1250, 2500, 3750, 5000, 5000]
    path = directory / "cells" / "sft_matched-seed0" / "cell.json"
    record = read_json(path)
    record["spend"]["teacher_of"] = "sft"
    write_json(path, record)
    curve = mean_curve(read_run(directory), "sft_matched", "teacher_tokens")
    assert [tokens for tokens, _ in curve] == [0, *[5000] * 5]
    assert [score for _, score in curve] == [score for _, score in usual]


def test_the_graph_counts_recovered_edges(run, plots):
    (first, *_) = taught_of(read_run(run), "ioa")
    assert recovered(first.run.edges, TRUE) == (2, 3, 4)
    # An edge of a module that the diagnosis doesn't have isn't one that it could have found.
    assert "Of 3 found edges 2 are true, of 3 true ones 2 were found." in plots["graph"].text


def test_a_run_without_the_methods_folder_says_so(tmp_path):
    directory = write_run(tmp_path / "a", items=5, seeds=(0,), distill=False, curves=False)
    plots = {plot.name: plot for plot in plots_of(directory, None)}
    assert list(plots) == NAMES
    drawn = [name for name, plot in plots.items() if plot.svg is not None]
    assert drawn == ["methods"]
    assert "distill/" in plots["gaps"].text
    assert "curve.jsonl is empty" in plots["budget-student"].text
    assert "no cells with single settings changed" in plots["sensitivity"].text


def test_a_cell_that_found_no_gap_has_no_parts(tmp_path):
    directory = write_run(tmp_path / "a", items=5, seeds=(0,))
    shutil.rmtree(directory / "cells/ioa-seed0/distill/parts")
    (one,) = taught_of(read_run(directory), "ioa")
    assert one.run.teacher_tokens(5000) == {}


def test_on_the_page_colours_are_variables_and_ids_are_needed(plots):
    seen = set()
    for name, plot in plots.items():
        text = dataclasses.replace(plot, title='a "title"').inline()
        ET.fromstring(text)
        assert not re.findall("|".join(light for light, _ in COLOURS.values()), text)
        assert 'aria-label="a &quot;title&quot;"' in text
        ids = set(re.findall(r' id="([^"]*)"', text))
        assert all(f"#{one}" in text for one in ids), name
        assert not ids & seen, name
        seen |= ids
