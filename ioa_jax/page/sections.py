"""Sections of a page: what the Identifier, the Organizer and a run found, in plots and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ioa_jax.adapter.forms import FORMS, FormChoice
from ioa_jax.conclusion import module_rows
from ioa_jax.identifier.diagnosis import Diagnosis
from ioa_jax.identifier.gap import Interval
from ioa_jax.organizer.curriculum import Curriculum
from ioa_jax.organizer.mastery import GateResult
from ioa_jax.organizer.retention import ForgettingMatrix
from ioa_jax.page.document import Html, Section, element, join, table
from ioa_jax.page.plots import Bar, bar_chart, dependency_graph, line_chart
from ioa_jax.teachers.spend import Spend


def outcome_section(record: Mapping[str, Any]) -> Section:
    """What came out, and the table of all modules before, after and without the teacher.

    Args:
        record: record.json of a run.
    """
    # The first line is the conclusion; an example that stands under it is the teacher's own text.
    first, _, example = record["conclusion"].partition("\n")
    parts = [element("p", element("strong", first))]
    if example:
        parts.append(element("pre", example))
    head = ["module", "", "teacher", "before", "after", "SFT baseline"]
    rows = module_rows(record)
    if record["baseline"] is None:
        head, rows = head[:-1], [row[:-1] for row in rows]
    parts.append(table(head, rows, "Modules before and after"))
    parts.append(
        element(
            "p",
            "The mean over held-out tasks of each module, by the scorer "
            f"{record['scorer']}. SFT baseline: a student that was fine-tuned on the seeds' "
            "references alone, with the same number of tokens.",
            class_="soft",
        )
    )
    return Section("outcome", "What came out", join(parts))


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
    known = sorted(
        (gap for gap in diagnosis.gaps if gap.relative is not None),
        key=lambda gap: (-(gap.relative or 0.0), gap.module),
    )
    bars = [
        Bar(
            gap.module,
            ((gap.relative or 0.0, "bad" if gap.module in diagnosis.deficient else "main"),),
            f"{gap.relative:.2f} · {gap.teacher:.2f} to {gap.student:.2f}",
            None if gap.interval is None else (gap.interval.low, gap.interval.high),
        )
        for gap in known
    ]
    parts: list[str] = [
        element(
            "p",
            "How far the student is behind the teacher, relative to the teacher (Eq. 2), with its "
            "interval, the wider the fewer probes there are; behind each bar the gap, and the "
            f"teacher's and the student's {diagnosis.measurement.scorer}. The dashed line is τ_gap "
            f"({diagnosis.tau_gap:g}); red bars are deficient (Eq. 6).",
        ),
        _figure(bar_chart("Relative gap of every module", bars, diagnosis.tau_gap)),
    ]
    if diagnosis.set_aside:
        names = ", ".join(diagnosis.set_aside)
        parts.append(element("p", f"Set aside, since the teacher can't teach them: {names}."))
    for name, value in diagnosis.measurement.rank_correlation.items():
        figure = "not defined" if value is None else f"{value:.2f}"
        parts.append(
            element("p", f"Rank correlation of the two scorers over modules, {name}: {figure}.")
        )
    return Section("gaps", "Gap by module", join(parts))


def graph_section(diagnosis: Diagnosis) -> Section:
    """The dependency graph, and how it was found."""
    graph, estimate = diagnosis.graph, diagnosis.dependencies
    population = estimate.population
    states = 0 if population is None else len(population.states)
    parts: list[str] = [
        element(
            "p",
            f"Dependencies above τ_dep (Eq. 3), from {estimate.estimator} with {states} states of "
            f"the student ({estimate.student_tokens:,} tokens trained on). Thick lines are strong; "
            "dashed ones come from the upper and lower third of the states, dotted ones from what "
            "the teacher named. Red frames are targets, orange ones other deficient modules.",
        )
    ]
    if graph.edges:
        plot = dependency_graph(
            "Dependency graph of the modules",
            graph,
            diagnosis.targets.modules,
            diagnosis.deficient,
        )
        parts.append(_figure(plot))
        rows = [
            (
                edge.prerequisite,
                edge.dependent,
                f"{edge.value:.2f}",
                edge.estimator,
                f"{edge.num_high} / {edge.num_low}",
            )
            for edge in graph.edges
        ]
        head = ("prerequisite", "dependent", "Dep", "estimator", "states high / low")
        parts.append(_details("The edges as a table", table(head, rows, "Dependencies")))
    else:
        parts.append(element("p", "No dependency is above τ_dep."))
    used = {module for edge in graph.edges for module in (edge.prerequisite, edge.dependent)}
    alone = [module for module in graph.modules if module not in used]
    if alone:
        parts.append(element("p", f"Without any dependency: {', '.join(alone)}."))
    if estimate.left_out:
        names = ", ".join(estimate.left_out)
        parts.append(element("p", f"Seeds too long for the adapters' rows: {names}."))
    for drop in graph.dropped:
        ends = f"{drop.edge.prerequisite} → {drop.edge.dependent}"
        parts.append(element("p", f"Dropped: {ends}, {drop.reason}."))
    return Section("dependencies", "Dependencies", join(parts))


def target_section(diagnosis: Diagnosis) -> Section:
    """Eq. 4 of the deficient modules, and which of them are targets (Eq. 5)."""
    targets = diagnosis.targets
    if not targets.severities:
        return Section("targets", "Severity and targets", element("p", "No module is deficient."))
    bars = [
        Bar(
            entry.module,
            ((entry.value, "bad" if entry.module in targets.modules else "plain"),),
            f"{entry.value:.2f} · gap {entry.gap:.2f}, dep {entry.mean_dependency:.2f}",
        )
        for entry in targets.severities
    ]
    return Section(
        "targets",
        "Severity and targets",
        join(
            [
                element(
                    "p",
                    "Severity of the deficient modules (Eq. 4): their gap, and the mean dependency "
                    f"of the modules that need them. The {targets.limit} most severe at most are "
                    "targets (Eq. 5), in red.",
                ),
                _figure(bar_chart("Severity of the deficient modules", bars)),
            ]
        ),
    )


def module_section(diagnosis: Diagnosis) -> Section:
    """All figures of all modules, and what became of those that were merged."""
    decomposition, measurement = diagnosis.decomposition, diagnosis.measurement
    rows: list[tuple[str, ...]] = []
    for gap in diagnosis.gaps:
        state = "target" if gap.module in diagnosis.targets.modules else ""
        if gap.module in diagnosis.set_aside:
            state = "set aside"
        elif gap.module in diagnosis.deficient and not state:
            state = "deficient"
        figures = [
            f"{measured[scorer][gap.module].mean:.3f}"
            for scorer in measurement.teacher
            for measured in (measurement.teacher, measurement.student)
        ]
        rows.append(
            (
                gap.module,
                str(len(decomposition.items(gap.module, "seed"))),
                str(gap.num_probes),
                *figures,
                _figure_of(gap.relative, gap.interval),
                _figure_of(gap.logprob, gap.logprob_interval),
                state,
            )
        )
    head = [
        "module",
        "seeds",
        "probes",
        *(f"P_{who} {scorer}" for scorer in measurement.teacher for who in ("T", "S")),
        "Δ",
        f"g, nats a {measurement.unit or 'token'}",
        "",
    ]
    notes = ["The seeds name their modules."]
    if decomposition.decomposer != "given":
        notes = [f"Found by {decomposition.decomposer} (rule: {decomposition.assignment})."]
    if decomposition.proposals:
        valid = decomposition.valid_proposals
        notes.append(f"Of {decomposition.proposals} proposals of the teacher {valid} were valid.")
    if decomposition.fallback_reason is not None:
        notes.append(f"A fallback for {decomposition.requested}: {decomposition.fallback_reason}.")
    if decomposition.unassigned:
        notes.append(f"Items without a module: {', '.join(decomposition.unassigned)}.")
    for entry in decomposition.merged:
        size = f"{entry.num_seeds} seeds, {entry.num_probes} probes"
        notes.append(
            f"{entry.module} ({size}) "
            + (f"was merged into {entry.into}." if entry.into else "was set aside: too small.")
        )
    return Section(
        "modules",
        "Modules",
        join([*(element("p", note) for note in notes), table(head, rows, "Modules")]),
    )


def curriculum_section(curriculum: Curriculum, order: str = "dependencies") -> Section:
    """Stages, and why each module stands where it does.

    Args:
        curriculum: The first plan.
        order: `dependencies`, or `severity` where there are none.
    """
    rows = [
        (
            f"stage {stage.number}",
            ", ".join(stage.modules),
            f"{stage.performance:.2f}",
            "" if stage.bridge is None else f"a bridge of {stage.bridge.direction} examples first",
        )
        for stage in curriculum.stages
    ]
    why = element("ul", *(element("li", place.sentence()) for place in curriculum.placements))
    head = ("", "modules", "mean P_S", "")
    if not rows:
        return Section("curriculum", "Curriculum", element("p", "No stages."))
    note = "The order follows the dependencies (Eq. 7 and 8)."
    if order == "performance":
        note = (
            "No dependency was found: the graph is empty, and the stages begin with what the "
            "student knows best (Eq. 8)."
        )
    body = join([element("p", note), table(head, rows, "Stages"), why])
    return Section("curriculum", "Curriculum", body)


def lesson_section(
    record: Mapping[str, Any], difficulties: Mapping[str, tuple[float, float]]
) -> Section:
    """Examples by level, and the difficulties of the seeds that they were made of.

    Args:
        record: record.json of a run.
        difficulties: (share of the examples, share of the probes) by the seeds' own difficulty;
            empty where the seeds don't say it.
    """
    count, asked = record["lessons"], record["levels_asked"]
    total = sum(asked.values())
    bars = [
        Bar(
            level,
            ((float(number), "main"),),
            f"{number:,} · {_percent(number, count)}, asked {_percent(asked.get(level, 0), total)}",
        )
        for level, number in record["lessons_by_level"].items()
    ]
    parts: list[str] = [
        element(
            "p",
            f"{count:,} examples, and {record['references']:,} references of the seeds. Behind "
            "each bar the level's share, and the share that was asked for. Levels are relative to "
            "the seed, which is intermediate itself, unless the teacher wrote the whole record "
            "(protocol schema).",
        )
    ]
    if count:
        parts.append(_figure(bar_chart("Examples by level", bars)))
    if difficulties:
        rows = [
            (name, f"{examples:.0%}", f"{probes:.0%}")
            for name, (examples, probes) in difficulties.items()
        ]
        head = ("difficulty", "of the seeds of examples", "of the probes")
        parts.append(table(head, rows, "Difficulty of seeds and probes"))
    return Section("lessons", "Examples by level", join(parts))


def form_section(choices: Mapping[str, FormChoice]) -> Section:
    """The form of each module's answers, as the student chose it."""
    if not choices:
        return Section("forms", "Form of answers", element("p", "The student chose no forms."))
    rows = [
        (
            module,
            choice.form.replace("_", " "),
            *(f"{choice.nll[form]:.3f}" if form in choice.nll else "" for form in FORMS),
        )
        for module, choice in sorted(choices.items())
    ]
    head = ("module", "form", *(form.replace("_", " ") for form in FORMS))
    note = element(
        "p",
        "The form under which the references of a module's seeds are likeliest to the student: "
        "mean negative log-likelihood in nats per token, the least is chosen.",
    )
    return Section("forms", "Form of answers", join([note, table(head, rows, "Forms")]))


