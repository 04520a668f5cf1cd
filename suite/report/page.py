"""report.html: what a run found, and how it was made."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from ioa_jax.report.draw import Plot
from ioa_jax.report.page import Block, Bullets, Details, Pairs, Section, Text, View, render_page
from suite.cells import ORACLE, TEACHER, UNDISTILLED, UNIFORM
from suite.report.answers import answers
from suite.report.paper import paper_view
from suite.report.tables import (
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
from suite.schema.models import Comparison, ModuleComparison, Row, RunFile, TableFile, TaskRecord
from suite.stats import Estimate

COURSE = ("gaps", "graph", "timeline", "mastery", "forgetting")


def page(
    result: RunResult, table: TableFile, plots: Sequence[Plot], simulation: View | None = None
) -> str:
    """The page.

    Args:
        result: The run.
        table: Its figures.
        plots: Its figures as pictures, in their order.
        simulation: What the report's tests find; None where it isn't known.
    """
    run = result.run
    comparison, *others = [
        dataclasses.replace(view, marked=table.reference) for view in views(table)
    ]
    modules = [view for view in others if view.name == "modules"]
    rest = [view for view in others if view.name != "modules"]
    by_name = {plot.name: plot for plot in plots}
    budgets = [plot for plot in plots if plot.name.startswith("budget")]
    paper = paper_view(table)
    sections = [
        Section("found", "What was found", list(_found(table, simulation))),
        Section("methods", "Methods compared", [by_name["methods"], comparison, *modules]),
        Section("budgets", "Against the budget", budgets),
        Section("course", "What IOA did", [by_name[name] for name in COURSE]),
        Section("sensitivity", "Sensitivity", [by_name["sensitivity"]]),
        Section(
            "answers",
            "What reviewers of the paper asked",
            list(_answered(result, table)),
            "Reviewers' questions",
        ),
        *([] if paper is None else [Section("paper", paper.title, [paper], "The paper's numbers")]),
        Section("tables", "More tables", list(_tables(rest))),
        Section("made", "How it was made", list(_made(run, table))),
    ]
    lines = (
        "Distillation methods compared",
        run.settings.get("description", ""),
        f"Run {run.run_id}, begun {run.created}, {run.status}.",
    )
    return render_page(run.profile, lines, sections)


def _found(table: TableFile, simulation: View | None) -> Iterator[Block]:
    cards = _cards(next((row for row in table.rows if row.method == table.reference), None))
    if cards:
        yield Pairs(cards, as_cards=True)
    if table.power is not None:
        yield Text(power_sentence(table.power), name="power")
    if simulation is not None:
        yield Details(simulation.title, [simulation])
    yield Bullets(list(_sentences(table)))
    for one in table.unfinished:
        yield Text(f"Not in this report: {one.cell}, {one.reason}.", "absent")


def _answered(result: RunResult, table: TableFile) -> Iterator[Block]:
    for answer in answers(result, table):
        yield Text(answer.question, "heading", f"answer-{answer.name}")
        yield from answer.text.splitlines()
        if answer.view is not None:
            yield dataclasses.replace(answer.view, marked=table.reference)


def _tables(shown: Sequence[View]) -> Iterator[Block]:
    yield Text(
        "The same figures, unrounded, are in table.csv and table.json beside this page; table.tex "
        "has the tables for a paper.",
        "note",
    )
    for view in shown:
        yield Text(view.title, "heading")
        yield view


def _made(run: RunFile, table: TableFile) -> Iterator[Block]:
    header = ("task", "version", "figure", "items", "data")
    rows = tuple(
        (task.name, str(task.version), task.metric or "", str(task.items), _sources(task))
        for task in table.tasks
    )
    yield View("tasks", "Tasks", header, rows)
    yield Text("Environment", "heading")
    if len(run.environments) > 1:
        yield Text(
            f"The run was made in {len(run.environments)} environments; this is the last, run.json "
            "has all.",
            "note",
        )
    yield Pairs(_leaves(run.environments[-1]) if run.environments else [])
    yield Text("Models", "heading")
    yield Pairs(_leaves(run.models or {}))
    settings = yaml.safe_dump(run.settings, sort_keys=False, allow_unicode=True)
    yield Details("All settings", [Text(settings, "verbatim")])
    yield Text(f"Settings' sha256: {run.settings_sha256}", "note")


def _sources(task: TaskRecord) -> str:
    """Where a task's items are from."""
    sources = (task.model_extra or {}).get("provenance", [])
    return " ".join(f"{one.get('subset', '')} ({one.get('origin', '')})" for one in sources)


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


def _leaves(value: Any, place: str = "") -> list[tuple[str, str]]:
    """Every value of nested mappings by its place."""
    if isinstance(value, dict) and value:
        return [
            leaf
            for key, inner in value.items()
            for leaf in _leaves(inner, f"{place}.{key}" if place else str(key))
        ]
    return [(place, "-" if value is None or value == {} else str(value))]
