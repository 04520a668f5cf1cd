"""What reviewers of the paper asked, answered by a run's figures."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ioa_jax.report.finished import FinishedRun, Gates, read_finished
from ioa_jax.report.page import View
from suite.cells import ORACLE, UNDISTILLED
from suite.report.gates import HEADER, gates_by_module
from suite.report.tables import count, is_significant, label, p_value, percent, points_from
from suite.results import CellResult, RunResult
from suite.schema import check
from suite.schema.models import Row, SpendRecord, TableFile
from suite.stats import mean_interval

MATCHED = "sft_matched"
# Settings that say how many seed items there are, and how many examples are written for each.
SIZES = ("seeds", "adapter.examples_per_seed")


QUESTIONS = {
    "matched": "Is it better than fine-tuning on as many teacher tokens?",
    "gates": "How often is the gate passed without remediation, and what does remediation cost?",
    "passed": "How many modules and stages pass their gates, and how many could?",
    "passed-by-module": "Which modules and stages pass their gates?",
    "levels": "Do lessons have the range of difficulty that is tested?",
    "earlier-stages": "How much of earlier stages is forgotten?",
    "agreement": "How much do modules, graph and targets agree between seeds?",
    "seconds": "Where does the time go?",
    "tokens": "What are the teacher's tokens spent on?",
    "training": "What are the student's tokens spent on?",
    "sizes": "What do more seeds, and more examples a seed, buy?",
}
NO_FOLDER = "No finished cell has the folder that IOA and its controls leave (distill/)."


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the run has to say to a question.

    Attributes:
        text: The answer in words, a paragraph a line.
        header: Of the table of its figures; () where there are none.
        rows: Of the table.
        notes: What stands under it.
        name: For its anchor.
        question: In words.
    """

    text: str
    header: tuple[str, ...] = ()
    rows: Sequence[tuple[str, ...]] = ()
    notes: tuple[str, ...] = ()
    name: str = ""
    question: str = ""

    @property
    def view(self) -> View | None:
        """The figures; None where there are none."""
        if not self.header:
            return None
        return View(self.name, self.question, self.header, tuple(self.rows), self.notes)


@dataclasses.dataclass(frozen=True)
class Taught:
    """A finished cell with the folder that IOA and its controls leave in it."""

    cell: CellResult
    run: FinishedRun


ByMethod = Mapping[str, Sequence[Taught]]


def taught_of(result: RunResult, method: str) -> tuple[Taught, ...]:
    """Of a method's finished cells, those that have such a folder.

    Raises:
        InputError: A file in one is missing or doesn't fit.
    """
    with result.files.naming():
        return tuple(
            Taught(cell, read_finished(cell.distill, cell.name))
            for cell in result.cells_of(method)
            if cell.distill.is_dir()
        )


def shown(result: RunResult, table: TableFile) -> list[FinishedRun]:
    """The runs whose course the report shows: the reference's, else of the first method that has
    some.
    """
    methods = [row.method for row in table.rows]
    for method in sorted(methods, key=lambda name: name != table.reference):
        found = taught_of(result, method)
        if found:
            return [one.run for one in found]
    return []


def answers(result: RunResult, table: TableFile) -> list[Answer]:
    """All of them, in the page's order."""
    by_method = {
        row.method: found for row in table.rows if (found := taught_of(result, row.method))
    }
    oracle = _oracle_gates(result)
    found = {
        "matched": _matched(table),
        "gates": _gates(by_method),
        "passed": _passed(by_method, oracle),
        "passed-by-module": _passed_by_module(by_method, table.reference, oracle),
        "levels": _levels(by_method, table.reference),
        "earlier-stages": _forgetting(by_method),
        "agreement": _agreement(by_method, table.reference),
        "seconds": _steps(result, table),
        "tokens": _tokens(result, table),
        "training": _training(result, table),
        "sizes": _sizes(table),
    }
    return [
        dataclasses.replace(answer, name=name, question=QUESTIONS[name])
        for name, answer in found.items()
    ]


def _oracle_gates(result: RunResult) -> dict[int | None, Gates]:
    """By seed, the gates that the oracle's students pass at the end; its cells have no folder, and
    say it in their notes.
    """
    return {
        cell.file.seed: check(
            Gates,
            (cell.file.notes.model_extra or {}).get("gates", {}),
            result.files.named(f"{cell.folder / 'cell.json'}: notes.gates"),
        )
        for cell in result.cells_of(ORACLE)
    }


