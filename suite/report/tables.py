"""A run's figures as tables: for people (Markdown, LaTeX, HTML) and for programs (CSV)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from ioa_jax.report.page import View
from suite.cells import TEACHER, UNDISTILLED
from suite.probes import PROBES
from suite.schema.models import Comparison, ModuleComparison, PowerFile, Row, TableFile, TaskRecord
from suite.stats import Difference, Estimate, Share

ALPHA = 0.05
# A world in which uniform and oracle are fewer standard deviations apart can't tell methods apart.
LEAST_RATIO = 5.0
LABELS = {TEACHER: "teacher (reference line)", UNDISTILLED: "undistilled student"}


def views(table: TableFile) -> list[View]:
    """The tables that have something in them, the comparison first."""
    found = [comparison_view(table)]
    if any(row.modules for row in table.rows):
        found.append(module_view(table))
    if table.module_comparisons:
        found.append(module_difference_view(table))
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


def module_view(table: TableFile) -> View:
    """Methods by what they reach over modules."""
    marks = {
        (one.method, one.over): " *" for one in table.module_comparisons if is_significant(one)
    }
    deficient = table.deficient_modules or []
    rows: list[tuple[str, ...]] = []
    for row in table.rows:
        assert row.modules is not None
        found = row.modules
        rows.append(
            (
                label(row.method),
                _marked(found.all, marks.get((row.method, "all"), "")),
                _marked(found.deficient, marks.get((row.method, "deficient"), "")),
                _marked(found.others, ""),
                f"{found.worst.module}: {100 * found.worst.score:.1f}",
            )
        )
    notes = [
        "Means of the modules' means, each module with the same weight; seeds and the items of "
        "each module are resampled, the modules are not."
    ]
    if table.deficient_modules is None:
        notes.append(
            "Which modules were deficient isn't known: teacher and undistilled student weren't "
            "both measured."
        )
    else:
        notes.append(
            "Deficient, for every method alike: on the items of this run the undistilled student "
            f"has less than {table.deficient_below:g} of the teacher's score. Its own means are "
            "of the items by which modules were chosen, and so somewhat too far apart; "
            f"comparisons of other methods aren't touched. They are {', '.join(deficient) or '-'}."
        )
    if table.module_comparisons:
        notes.append(
            f"*: differs from {table.reference} by the paired bootstrap after Holm's correction at "
            f"{ALPHA:g}."
        )
    number = len(table.modules)
    others = 0 if table.deficient_modules is None else number - len(deficient)
    return View(
        "modules",
        "Methods by modules",
        (
            "method",
            f"all modules ({number}), %",
            f"deficient modules ({len(deficient)}), %",
            f"other modules ({others}), %",
            "worst module, %",
        ),
        tuple(rows),
        tuple(notes),
    )


def _marked(value: Estimate | None, mark: str) -> str:
    return "-" if value is None else percent(value) + mark


def module_difference_view(table: TableFile) -> View:
    """The reference method minus the others, over modules."""
    rows = tuple(
        (
            label(one.method),
            one.over,
            points(one.difference),
            p_value(one.p_bootstrap_holm),
            f"{one.difference.seeds} x {one.difference.pairs // one.difference.seeds}",
        )
        for one in table.module_comparisons
    )
    return View(
        "module-differences",
        f"{table.reference} minus each other method over modules, in points of 100",
        ("method", "modules", "difference", "p, bootstrap", "N"),
        rows,
        (f"p are two-sided and corrected by Holm over the {len(rows)} rows. N is seeds x items.",),
    )


def difference_view(table: TableFile) -> View:
    """The reference method minus the others."""
    exact = any(one.p_mcnemar_holm is not None for one in table.comparisons)
    rows = tuple(
        (
            label(one.method),
            one.task,
            points(one.difference),
            p_value(one.p_bootstrap_holm),
            "-"
            if one.difference.wins is None
            else f"{one.difference.wins} : {one.difference.losses}",
            *(
                ("-" if one.p_mcnemar_holm is None else p_value(one.p_mcnemar_holm),)
                if exact
                else ()
            ),
            f"{one.difference.seeds} x {one.difference.pairs // one.difference.seeds}",
        )
        for one in table.comparisons
    )
    notes = [
        "Pairs are answers to one item with one seed; N is seeds x items. Intervals: 95 %, "
        f"{table.resamples:,} resamples of seeds and items.",
        f"p are two-sided and corrected by Holm over the {len(table.comparisons)} rows, each "
        "test by itself.",
    ]
    if exact:
        notes.append("McNemar's exact test is of right-or-wrong tasks with one seed alone.")
    return View(
        "differences",
        f"{table.reference} minus each other method, in points of 100",
        (
            "method",
            "task",
            "difference",
            "p, bootstrap",
            "wins : losses",
            *(("p, McNemar",) if exact else ()),
            "N",
        ),
        rows,
        tuple(notes),
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
    if table.power is not None:
        text += [power_sentence(table.power), ""]
    for view in views(table):
        text += [f"## {view.title}", "", _markdown_row(view.header)]
        text.append("| --- |" + " ---: |" * (len(view.header) - 1))
        text += [_markdown_row(row) for row in view.rows]
        text += ["", *(f"- {note}" for note in view.notes), ""]
    text += [f"Not in the tables: {one.cell}, {one.reason}." for one in table.unfinished]
    return "\n".join(text).rstrip("\n") + "\n"


def power_sentence(power: PowerFile) -> str:
    """What a comparison under the run's settings can find, and whether that is enough."""
    seeds = ", ".join(map(str, power.oracle.by_seed))
    enough = power.ratio >= LEAST_RATIO
    return (
        f"Power: the untaught student has {100 * power.untaught.mean:.1f} % (mean over all "
        f"modules), right answers to problems of all modules within the budgets bring "
        f"{100 * power.uniform.mean:.1f} %, unlimited ones to problems of the deficient modules, "
        f"with the others retained, {100 * power.oracle.mean:.1f} %. The standard deviation over "
        f"seeds is {100 * power.seed_sd:.2f} points: the two are {power.ratio:.1f} of it apart"
        f"{'' if enough else f', fewer than the {LEAST_RATIO:g} that a comparison needs'}. "
        f"Measured in run {power.run_id} of {power.profile}, seeds {seeds}."
    )


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


