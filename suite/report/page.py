"""report.html: one page without other files, light and dark, usable from a keyboard."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from suite.cells import ORACLE, TEACHER, UNDISTILLED, UNIFORM
from suite.report.answers import answers
from suite.report.draw import COLOURS, Plot, for_page
from suite.report.paper import paper_view
from suite.report.tables import (
    View,
    count,
    is_significant,
    label,
    percent,
    points_from,
    power_sentence,
    share_text,
    views,
)
from suite.results import RunResult
from suite.schema.models import Comparison, ModuleComparison, Row, TableFile
from suite.stats import Estimate

FOLDER = Path(__file__).parent
COURSE = ("gaps", "graph", "timeline", "mastery", "forgetting")


def page(result: RunResult, table: TableFile, plots: Sequence[Plot]) -> str:
    """The page.

    Args:
        result: The run.
        table: Its figures.
        plots: Its figures as pictures, in their order.
    """
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _cell
    environment.filters["word_columns"] = _word_columns
    environment.filters["picture"] = lambda plot: Markup(for_page(plot.svg, plot.title))
    own = views(table)
    by_name = {plot.name: plot for plot in plots}
    reference = next((row for row in table.rows if row.method == table.reference), None)
    return environment.get_template("page.html.j2").render(
        run=result.run,
        table=table,
        colours=_variables(),
        style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        script=Markup((FOLDER / "page.js").read_text(encoding="utf-8")),
        sentences=list(_sentences(table)),
        cards=_cards(reference),
        power=None if table.power is None else power_sentence(table.power),
        comparison=own[0],
        modules=next((view for view in own if view.name == "modules"), None),
        tables=[view for view in own[1:] if view.name != "modules"],
        methods=by_name["methods"],
        budgets=[plot for plot in plots if plot.name.startswith("budget")],
        course=[by_name[name] for name in COURSE],
        sensitivity=by_name["sensitivity"],
        answers=answers(result, table),
        paper=paper_view(table),
        environment=_leaves(result.run.environments[-1]) if result.run.environments else [],
        environments=len(result.run.environments),
        models=_leaves(result.run.models or {}),
        settings=yaml.safe_dump(result.run.settings, sort_keys=False, allow_unicode=True),
    )


def best_baseline(table: TableFile, task: str) -> Row | None:
    """The method with the highest mean on a task that isn't the reference's own kind."""
    return max(_baselines(table), key=lambda row: row.scores[task].mean, default=None)


def _baselines(table: TableFile) -> list[Row]:
    """Trained methods that aren't of the reference's own kind."""
    own = (table.reference or "").split("_")[0]
    return [
        row
        for row in table.rows
        if row.method not in (TEACHER, UNDISTILLED, UNIFORM, ORACLE)
        and row.method.split("_")[0] != own
    ]


def _sentences(table: TableFile) -> Iterator[str]:
    """What the run found, in words."""
    if table.reference is None:
        yield "No method that trains a student has finished yet."
        return
    yield from _module_sentences(table)
    compared = {(one.method, one.task): one for one in table.comparisons}
    for task in table.tasks:
        (row,) = (row for row in table.rows if row.method == table.reference)
        text = f"{task.name}: {table.reference} scores {percent(row.scores[task.name])} %"
        parts = [
            _against(compared[method, task.name], words)
            for method, words in _opponents(table, task.name)
            if (method, task.name) in compared
        ]
        if task.name in row.retained and row.retained[task.name].value is not None:
            parts.append(f"{share_text(row.retained[task.name])} % of the teacher's")
        yield "; ".join([text, *parts]) + "."


def _module_sentences(table: TableFile) -> Iterator[str]:
    """The same over modules."""
    compared = {(one.method, one.over): one for one in table.module_comparisons}
    (row,) = (row for row in table.rows if row.method == table.reference)
    if row.modules is None:
        return
    for over, words in (("all", "all modules"), ("deficient", "deficient modules")):
        value = _mean_over(row, over)
        if value is None:
            continue
        means = {
            other.method: mean.mean
            for other in _baselines(table)
            if (mean := _mean_over(other, over)) is not None
        }
        opponents = [(UNDISTILLED, "the undistilled student")]
        if means:
            best = max(means, key=lambda method: means[method])
            opponents.append((best, f"{best}, the best of the other methods"))
        parts = [
            _against(compared[method, over], against)
            for method, against in opponents
            if (method, over) in compared
        ]
        yield "; ".join([f"{words}: {row.method} scores {percent(value)} %", *parts]) + "."


def _mean_over(row: Row, over: str) -> Estimate | None:
    if row.modules is None:
        return None
    return row.modules.all if over == "all" else row.modules.deficient


def _opponents(table: TableFile, task: str) -> Iterator[tuple[str, str]]:
    yield UNDISTILLED, "the undistilled student"
    best = best_baseline(table, task)
    if best is not None:
        yield best.method, f"{best.method}, the best of the other methods"


def _against(one: Comparison | ModuleComparison, words: str) -> str:
    sure = "" if is_significant(one) else " (chance may explain it)"
    return f"{points_from(one.difference)} {words}{sure}"


def _cards(reference: Row | None) -> list[tuple[str, str]]:
    """The reference method's main figures: name, value."""
    if reference is None:
        return []
    cards = [(f"{label(reference.method)}, mean of tasks, %", percent(reference.mean))]
    if reference.retained_mean is not None and reference.retained_mean.value is not None:
        cards.append(("of the teacher's, %", share_text(reference.retained_mean)))
    return [
        *cards,
        ("teacher tokens", count(reference.teacher_tokens)),
        ("student tokens", count(reference.student_tokens)),
    ]


def _cell(text: str) -> Markup:
    """A table's cell with its interval set apart."""
    return Markup(
        re.sub(r"(\[[^\]]*\])", r'<span class="interval">\1</span>', str(escape(text)), count=1)
    )


def _word_columns(view: View) -> set[int]:
    """Numbers of a table's columns, the first aside, whose cells begin with a letter."""
    return {
        column
        for column in range(1, len(view.header))
        if any(row[column][:1].isalpha() for row in view.rows)
    }


def _variables() -> Markup:
    """The colours of both themes, for pictures and text alike."""
    light, dark = (
        "".join(f"--{name}:{pair[i]};" for name, pair in COLOURS.items()) for i in (0, 1)
    )
    return Markup(
        f":root{{color-scheme:light;{light}}}"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light])"
        f"{{color-scheme:dark;{dark}}}}}"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}"
    )


def _leaves(value: Any, place: str = "") -> list[tuple[str, str]]:
    """Every value of nested mappings by its place."""
    if isinstance(value, dict) and value:
        return [
            leaf
            for key, inner in value.items()
            for leaf in _leaves(inner, f"{place}.{key}" if place else str(key))
        ]
    return [(place, "-" if value is None or value == {} else str(value))]
