"""Sections of a page: what the Identifier, the Organizer and a run found, in plots and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ioa_jax.adapter.forms import FORMS, FormChoice
from ioa_jax.conclusion import module_rows
from ioa_jax.identifier.decomposers import Decomposition
from ioa_jax.identifier.dependency import edge_ends
from ioa_jax.identifier.diagnosis import Diagnosis
from ioa_jax.identifier.gap import Interval, ModuleGap
from ioa_jax.organizer.curriculum import Curriculum
from ioa_jax.organizer.mastery import GateResult
from ioa_jax.organizer.retention import ForgettingMatrix
from ioa_jax.report import course
from ioa_jax.report.charts import WIDTH, Bar, Curve, bar_chart, draw_curves
from ioa_jax.report.draw import Plot, draw_plot, series_look
from ioa_jax.report.finished import Excluded, Record, RunSpend
from ioa_jax.report.page import Block, Columns, Details, Section, Text, View
from ioa_jax.teachers.spend import Usage

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def outcome_section(record: Record) -> Section:
    """What came out, and the table of all modules before, after and without the teacher."""
    # The first line is the conclusion; an example that stands under it is the teacher's own text.
    first, _, example = record.conclusion.partition("\n")
    blocks: list[Block] = [Text(first, "strong")]
    if example:
        blocks.append(Text(example, "verbatim"))
    header = ("module", "state", "teacher", "before", "after", "SFT baseline")
    rows = module_rows(record.model_dump())
    if record.baseline is None:
        header, rows = header[:-1], [row[:-1] for row in rows]
    note = (
        f"The mean over held-out tasks of each module, by the scorer {record.scorer}. SFT "
        "baseline: a student that was fine-tuned on the seeds' references alone, with the same "
        "number of tokens."
    )
    blocks.append(View("outcome", "Modules before and after", header, tuple(rows), (note,)))
    return Section("outcome", "What came out", blocks)


def diagnosis_sections(diagnosis: Diagnosis) -> tuple[Section, ...]:
    """Gaps, dependencies, severity and targets, and the table of all modules."""
    return (
        gap_section(diagnosis),
        graph_section(diagnosis),
        target_section(diagnosis),
        module_section(diagnosis),
    )


def gap_section(diagnosis: Diagnosis) -> Section:
    """Eq. 2 of every module, the largest gap first, with intervals and τ_gap."""
    text = (
        "How far the student is behind the teacher, relative to the teacher (Eq. 2), with its "
        "interval, the wider the fewer probes there are; behind each bar the gap, and the "
        f"teacher's and the student's {diagnosis.measurement.scorer}. The dashed line is τ_gap "
        f"({diagnosis.tau_gap:g}); red bars are deficient (Eq. 6)."
    )
    blocks: list[Block] = [course.gaps("Relative gap of every module", text, diagnosis)]
    if diagnosis.set_aside:
        names = ", ".join(diagnosis.set_aside)
        blocks.append(f"Set aside, since the teacher can't teach them: {names}.")
    for name, value in diagnosis.measurement.rank_correlation.items():
        figure = "not defined" if value is None else f"{value:.2f}"
        blocks.append(f"Rank correlation of the two scorers over modules, {name}: {figure}.")
    return Section("gaps", "Gap by module", blocks)


def graph_section(diagnosis: Diagnosis) -> Section:
    """The dependency graph, and how it was found."""
    graph, estimate = diagnosis.graph, diagnosis.dependencies
    states = 0 if estimate.population is None else len(estimate.population.states)
    text = (
        f"Dependencies above τ_dep (Eq. 3), from {estimate.estimator} with {states} states of "
        f"the student ({estimate.student_tokens:,} tokens trained on). Thick lines are strong; "
        "dashed ones come from the upper and lower third of the states, dotted ones from what "
        "the teacher named. Red frames are targets, orange ones other deficient modules."
    )
    blocks: list[Block] = [course.graph("Dependency graph of the modules", text, diagnosis)]
    if graph.edges:
        rows = tuple(
            (a, b, f"{edge.value:.2f}", edge.estimator, f"{edge.num_high} / {edge.num_low}")
            for edge in graph.edges
            for a, b in (edge_ends(edge),)
        )
        header = ("prerequisite", "dependent", "Dep", "estimator", "states high / low")
        table = View("edges", "Dependencies", header, rows)
        blocks.append(Details("The edges as a table", [table]))
    used = {module for edge in graph.edges for module in edge_ends(edge)}
    alone = [module for module in graph.modules if module not in used]
    if alone:
        blocks.append(f"Without any dependency: {', '.join(alone)}.")
    if estimate.left_out:
        names = ", ".join(estimate.left_out)
        blocks.append(f"Seeds too long for the adapters' rows: {names}.")
    for drop in graph.dropped:
        blocks.append(f"Dropped: {' → '.join(edge_ends(drop.edge))}, {drop.reason}.")
    return Section("dependencies", "Dependencies", blocks)


def target_section(diagnosis: Diagnosis) -> Section:
    """Eq. 4 of the deficient modules, and which of them are targets (Eq. 5)."""
    targets, title = diagnosis.targets, "Severity and targets"
    if not targets.severities:
        return Section("targets", title, ["No module is deficient."])
    bars = [
        Bar(
            entry.module,
            entry.value,
            f"{entry.value:.2f} · gap {entry.gap:.2f}, dep {entry.mean_dependency:.2f}",
            "red" if entry.module in targets.modules else "soft",
        )
        for entry in targets.severities
    ]
    text = (
        "Severity of the deficient modules (Eq. 4): their gap, and the mean dependency of the "
        f"modules that need them. The {targets.limit} most severe at most are targets (Eq. 5), in "
        "red."
    )
    plot = bar_chart("severity", "Severity of the deficient modules", text, bars, "severity")
    return Section("targets", title, [plot])


def module_section(diagnosis: Diagnosis) -> Section:
    """All figures of all modules, and what became of those that were merged."""
    measurement = diagnosis.measurement
    header = (
        "module",
        "seeds",
        "probes",
        *(f"P_{who} {scorer}" for scorer in measurement.teacher for who in ("T", "S")),
        "Δ",
        f"g, nats a {measurement.unit or 'token'}",
        "state",
    )
    rows = tuple(_module_row(diagnosis, gap) for gap in diagnosis.gaps)
    notes = _decomposition_notes(diagnosis.decomposition)
    return Section("modules", "Modules", [*notes, View("modules", "Modules", header, rows)])


def _module_row(diagnosis: Diagnosis, gap: ModuleGap) -> tuple[str, ...]:
    groups = {
        "set aside": diagnosis.set_aside,
        "target": diagnosis.targets.modules,
        "deficient": diagnosis.deficient,
    }
    state = next((name for name, modules in groups.items() if gap.module in modules), "")
    measurement = diagnosis.measurement
    return (
        gap.module,
        str(len(diagnosis.decomposition.items(gap.module, "seed"))),
        str(gap.num_probes),
        *(
            f"{measured[scorer][gap.module].mean:.3f}"
            for scorer in measurement.teacher
            for measured in (measurement.teacher, measurement.student)
        ),
        _figure_of(gap.relative, gap.interval),
        _figure_of(gap.logprob, gap.logprob_interval),
        state,
    )


def _decomposition_notes(found: Decomposition) -> list[str]:
    notes = ["The seeds name their modules."]
    if found.decomposer != "given":
        notes = [f"Found by {found.decomposer} (rule: {found.assignment})."]
    if found.proposals:
        valid = found.valid_proposals
        notes.append(f"Of {found.proposals} proposals of the teacher {valid} were valid.")
    if found.fallback_reason is not None:
        notes.append(f"A fallback for {found.requested}: {found.fallback_reason}.")
    if found.unassigned:
        notes.append(f"Items without a module: {', '.join(found.unassigned)}.")
    for entry in found.merged:
        size = f"{entry.num_seeds} seeds, {entry.num_probes} probes"
        notes.append(
            f"{entry.module} ({size}) "
            + (f"was merged into {entry.into}." if entry.into else "was set aside: too small.")
        )
    return notes


def curriculum_section(curriculum: Curriculum, order: str = "dependencies") -> Section:
    """Stages, and why each module stands where it does; `order` is record.json's."""
    if not curriculum.stages:
        return Section("curriculum", "Curriculum", ["No stages."])
    rows = tuple(
        (
            f"stage {stage.number}",
            ", ".join(stage.modules),
            f"{stage.performance:.2f}",
            "" if stage.bridge is None else f"a bridge of {stage.bridge.direction} examples first",
        )
        for stage in curriculum.stages
    )
    text = "The order follows the dependencies (Eq. 7 and 8)."
    if order == "performance":
        text = (
            "No dependency was found: the graph is empty, and the stages begin with what the "
            "student knows best (Eq. 8)."
        )
    table = View("stages", "Stages", ("stage", "modules", "mean P_S", "before it"), rows)
    why = [place.sentence() for place in curriculum.placements]
    return Section("curriculum", "Curriculum", [text, table, *why])