def _matched(table: TableFile) -> Answer:
    found = [one for one in table.comparisons if one.method == MATCHED]
    if not found:
        return Answer(f"The run has no comparison with {MATCHED}.")
    sentences = []
    for one in found:
        value = one.difference
        sure = is_significant(one)
        sentences.append(
            f"{one.task}: {table.reference} is {points_from(value)} {MATCHED} ["
            f"{100 * value.low:+.1f}, {100 * value.high:+.1f}], "
            f"{'more than chance explains' if sure else 'which chance may explain'} "
            f"(p {_p(one.p_bootstrap_holm)} after Holm's correction)."
        )
    return Answer("\n".join(sentences))


def _p(value: float) -> str:
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"


def _gates(by_method: ByMethod) -> Answer:
    if not by_method:
        return Answer(NO_FOLDER)
    rows = []
    for method, cells in by_method.items():
        first = [gate for one in cells for gate in one.run.gates if gate.remedial_round == 0]
        passed = [float(gate.passed) for gate in first]
        interval = mean_interval(passed, [str(i) for i in range(len(passed))]) if passed else None
        shown = "-" if interval is None else percent(interval)
        means = np.mean([_remediation(one) for one in cells], axis=0)
        rows.append((label(method), str(len(first)), shown, *(f"{mean:.1f}" for mean in means)))
    return Answer(
        "A stage's first gate (Eq. 9) comes after its lessons. Where it isn't passed, lessons for "
        "the weak modules alone are written: in stages that follow each other they are trained on "
        "at once, and after a first pass through all stages with everything else.",
        (
            "method",
            "stages",
            "passed at once, %",
            "remedial rounds a seed",
            "modules given up a seed",
            "student tokens in remediation, %",
            "teacher tokens in remediation, %",
        ),
        rows,
        (
            "Stages of all seeds together, with Wilson's 95 % interval as if they were "
            "independent. Tokens: of all that the cell spent, means over seeds.",
        ),
    )


def _passed(by_method: ByMethod, oracle: Mapping[int | None, Gates]) -> Answer:
    rows = []
    for method, cells in by_method.items():
        gates = [one.run.record.gates for one in cells]
        if not any(one.end for one in gates):
            continue
        # The oracle's of the same seed, on the modules that this cell taught.
        most = [
            {module: oracle[seed].end[module] for module in own.end if module in oracle[seed].end}
            for own, one in zip(gates, cells, strict=True)
            if (seed := one.cell.file.seed) in oracle
        ]
        rows.append(
            (
                label(method),
                _of_all([one.first_pass for one in gates]),
                _of_all([one.end for one in gates]),
                _of_all(most),
                _of_all([one.stages_end for one in gates]),
            )
        )
    if not rows:
        return Answer("No cell recorded its gates by module.")
    return Answer(
        "Passed of measured gates, over all seeds.",
        (
            "method",
            "modules after the first pass",
            "modules at the end",
            "of the same, the oracle",
            "stages at the end",
        ),
        rows,
        (
            "The oracle is the student after unlimited right answers, under the same gate: "
            "what it doesn't pass, no budget of the teacher's would. - where the run has none.",
        ),
    )


def _passed_by_module(
    by_method: ByMethod, reference: str | None, oracle: Mapping[int | None, Gates]
) -> Answer:
    method = reference if reference in by_method else next(iter(by_method), None)
    cells = by_method[method] if method is not None else ()
    own = [one.run.record.gates for one in cells]
    rows = gates_by_module(
        own, [oracle[seed] for one in cells if (seed := one.cell.file.seed) in oracle]
    )
    if not rows:
        return Answer("No cell recorded its gates by module.")
    return Answer(
        f"Seeds of {method} in which a gate is passed, of those in which it was measured. A stage "
        "passes with all of its modules; which these are differs between seeds.",
        HEADER,
        rows,
    )


def _of_all(gates: Sequence[Mapping[str, bool]]) -> str:
    """`9 of 14 (64 %)`."""
    passed = [one for own in gates for one in own.values()]
    if not passed:
        return "-"
    return f"{sum(passed)} of {len(passed)} ({100 * sum(passed) / len(passed):.0f} %)"


def _levels(by_method: ByMethod, reference: str | None) -> Answer:
    method = reference if reference in by_method else next(iter(by_method), None)
    records = [one.run.record for one in by_method[method]] if method is not None else []
    lessons = _summed([one.lessons_by_level for one in records])
    if not lessons:
        return Answer("No cell recorded its lessons by level.")
    probes = _summed([one.probes_by_level for one in records])
    return Answer(
        f"Lessons of {method} beside the probes, over all seeds.",
        ("level", "lessons", "of all, %", "probes", "of all, %"),
        tuple(
            (level, *_part(lessons, level), *_part(probes, level))
            for level in dict.fromkeys([*lessons, *probes])
        ),
    )