def retention_section(record: Mapping[str, Any]) -> Section:
    """What is kept as the student was."""
    retained = record["retained"]
    kind = record["config"]["organizer"]["retention"]["kind"]
    if not retained["modules"]:
        text = f"No module is retained (retention: {kind})."
    else:
        text = (
            f"By {kind.replace('_', ' ')}: {', '.join(retained['modules'])}. "
            f"{retained['examples']:,} examples, of which the teacher wrote "
            f"{retained['written']:,} problems."
        )
    return Section("retention", "Retained modules", element("p", text))


def excluded_section(excluded: Sequence[Mapping[str, Any]]) -> Section:
    """Modules that were given up while examples were written, each with an example."""
    parts = [
        _details(
            f"{one['module']}: {one['reason']}, after {one['calls']} calls without an example",
            element("pre", one["example"]),
        )
        for one in excluded
    ]
    body = join(parts) if parts else element("p", "No module was excluded.")
    return Section("excluded", "Excluded modules", body)


def gate_section(gates: Sequence[GateResult], pooled: bool) -> Section:
    """Which modules and stages passed, after the first pass and at the end.

    Args:
        gates: Of a run, in their order.
        pooled: Its stage mode; sequential stages have their own first gate in the place of the
            first pass.
    """
    first = {gate.stage: gate for gate in gates if gate.remedial_round == int(pooled)}
    last = {gate.stage: gate for gate in gates}
    rows: list[tuple[str, ...]] = []
    for stage, end in sorted(last.items()):
        middle = first.get(stage, end)
        rows.append(
            (f"stage {stage}", *(_passed(gate.minimum, gate.passed) for gate in (middle, end)))
        )
        before = {entry.module: entry for entry in middle.modules}
        rows += [
            (
                entry.module,
                *(_passed(one.ratio, one.mastered) for one in (before[entry.module], entry)),
            )
            for entry in end.modules
        ]
    if not rows:
        return Section("gates", "Gates", element("p", "No gates."))
    head = ("", "after the first pass" if pooled else "first gate", "at the end")
    note = element(
        "p",
        "The student's performance over the teacher's, and whether it passes (Eq. 9); of a stage "
        "the least of its modules.",
    )
    return Section("gates", "Gates", join([note, table(head, rows, "Gates")]))