def lesson_section(record: Record, difficulties: Mapping[str, tuple[float, float]]) -> Section:
    """Examples by level, and how difficult the seeds are that they were made of.

    Args:
        record: Of a run.
        difficulties: (share of the examples, share of the probes) by the seeds' own difficulty.
    """
    count, asked = record.lessons, record.levels_asked
    total = sum(asked.values())
    probes = record.probes_by_level
    text = (
        f"{count:,} examples, and {record.references:,} references of the seeds. Behind each bar "
        "the level's share, the share that was asked for, and the level's share of the taught "
        "modules' probes. Levels are relative to the seed, which is intermediate itself, as probes "
        "are, unless the teacher wrote the whole record (protocol schema)."
    )
    bars = [
        Bar(
            level,
            float(number),
            f"{number:,} · {_percent(number, count)}, asked "
            f"{_percent(asked.get(level, 0), total)}, probes "
            f"{_percent(probes.get(level, 0), sum(probes.values()))}",
        )
        for level, number in record.lessons_by_level.items()
    ]
    plot = bar_chart("levels", "Examples by level", text, bars, "examples")
    blocks: list[Block] = [plot if count else text]
    if difficulties:
        rows = tuple(
            (name, f"{examples:.0%}", f"{probes:.0%}")
            for name, (examples, probes) in difficulties.items()
        )
        header = ("difficulty", "of the seeds of examples", "of the probes")
        blocks.append(View("difficulty", "Difficulty of seeds and probes", header, rows))
    return Section("lessons", "Examples by level", blocks)