def _summed(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    found: collections.Counter[str] = collections.Counter()
    for own in counts:
        found.update(own)
    return found


def _part(counts: Mapping[str, int], name: str) -> tuple[str, str]:
    """A count and its share of all; `-` where nothing was counted."""
    total = sum(counts.values())
    if not total:
        return "-", "-"
    return count(counts.get(name, 0)), f"{100 * counts.get(name, 0) / total:.0f}"


def _remediation(one: Taught) -> tuple[float, ...]:
    """Rounds, modules given up, and of the student's and the teacher's tokens the % of remedial
    parts, and of what the gates were waited for with.
    """
    record, spend = one.run.record, one.cell.file.spend
    parts = record.spend.student_tokens_by_part
    shares = [
        100
        * sum(n for part, n in own.items() if "remedial" in part or part == "late")
        / (total or 1)
        for own, total in (
            (parts, spend.student_tokens),
            (one.run.teacher_tokens(spend.teacher_tokens), spend.teacher_tokens),
        )
    ]
    return (sum("remedial" in part for part in parts), len(record.parked), *shares)


def _forgetting(by_method: ByMethod) -> Answer:
    if not by_method:
        return Answer(NO_FOLDER)
    rows = []
    for method, cells in by_method.items():
        falls, known = [], []
        for one in cells:
            found, taught = one.run.forgetting.forgetting(), one.run.taught
            falls.append([value for module, value in found.items() if module in taught])
            known.append([value for module, value in found.items() if module not in taught])
        rows.append(
            (label(method), *(_mean_of(values) for values in (falls, known)), _worst(cells))
        )
    return Answer(
        "How far r(k) is, at the end, under the best that it was after any stage; below 0 the end "
        "is the best.",
        ("method", "taught modules, mean fall", "other modules, mean fall", "largest fall"),
        rows,
        (
            "Mean over modules and seeds of max r(k) before the end minus r(k) at the end "
            "(Chaudhry et al., 2018, Eq. 3), on the method's own probes. The best of several "
            "noisy measurements is too high, so some of each fall is noise. What benchmark "
            "items lost is in the table of shares.",
        ),
    )


def _mean_of(values: Sequence[Sequence[float]]) -> str:
    flat = list(itertools.chain.from_iterable(values))
    return f"{np.mean(flat):.3f}" if flat else "-"


def _worst(cells: Sequence[Taught]) -> str:
    falls = [(v, m) for one in cells for m, v in one.run.forgetting.forgetting().items()]
    if not falls:
        return "-"
    value, module = max(falls)
    return f"{value:.3f} ({module})"


def _agreement(by_method: ByMethod, reference: str | None) -> Answer:
    method = reference if reference in by_method else next(iter(by_method), None)
    if method is None:
        return Answer(NO_FOLDER)
    cells = by_method[method]
    if len(cells) < 2:
        return Answer(f"{method} has one finished seed; two are needed.")
    parts = {
        "modules": [frozenset(one.run.diagnosis.graph.modules) for one in cells],
        "edges of the graph": [one.run.edges for one in cells],
        "targets": [frozenset(one.run.diagnosis.targets.modules) for one in cells],
    }
    rows = []
    for what, sets in parts.items():
        pairs = [_jaccard(a, b) for a, b in itertools.combinations(sets, 2)]
        common = len(frozenset.intersection(*sets))
        rows.append(
            (
                what,
                f"{np.mean(pairs):.2f}",
                f"{min(pairs):.2f}",
                str(common),
                f"{np.mean([len(one) for one in sets]):.1f}",
            )
        )
    return Answer(
        f"Of {method}, {len(cells)} seeds.",
        ("what", "agreement", "least of two seeds", "in all seeds", "mean number"),
        rows,
        (
            "Agreement: members that two seeds share over members that either has, mean over "
            "all pairs of seeds; 1 is the same set.",
        ),
    )


def _jaccard(a: frozenset, b: frozenset) -> float:
    return len(a & b) / len(a | b) if a | b else 1.0


def _steps(result: RunResult, table: TableFile) -> Answer:
    found = {
        row.method: [cell.file.spend.seconds for cell in result.cells_of(row.method)]
        for row in table.rows
    }
    steps, rows = _by_method(found, lambda seconds: f"{seconds:,.1f}")
    if not steps:
        return Answer("No cell recorded its seconds.")
    return Answer(
        "Wall clock of each step in seconds, mean over the seeds.",
        ("method", *(f"{step}, s" for step in steps)),
        rows,
        (
            "Compilation included; all but evaluation are parts of the column method. Of a "
            "step in which a process was killed, what that process took is missing. Answers "
            "that another cell had asked the teacher for come from the ledger, and "
            "dependencies that another cell had estimated from there; they take no time, so a "
            "later cell seems quicker.",
        ),
    )


def _by_method(
    found: Mapping[str, Sequence[Mapping[str, float]]], text: Callable[[float], str]
) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Figures with names, by method and cell, as a table of means.

    Returns:
        The columns' names, and a row a method: its name, and a mean or `-` for each of them.
    """
    own_names = [
        tuple(dict.fromkeys(itertools.chain.from_iterable(cells))) for cells in found.values()
    ]
    # What most methods have stands first, and of the rest the longest row tells the order.
    usage = collections.Counter(itertools.chain.from_iterable(own_names))
    ordered = dict.fromkeys(itertools.chain.from_iterable(sorted(own_names, key=len, reverse=True)))
    names = tuple(sorted(ordered, key=lambda name: -usage[name]))
    rows = tuple(
        (
            label(method),
            *(
                text(sum(cell.get(name, 0) for cell in own) / len(own))
                if any(name in cell for cell in own)
                else "-"
                for name in names
            ),
        )
        for method, own in found.items()
        if any(own)
    )
    return names, rows


def _tokens(result: RunResult, table: TableFile) -> Answer:
    rows: list[tuple[str, ...]] = []
    for row in table.rows:
        cells = result.cells_of(row.method)
        purposes = sorted({purpose for cell in cells for purpose in cell.file.spend.by_purpose})
        for purpose in purposes:
            own = [
                cell.file.spend.by_purpose[purpose]
                for cell in cells
                if purpose in cell.file.spend.by_purpose
            ]
            rows.append(
                (
                    label(row.method),
                    purpose,
                    *(
                        count(sum(getattr(one, field) for one in own) / len(cells))
                        for field in ("calls", "prompt_tokens", "completion_tokens")
                    ),
                )
            )
    if not rows:
        return Answer("No cell asked a teacher.")
    return Answer(
        "Calls and tokens by purpose, mean over the seeds.",
        ("method", "purpose", "calls", "prompt tokens", "generated tokens"),
        rows,
        ("The budget counts generated tokens.",),
    )


def _training(result: RunResult, table: TableFile) -> Answer:
    found = {
        row.method: [_by_kind(cell.file.spend) for cell in result.cells_of(row.method)]
        for row in table.rows
    }
    kinds, rows = _by_method(found, count)
    if not kinds:
        return Answer("No cell recorded the parts of its training.")
    return Answer(
        "Tokens trained on by part, mean over the seeds.",
        ("method", *kinds),
        rows,
        (
            "Parts of a kind, such as all stages, together. further: of no step of the "
            "training, which in IOA are the adapters by which dependencies are found.",
        ),
    )


def _by_kind(spend: SpendRecord) -> dict[str, int]:
    """Student tokens by the parts' names without their numbers."""
    found: dict[str, int] = {}
    for part, tokens in spend.student_tokens_by_part.items():
        kind = re.sub(r"-?\d+", "", part)
        found[kind] = found.get(kind, 0) + tokens
    return found


def _sizes(table: TableFile) -> Answer:
    # By method, setting and value, so that a method stands once with its usual value.
    found: dict[tuple[str, str, float], Row] = {}
    by_name = {row.method: row for row in table.rows}
    for row in table.sweeps:
        if row.sweep is not None and row.sweep.setting in SIZES:
            of, setting = row.sweep.of, row.sweep.setting
            found[of, setting, row.sweep.value] = row
            if of in by_name:
                found[of, setting, row.sweep.default] = by_name[of]
    if not found:
        return Answer(f"The run has no cells in which {' or '.join(SIZES)} alone is changed.")
    before = by_name.get(UNDISTILLED)
    return Answer(
        "Mean of the tasks with one of the two changed, budgets as they are.",
        ("method@setting", "value", "mean of tasks, %", "gain over the undistilled, points"),
        tuple(
            (
                f"{of}@{setting}",
                f"{value:g}",
                percent(row.mean),
                "-" if before is None else f"{100 * (row.mean.mean - before.mean.mean):+.1f}",
            )
            for (of, setting, value), row in sorted(found.items(), key=lambda one: one[0])
        ),
    )