def mastery_section(
    gates: Sequence[GateResult], tau_mastery: float = 0.9, ticks: Sequence[str] = ()
) -> Section:
    """r(k) of each stage's modules at its gates (Eq. 9), a panel a stage.

    Args:
        gates: Of a run.
        tau_mastery: τ_mastery.
        ticks: Names of the gates of a stage; else their numbers.
    """
    by_stage: dict[int, list[GateResult]] = {}
    for gate in gates:
        by_stage.setdefault(gate.stage, []).append(gate)
    figures: list[Html] = []
    for stage, own in sorted(by_stage.items()):
        own = sorted(own, key=lambda gate: gate.remedial_round)
        names = sorted({entry.module for gate in own for entry in gate.modules})
        series = [
            [next((e.ratio for e in gate.modules if e.module == name), None) for gate in own]
            for name in names
        ]
        plot = line_chart(
            f"Mastery at the gates of stage {stage}",
            names,
            series,
            [ticks[gate.remedial_round] if ticks else str(gate.remedial_round) for gate in own],
            tau_mastery,
        )
        last = own[-1]
        outcome = "passed" if last.passed else f"{last.action}: {', '.join(last.weak)}"
        figures.append(_figure(plot, f"Stage {stage}: {outcome}"))
    body = element("div", *figures, class_="panels") if figures else element("p", "No gates yet.")
    note = element(
        "p",
        f"The student's performance over the teacher's; the dashed line is τ_mastery "
        f"({tau_mastery:g}).",
    )
    return Section("mastery", "Mastery by stage", join([note, body]))