def form_section(choices: Mapping[str, FormChoice]) -> Section:
    """The form of each module's answers, as the student chose it."""
    if not choices:
        return Section("forms", "Form of answers", ["The student chose no forms."])
    rows = tuple(
        (
            module,
            choice.form.replace("_", " "),
            *(f"{choice.nll[form]:.3f}" if form in choice.nll else "" for form in FORMS),
        )
        for module, choice in sorted(choices.items())
    )
    header = ("module", "form", *(form.replace("_", " ") for form in FORMS))
    note = (
        "The form under which the references of a module's seeds are likeliest to the student: "
        "mean negative log-likelihood in nats per token, the least is chosen."
    )
    return Section("forms", "Form of answers", [View("forms", "Forms", header, rows, (note,))])


def retention_section(record: Record) -> Section:
    """What is kept as the student was."""
    retained, kind = record.retained, record.retention
    text = f"No module is retained (retention: {kind})."
    if retained.modules:
        text = (
            f"By {kind.replace('_', ' ')}: {', '.join(retained.modules)}. {retained.examples:,} "
            f"examples, of which the teacher wrote {retained.written:,} problems."
        )
    return Section("retention", "Retained modules", [text])


def excluded_section(excluded: Sequence[Excluded]) -> Section:
    """Modules that were given up while examples were written, each with an example."""
    blocks: list[Block] = []
    for one in excluded:
        summary = f"{one.module}: {one.reason}, after {one.calls} calls without an example"
        blocks.append(Details(summary, [Text(one.example, "verbatim")]))
    return Section("excluded", "Excluded modules", blocks or ["No module was excluded."])


