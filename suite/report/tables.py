"""A run's figures as tables: for people (Markdown, LaTeX, HTML) and for programs (CSV)."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Sequence

from suite.cells import TEACHER, UNDISTILLED
from suite.probes import PROBES
from suite.schema.models import Comparison, Row, TableFile
from suite.stats import Difference, Estimate, Share

ALPHA = 0.05
LABELS = {TEACHER: "teacher (reference line)", UNDISTILLED: "undistilled student"}


@dataclasses.dataclass(frozen=True)
class View:
    """A table as it is read.

    Attributes:
        name: Short, for anchors.
        title: What it shows.
        header: The first column names the row; the others are figures.
        rows: As many cells each as the header.
        notes: What stands under it.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def views(table: TableFile) -> list[View]:
    """The tables that have something in them, the comparison first."""
    found = [comparison_view(table)]
    if table.comparisons:
        found.append(difference_view(table))
    if any(row.retained for row in table.rows):
        found.append(share_view(table))
    if any(row.logprob for row in table.rows):
        found.append(logprob_view(table))
    return found


def comparison_view(table: TableFile) -> View:
    """Methods by tasks."""
    marks = _marks(table.comparisons)
    rows = tuple(
        (
            label(row.method),
            *(
                percent(row.scores[task.name]) + marks.get((row.method, task.name), "")
                for task in table.tasks
            ),
            percent(row.mean),
            "-" if row.method == TEACHER else count(row.teacher_tokens),
            "-" if row.method == TEACHER else count(row.student_tokens),
        )
        for row in table.rows
    )
    columns = tuple(f"{task.name} ({task.metric or 'score'}, %)" for task in table.tasks)
    return View(
        "comparison",
        "Methods by tasks",
        ("method", *columns, "mean of tasks", "teacher tokens", "student tokens"),
        rows,
        (*_sizes(table), _interval_note(table), *_mark_notes(table)),
    )


def difference_view(table: TableFile) -> View:
    """The reference method minus the others."""
    rows = tuple(
        (
            label(one.method),
            one.task,
            f"{100 * one.difference.mean:+.1f} [{100 * one.difference.low:+.1f}, "
            f"{100 * one.difference.high:+.1f}]",
            p_value(one.p_bootstrap_holm),
            "-"
            if one.difference.wins is None
            else f"{one.difference.wins} : {one.difference.losses}",
            "-" if one.p_mcnemar_holm is None else p_value(one.p_mcnemar_holm),
            f"{one.difference.seeds} x {one.difference.pairs // one.difference.seeds}",
        )
        for one in table.comparisons
    )
    return View(
        "differences",
        f"{table.reference} minus each other method, in points of 100",
        ("method", "task", "difference", "p, bootstrap", "wins : losses", "p, McNemar", "N"),
        rows,
        (
            "Pairs are answers to one item with one seed; N is seeds x items. Intervals: 95 %, "
            f"{table.resamples:,} resamples of seeds and items.",
            f"p are two-sided and corrected by Holm over the {len(table.comparisons)} rows, each "
            "test by itself. McNemar's test is of right-or-wrong tasks alone: exact with one seed, "
            "Durkalski's form with an item's answers as a cluster with several.",
        ),
    )


def share_view(table: TableFile) -> View:
    """What students keep of the teacher and of their own."""
    rows = tuple(
        (
            label(row.method),
            *(share_text(row.retained.get(task.name)) for task in table.tasks),
            share_text(row.retained_mean),
            *(share_text(row.lost.get(task.name)) for task in table.tasks),
        )
        for row in table.rows
        if row.method != TEACHER
    )
    return View(
        "shares",
        "Retained share of the teacher, and what was forgotten",
        (
            "method",
            *(f"{task.name}, retained" for task in table.tasks),
            "mean of tasks, retained",
            *(f"{task.name}, forgotten" for task in table.tasks),
        ),
        rows,
        (
            "Retained: the method's score in % of the teacher's on the same items (the paper's "
            "94.7 % is this figure on DollyEval). Mean of tasks: ratio of the two means.",
            "Forgotten: of what the undistilled student scored, the % that was lost item by item; "
            "right answers by luck count as forgotten too, so it is read beside other methods, not "
            "beside 0.",
            _interval_note(table),
        ),
    )


def logprob_view(table: TableFile) -> View:
    """Log-probability of the references."""
    tasks = [task.name for task in table.tasks if any(task.name in r.logprob for r in table.rows)]
    rows = tuple(
        (label(row.method), *(nats(row.logprob.get(task)) for task in tasks)) for row in table.rows
    )
    return View(
        "logprob",
        "Log-probability of the reference answers",
        ("method", *tasks),
        rows,
        ("Nats a token, mean over items; nearer to 0 is better.", _interval_note(table)),
    )


def markdown(table: TableFile) -> str:
    """All tables, with what stands under them."""
    text = [f"# {table.profile}, run {table.run_id}", ""]
    for view in views(table):
        text += [f"## {view.title}", "", _markdown_row(view.header)]
        text.append("| --- |" + " ---: |" * (len(view.header) - 1))
        text += [_markdown_row(row) for row in view.rows]
        text += ["", *(f"- {note}" for note in view.notes), ""]
    text += [f"Not in the tables: {one.cell}, {one.reason}." for one in table.unfinished]
    return "\n".join(text).rstrip("\n") + "\n"