def forgetting_section(matrix: ForgettingMatrix, pooled: bool = False) -> Section:
    """r(k) of every module after every measurement, and how far each is under its best.

    Args:
        matrix: Of a finished run, whose last measurement is the one at its end.
        pooled: Its stage mode, in which all modules are measured after the first pass; else after
            each stage.
    """
    forgetting = matrix.forgetting()
    rows: list[list[str]] = []
    for column, module in enumerate(matrix.modules):
        cells = [row[column] for row in matrix.ratios]
        lost = forgetting.get(module)
        rows.append(
            [
                module,
                *("" if value is None else _shade(value) for value in cells),
                "" if lost is None else f"{lost:+.2f}",
            ]
        )
    names = ["first pass" if pooled else f"stage {stage}" for stage in matrix.stages]
    if names:
        names[-1] = "end"
        names[0] = "before"
    head = ["module", *names, "lost"]
    note = element(
        "p",
        "The student's performance over the teacher's, of all modules; a strong colour is good. "
        "Lost: how far the last is under the best before it.",
    )
    return Section("forgetting", "Forgetting", join([note, table(head, rows, "Mastery by stage")]))


def spend_section(spend: Mapping[str, Spend]) -> Section:
    """What the teacher's calls took, by purpose."""
    bars: list[Bar] = []
    rows: list[tuple[str, ...]] = []
    for purpose, entry in sorted(spend.items(), key=lambda pair: -pair[1].used.completion_tokens):
        used = entry.used
        tokens = float(used.completion_tokens)
        bars.append(Bar(purpose, ((tokens, "main"),), f"{used.completion_tokens:,}"))
        rows.append(
            (
                purpose,
                f"{used.calls:,}",
                f"{entry.replayed.calls:,}",
                f"{used.prompt_tokens:,}",
                f"{used.completion_tokens:,}",
                "" if used.cost is None else f"{used.cost:.4f}",
            )
        )
    if not rows:
        return Section("spend", "Spend by purpose", element("p", "The teacher wasn't called."))
    head = ("purpose", "calls", "of them replayed", "prompt tokens", "generated tokens", "cost")
    plot = _figure(bar_chart("Tokens that the teacher generated, by purpose", bars))
    return Section("spend", "Spend by purpose", join([plot, table(head, rows, "Spend")]))