def gate_section(gates: Sequence[GateResult], pooled: bool) -> Section:
    """Which modules and stages passed: after the first pass, or the stage's own, and at the end."""
    first = {gate.stage: gate for gate in gates if gate.remedial_round == int(pooled)}
    rows: list[tuple[str, ...]] = []
    for stage, end in sorted({gate.stage: gate for gate in gates}.items()):
        both = first.get(stage, end), end
        rows.append((f"stage {stage}", *(_passed(gate.minimum, gate.passed) for gate in both)))
        before = {entry.module: entry for entry in both[0].modules}
        rows += [
            (
                entry.module,
                *(_passed(one.ratio, one.mastered) for one in (before[entry.module], entry)),
            )
            for entry in end.modules
        ]
    if not rows:
        return Section("gates", "Gates", ["No gates."])
    header = ("module", "after the first pass" if pooled else "first gate", "at the end")
    note = (
        "The student's performance over the teacher's, and whether it passes (Eq. 9); of a stage "
        "the least of its modules."
    )
    return Section("gates", "Gates", [View("gates", "Gates", header, tuple(rows), (note,))])


def mastery_section(
    gates: Sequence[GateResult], tau_mastery: float = 0.9, ticks: Sequence[str] = ()
) -> Section:
    """r(k) of each stage's modules at its gates (Eq. 9), which `ticks` names, a panel a stage."""
    by_stage: dict[int, list[GateResult]] = {}
    for gate in sorted(gates, key=lambda gate: (gate.stage, gate.remedial_round)):
        by_stage.setdefault(gate.stage, []).append(gate)
    if not by_stage:
        return Section("mastery", "Mastery by stage", ["No gates yet."])
    note = (
        f"The student's performance over the teacher's; the dashed line is τ_mastery "
        f"({tau_mastery:g})."
    )
    panels = [[_stage_plot(own, tau_mastery, ticks)] for own in by_stage.values()]
    return Section("mastery", "Mastery by stage", [note, Columns(panels)])


def _stage_plot(gates: Sequence[GateResult], tau_mastery: float, ticks: Sequence[str]) -> Plot:
    last = gates[-1]
    numbers = [gate.remedial_round for gate in gates]
    points: dict[str, list[tuple[float, float]]] = {}
    for gate in gates:
        for entry in gate.modules:
            points.setdefault(entry.module, []).append((float(gate.remedial_round), entry.ratio))
    curves = [
        Curve(module, points[module], series_look(i) | {"marker": "o", "clip_on": False})
        for i, module in enumerate(sorted(points))
    ]

    def draw(figure: Figure) -> None:
        axis = draw_curves(figure, curves, tau_mastery)
        axis.set_xticks(numbers, [ticks[n] if n < len(ticks) else str(n) for n in numbers])
        axis.set_ylim(bottom=0)

    outcome = "passed" if last.passed else f"{last.action}: {', '.join(last.weak)}"
    return draw_plot(
        f"mastery-{last.stage}",
        f"Mastery at the gates of stage {last.stage}",
        f"Stage {last.stage}: {outcome}",
        (WIDTH * 0.6, max(2.2, 0.2 * len(curves) + 0.5)),
        draw,
    )