def latex(table: TableFile) -> str:
    """The same as `tabular`s; they need the package booktabs."""
    text = ["% Needs \\usepackage{booktabs}."]
    for view in views(table):
        columns = "l" + "r" * (len(view.header) - 1)
        text += [
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{_escape(view.title)}. {_escape(' '.join(view.notes))}}}",
            f"\\label{{tab:{view.name}}}",
            f"\\begin{{tabular}}{{{columns}}}",
            "\\toprule",
            _latex_row(view.header),
            "\\midrule",
            *(_latex_row(row) for row in view.rows),
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
            "",
        ]
    return "\n".join(text).rstrip("\n") + "\n"


CSV_HEADER = (
    "method",
    "seeds",
    "task",
    "metric",
    "items",
    "mean",
    "low",
    "high",
    "interval",
    "retained",
    "retained_low",
    "retained_high",
    "forgotten",
    "logprob",
    "teacher_tokens",
    "student_tokens",
    "reference",
    "difference",
    "difference_low",
    "difference_high",
    "p_bootstrap",
    "p_bootstrap_holm",
    "p_mcnemar",
    "p_mcnemar_holm",
)


def comma_separated(table: TableFile) -> str:
    """One line a method and task with every figure unrounded; sweeps too."""
    compared = {(one.method, one.task): one for one in table.comparisons}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for row in (*table.rows, *table.sweeps):
        for task in table.tasks:
            score, kept = row.scores[task.name], row.retained.get(task.name)
            lost, logprob = row.lost.get(task.name), row.logprob.get(task.name)
            writer.writerow(
                [
                    row.method,
                    len(row.seeds),
                    task.name,
                    task.metric,
                    score.clusters,
                    score.mean,
                    score.low,
                    score.high,
                    score.method,
                    *((None, None, None) if kept is None else (kept.value, kept.low, kept.high)),
                    None if lost is None else lost.value,
                    None if logprob is None else logprob.mean,
                    row.teacher_tokens,
                    row.student_tokens,
                    *_compared_fields(table.reference, compared.get((row.method, task.name))),
                ]
            )
    return file.getvalue()


def _compared_fields(
    reference: str | None, one: Comparison | None
) -> tuple[str | float | None, ...]:
    if one is None:
        return (None,) * 8
    found = one.difference
    return (
        reference,
        found.mean,
        found.low,
        found.high,
        found.p_bootstrap,
        one.p_bootstrap_holm,
        found.p_mcnemar,
        one.p_mcnemar_holm,
    )


# -- cells ---------------------------------------------------------------------------------------


def label(method: str) -> str:
    """How a method is called in tables."""
    return LABELS.get(method, method)


def percent(value: Estimate) -> str:
    """`81.2 [78.0, 84.1]`."""
    return f"{100 * value.mean:.1f} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def points_from(value: Difference) -> str:
    """`3.2 points above`, `0.4 points below`, or `level with`."""
    points = f"{abs(100 * value.mean):.1f}"
    if points == "0.0":
        return "level with"
    return f"{points} points {'above' if value.mean > 0 else 'below'}"


def nats(value: Estimate | None) -> str:
    """As `percent`, unscaled with three decimals; `-` for None."""
    return "-" if value is None else f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"


def share_text(value: Share | None) -> str:
    """As `percent`; `-` where it isn't defined."""
    if value is None or value.value is None or value.low is None or value.high is None:
        return "-"
    return f"{100 * value.value:.1f} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def count(value: float) -> str:
    """`12,345`."""
    return f"{value:,.0f}"


def p_value(value: float) -> str:
    """Three decimals, or `< 0.001`."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _marks(comparisons: Iterable[Comparison]) -> dict[tuple[str, str], str]:
    marks: dict[tuple[str, str], str] = {}
    for one in comparisons:
        mark = "*" if one.p_bootstrap_holm < ALPHA else ""
        if one.p_mcnemar_holm is not None and one.p_mcnemar_holm < ALPHA:
            mark += "†"
        marks[one.method, one.task] = f" {mark}" if mark else ""
    return marks


def _mark_notes(table: TableFile) -> tuple[str, ...]:
    if not table.comparisons:
        return ()
    return (
        f"Differs from {table.reference} after Holm's correction at {ALPHA:g}: * by the paired "
        "bootstrap, † by McNemar's test (right-or-wrong tasks alone).",
    )


def _sizes(table: TableFile) -> tuple[str, ...]:
    seeds = sorted({len(row.seeds) for row in table.rows if row.seeds})
    items = ", ".join(f"{task.name} {_items(table.rows, task.name)}" for task in table.tasks)
    trained = " or ".join(map(str, seeds)) if seeds else "no"
    notes = [f"Items: {items}. Training seeds of a method: {trained}; figures are means over them."]
    if len(table.tasks) > 1 and any(task.name == PROBES for task in table.tasks):
        notes.append(
            "Probes are held-out items of the source that the methods' seeds are from; the mean of "
            "tasks is without them."
        )
    return tuple(notes)


def _items(rows: Sequence[Row], task: str) -> int:
    return rows[0].scores[task].clusters if rows else 0


def _interval_note(table: TableFile) -> str:
    return (
        "Intervals in brackets: 95 %, Wilson's for one seed's right-or-wrong items, else "
        f"percentiles of {table.resamples:,} resamples of seeds and items."
    )


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_escape, cells)) + " \\\\"


_LATEX = {
    "\\": "\\textbackslash{}",
    "&": "\\&",
    "%": "\\%",
    "$": "\\$",
    "#": "\\#",
    "_": "\\_",
    "{": "\\{",
    "}": "\\}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "†": "$\\dagger$",
    # At the beginning of a row a bracket would be read as an option.
    "[": "{[}",
    "]": "{]}",
}


def _escape(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
