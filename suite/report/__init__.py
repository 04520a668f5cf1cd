"""What a run comes to: table.json, .md, .csv, .tex, plots/*.svg and report.html."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ioa_jax.files import write_text
from suite.report.summary import Figures, summarize
from suite.report.tables import comma_separated, latex, markdown
from suite.results import RunResult, read_run
from suite.schema import write_file
from suite.schema.models import PowerFile, TableFile


@dataclasses.dataclass(frozen=True)
class Written:
    """The tables of a run.

    Attributes:
        table: Every figure.
        texts: The same for people, by file name.
    """

    table: TableFile
    texts: dict[str, str]


def written(
    result: RunResult, reference: str | None = None, power: PowerFile | None = None
) -> Written:
    """Make the tables of a run.

    Args:
        result: The run.
        reference: Method that the others are compared with; None is `ioa`, else the first.
        power: Of the run's settings; None where it isn't known.

    Raises:
        InputError: The run has no finished cell, or not of the reference.
    """
    table = summarize(Figures(result), reference, power)
    texts = {
        "table.md": markdown(table),
        "table.csv": comma_separated(table),
        "table.tex": latex(table),
    }
    return Written(table, texts)


def write_report(directory: Path, reference: str | None = None) -> list[Path]:
    """Write tables, figures and the page of a run, of its finished cells.

    Args:
        directory: The run's.
        reference: As of `written`.

    Returns:
        The files, the page last.

    Raises:
        InputError: It isn't a run of this version, a file doesn't fit its schema, or it can't be
            written.
    """
    # What is drawn is read by JAX's side, which `verify` needn't wait for.
    from suite.power import find_power, find_simulation
    from suite.report.answers import shown
    from suite.report.page import page
    from suite.report.plots import all_plots

    result = read_run(directory)
    made = written(result, reference, find_power(result.run.settings))
    paths = [directory / "table.json"]
    write_file(TableFile, paths[0], made.table.model_dump(mode="json"))
    for name, text in made.texts.items():
        paths.append(directory / name)
        write_text(paths[-1], text)
    plots = all_plots(result, made.table, shown(result, made.table), _true_edges(result))
    for plot in plots:
        if plot.svg is not None:
            paths.append(directory / "plots" / f"{plot.name}.svg")
            write_text(paths[-1], plot.svg)
    paths.append(directory / "report.html")
    simulation = find_simulation(result.run.settings)
    write_text(paths[-1], page(result, made.table, plots, simulation))
    return paths


def _true_edges(result: RunResult) -> frozenset[tuple[str, str]] | None:
    """The embedded world's own graph, where the run's seed items are from that world."""
    if result.run.settings.get("seed_items", {}).get("source") != "micro":
        return None
    from suite.micro.world import true_edges

    return true_edges()