def forgetting_section(matrix: ForgettingMatrix, pooled: bool = False) -> Section:
    """r(k) of every module at every measurement, and how far each ends under its best."""
    plot = course.forgetting("Mastery by measurement", "this run", matrix, pooled)
    if plot.svg is None:
        return Section("forgetting", "Forgetting", [plot])
    lost = matrix.forgetting()
    rows = tuple(
        (
            module,
            *("" if row[column] is None else f"{row[column]:.2f}" for row in matrix.ratios),
            f"{lost[module]:+.2f}" if module in lost else "",
        )
        for column, module in enumerate(matrix.modules)
    )
    names = [f"stage {name}" if name.isdigit() else name for name in course.moments(matrix, pooled)]
    note = (
        "The student's performance over the teacher's, of all modules. Lost: how far the last is "
        "under the best before it."
    )
    table = View("lost", "Mastery by stage", ("module", *names, "lost"), rows, (note,))
    return Section("forgetting", "Forgetting", [plot, table])


def spend_section(spend: Mapping[str, Usage]) -> Section:
    """What the teacher's calls took, by purpose."""
    title = "Spend by purpose"
    if not spend:
        return Section("spend", title, ["The teacher wasn't called."])
    order = sorted(spend.items(), key=lambda pair: -pair[1].completion_tokens)
    bars = [
        Bar(purpose, float(used.completion_tokens), f"{used.completion_tokens:,}")
        for purpose, used in order
    ]
    rows = tuple(
        (
            purpose,
            f"{used.calls:,}",
            f"{used.prompt_tokens:,}",
            f"{used.completion_tokens:,}",
            "" if used.cost is None else f"{used.cost:.4f}",
        )
        for purpose, used in order
    )
    header = ("purpose", "calls", "prompt tokens", "generated tokens", "cost")
    text = "Tokens that the teacher generated, by purpose."
    plot = bar_chart("spend", title, text, bars, "generated tokens")
    return Section("spend", title, [plot, View("spend", "Spend", header, rows)])


def training_section(spend: RunSpend) -> Section:
    """What the student was trained on, and where the time went."""
    views: list[Block] = [
        View(name, title, (title.lower(), unit), tuple((k, f"{v:,.0f}") for k, v in values.items()))
        for name, title, unit, values in (
            ("parts", "Student tokens", "tokens", spend.student_tokens_by_part),
            ("seconds", "Time", "seconds", spend.seconds),
        )
        if values
    ]
    return Section("training", "Student tokens and time", views or ["Nothing was trained."])


def reject_section(counts: Mapping[str, int]) -> Section:
    """How many examples were rejected, by reason."""
    title = "Rejects by reason"
    if not counts:
        return Section("rejects", title, ["No example was rejected."])
    order = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    bars = [Bar(reason, float(count), f"{count:,}", "orange") for reason, count in order]
    text = "Rejected examples, by reason."
    return Section("rejects", title, [bar_chart("rejects", title, text, bars, "examples")])


def example_section(examples: Mapping[str, tuple[str, str]]) -> Section:
    """(Seed, lesson that was made of it) of every module."""
    blocks: list[Block] = []
    for module, pair in sorted(examples.items()):
        texts = zip(("Seed", "Lesson"), pair, strict=True)
        columns = [[Text(name, "strong"), Text(text, "verbatim")] for name, text in texts]
        blocks.append(Details(module, [Columns(columns)]))
    title = "Examples before and after adaptation"
    return Section("examples", title, blocks or ["No lessons."])


def _figure_of(value: float | None, interval: Interval | None) -> str:
    ends = "" if interval is None else f" [{interval.low:.2f}, {interval.high:.2f}]"
    return "" if value is None else f"{value:.2f}{ends}"


def _percent(part: int | float, whole: int | float) -> str:
    return f"{part / whole:.0%}" if whole else "-"


def _passed(ratio: float, passed: bool) -> str:
    return f"{ratio:.2f} {'passes' if passed else 'fails'}"