CSV_HEADER: str = (
    "method,seeds,task,metric,items,mean,low,high,interval,retained,retained_low,retained_high,"
    "forgotten,logprob,teacher_tokens,student_tokens,reference,difference,difference_low,"
    "difference_high,p_bootstrap,p_bootstrap_holm,p_mcnemar,p_mcnemar_holm"
)


def comma_separated(table: TableFile) -> str:
    """One line a method and task with every figure unrounded; sweeps too."""
    compared = {(one.method, one.task): one for one in table.comparisons}
    rows = [
        _figures(row, task, compared.get((row.method, task.name)), table.reference)
        for row in (*table.rows, *table.sweeps)
        for task in table.tasks
    ]
    file = io.StringIO()
    writer = csv.DictWriter(file, CSV_HEADER.split(","), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _figures(
    row: Row, task: TaskRecord, one: Comparison | None, reference: str | None
) -> dict[str, str | float | None]:
    score, kept = row.scores[task.name], row.retained.get(task.name)
    lost, logprob = row.lost.get(task.name), row.logprob.get(task.name)
    found = None if one is None else one.difference
    return {
        "method": row.method,
        "seeds": len(row.seeds),
        "task": task.name,
        "metric": task.metric,
        "items": score.clusters,
        "mean": score.mean,
        "low": score.low,
        "high": score.high,
        "interval": score.method,
        "retained": kept and kept.value,
        "retained_low": kept and kept.low,
        "retained_high": kept and kept.high,
        "forgotten": lost and lost.value,
        "logprob": logprob and logprob.mean,
        "teacher_tokens": row.teacher_tokens,
        "student_tokens": row.student_tokens,
        "reference": one and reference,
        "difference": found and found.mean,
        "difference_low": found and found.low,
        "difference_high": found and found.high,
        "p_bootstrap": found and found.p_bootstrap,
        "p_bootstrap_holm": one and one.p_bootstrap_holm,
        "p_mcnemar": found and found.p_mcnemar,
        "p_mcnemar_holm": one and one.p_mcnemar_holm,
    }


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


def points(value: Difference) -> str:
    """`+1.2 [-0.3, +2.7]`."""
    return f"{100 * value.mean:+.1f} [{100 * value.low:+.1f}, {100 * value.high:+.1f}]"


def is_significant(one: Comparison | ModuleComparison) -> bool:
    """What marks, sentences and answers call a difference: by the corrected p of the bootstrap."""
    return one.p_bootstrap_holm < ALPHA


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
        mark = "*" if is_significant(one) else ""
        if one.p_mcnemar_holm is not None and one.p_mcnemar_holm < ALPHA:
            mark += "†"
        marks[one.method, one.task] = f" {mark}" if mark else ""
    return marks


def _mark_notes(table: TableFile) -> tuple[str, ...]:
    if not table.comparisons:
        return ()
    exact = ""
    if any(one.p_mcnemar_holm is not None for one in table.comparisons):
        exact = ", † by McNemar's test (right-or-wrong tasks with one seed)"
    return (
        f"Differs from {table.reference} after Holm's correction at {ALPHA:g}: * by the paired "
        f"bootstrap{exact}.",
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


# At the beginning of a row a bracket would be read as an option.
_LATEX = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
_LATEX |= {"<": "$<$", ">": "$>$", "†": "$\\dagger$", "[": "{[}", "]": "{]}"}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


def _escape(text: str) -> str:
    return text.translate(str.maketrans(_LATEX))