def training_section(spend: Mapping[str, Any]) -> Section:
    """What the student was trained on, and where the time went.

    Args:
        spend: record.json's.
    """
    parts: list[str] = []
    for caption, head, figures in (
        ("Student tokens", "tokens", spend["student_tokens_by_part"]),
        ("Time", "seconds", spend["seconds"]),
    ):
        if figures:
            rows = [(name, f"{value:,.0f}") for name, value in figures.items()]
            parts.append(table((caption.lower(), head), rows, caption))
    body = join(parts) if parts else element("p", "Nothing was trained.")
    return Section("training", "Student tokens and time", body)


def reject_section(counts: Mapping[str, int]) -> Section:
    """How many examples were rejected, by reason."""
    order = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    bars = [Bar(reason, ((float(count), "second"),), f"{count:,}") for reason, count in order]
    body = (
        _figure(bar_chart("Rejected examples, by reason", bars))
        if bars
        else element("p", "No example was rejected.")
    )
    return Section("rejects", "Rejects by reason", body)


def example_section(examples: Mapping[str, tuple[str, str]]) -> Section:
    """A seed and the lesson that was made of it, for every module.

    Args:
        examples: (the seed's text, the lesson's text) by module id.
    """
    parts = [
        _details(
            module,
            element(
                "div",
                element("div", element("strong", "Seed"), element("pre", before)),
                element("div", element("strong", "Lesson"), element("pre", after)),
                class_="pair",
            ),
        )
        for module, (before, after) in sorted(examples.items())
    ]
    body = join(parts) if parts else element("p", "No lessons.")
    return Section("examples", "Examples before and after adaptation", body)


def _figure(plot: Html, caption: str | None = None) -> Html:
    below = [] if caption is None else [element("figcaption", caption)]
    scroll = element("div", plot, class_="scroll", tabindex="0", role="region", aria_label="Plot")
    return element("figure", scroll, *below)


def _details(summary: str, body: Html) -> Html:
    return element("details", element("summary", summary), body)


def _shade(value: float) -> Html:
    """A figure on a ground that is the stronger, the larger it is; 1 and more is strongest."""
    strength = round(60 * min(max(value, 0.0), 1.0))
    style = (
        f"background: color-mix(in srgb, var(--good) {strength}%, transparent); "
        "padding: .1rem .4rem"
    )
    return element("span", f"{value:.2f}", style=style)


def _figure_of(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return ""
    if interval is None:
        return f"{value:.2f}"
    # Without spaces where a line could be broken.
    return f"{value:.2f}\u00a0[{interval.low:.2f},\u00a0{interval.high:.2f}]"


def _percent(part: int | float, whole: int | float) -> str:
    return f"{part / whole:.0%}" if whole else "-"


def _passed(ratio: float, passed: bool) -> str:
    return f"{ratio:.2f} {'passes' if passed else 'fails'}"
