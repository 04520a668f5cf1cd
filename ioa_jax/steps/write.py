"""The Adapter's steps: probes, what is retained, and the examples of every part."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Collection, Sequence

from ioa_jax.adapter.schema import LEVELS, Lesson, Level, StageKind
from ioa_jax.adapter.stage import StageMaterial, StageRequest, StageSeed
from ioa_jax.engine.sampling import SamplingParams
from ioa_jax.files import finished
from ioa_jax.organizer.curriculum import Stage
from ioa_jax.organizer.mastery import GateResult
from ioa_jax.organizer.retention import Retained, RetainedExample, prompt_variants
from ioa_jax.organizer.zone import bridge_levels
from ioa_jax.run import Run, State, WrittenProbes, as_chat, nll
from ioa_jax.steps.measure import with_measured
from ioa_jax.steps.organize import last_gates
from ioa_jax.steps.parts import limits_of, part_name, stage_limits
from ioa_jax.streams import stream
from ioa_jax.thoughts import cut_thoughts

log = logging.getLogger(__name__)
# Levels of what a module that failed its gate gets, and of what leads on after one that passed: at
# most a notch below and above the seed's own.
REMEDIAL_LEVELS: dict[Level, float] = {"introductory": 0.5, "intermediate": 0.5}
BRIDGE_LEVELS: dict[Level, float] = {"intermediate": 0.5, "advanced": 0.5}
# That the teacher writes for retention, at most.
PROBLEMS_PER_SEED = 4


def write_probes(run: Run, state: State) -> State:
    """Probes of the targets where the seeds give few, and the student measured on all of them."""
    settings = run.config.diagnose
    targets = run.diagnosis.targets.modules
    missing = {
        module: settings.min_gate_probes - len(run.probes[module])
        for module in targets
        if len(run.probes[module]) < settings.min_gate_probes
    }
    if not missing or settings.gate_probe_share == 0:
        return state
    limit = limits_of(run, "probes", settings.gate_probe_share)

    def write() -> WrittenProbes:
        with run.teacher.limited(limit.teacher_to):
            return WrittenProbes(run.adapter.write_probes(_seeds(run, state, targets), missing))

    with run.clock.timed("probes"):
        written = finished(run.directory / "probes.json", WrittenProbes, write).probes
    for module, probes in written.items():
        run.probes[module] = (*run.probes[module], *probes)
        run.adapter.novelty.know({probe.id: probe.prompt for probe in probes})
    return with_measured(
        run, state, "start", [m for m, probes in sorted(written.items()) if probes]
    )


def retain(run: Run, state: State) -> Retained:
    """Problems of every module that isn't taught, answered by the student as it is [ours]."""
    settings = run.config.organizer.retention
    modules = tuple(sorted(run.seeds.keys() - set(run.diagnosis.targets.modules)))
    if settings.kind == "off" or not modules or not state.curriculum.stages:
        return Retained()
    limit = limits_of(run, "retention", settings.teacher_share)

    def collect() -> Retained:
        prompts = [(module, seed.prompt, False) for module in modules for seed in run.seeds[module]]
        if settings.kind == "replay":
            return Retained(
                modules,
                tuple(
                    RetainedExample(module, seed.prompt, seed.reference)
                    for module in modules
                    for seed in run.seeds[module]
                ),
            )
        if limit.teacher_to is not None and settings.teacher_share > 0:
            with run.teacher.limited(limit.teacher_to):
                written = run.adapter.write_problems(
                    _seeds(run, state, modules), len(prompts) * PROBLEMS_PER_SEED, "retention"
                )
            prompts += [(one.module, one.prompt, True) for one in written]
        probes = {probe.prompt for own in run.probes.values() for probe in own}
        for module in modules:
            rng = stream(run.config.seed, "retained variants", module)
            own = [seed.prompt for seed in run.seeds[module]]
            prompts += [
                (module, prompt, False)
                for prompt in prompt_variants(own, settings.variants, rng)
                if prompt not in probes and run.adapter.novelty.is_clean(prompt)
            ]
        answers = run.before.generate(
            [as_chat(prompt) for _, prompt, _ in prompts],
            SamplingParams(max_tokens=run.config.diagnose.measure.max_tokens),
        )
        examples = tuple(
            RetainedExample(module, prompt, text, written)
            for (module, prompt, written), answer in zip(prompts, answers, strict=True)
            # An answer without an end would be retained without one.
            if answer.finish_reason == "stop"
            and (text := cut_thoughts(answer.text).answer or "").strip()
        )
        return Retained(modules, examples, len(prompts) - len(examples))

    with run.clock.timed("retention"):
        return finished(run.directory / "retained.json", Retained, collect)


def write_examples(run: Run, state: State) -> StageMaterial:
    """Eq. 1 for all stages before training, but for the tokens that are kept for later."""
    modules = [module for stage in state.curriculum.stages for module in stage.modules]
    share = 1 - run.config.organizer.late_share
    return _synthesize(run, state, _Part("examples", "stage", modules, share))


def write_late_examples(run: Run, state: State, examples: StageMaterial) -> StageMaterial:
    """With what was kept: for what failed its gate, or to lead on where everything passed."""
    if run.config.organizer.late_share == 0:
        return StageMaterial((), (), {}, False)
    failed = [module for gate in last_gates(state) for module in gate.weak]
    taught = [module for gate in last_gates(state) for module in _modules(gate)]
    excluded = {one.module for one in examples.excluded}
    chosen = [module for module in failed or taught if module not in excluded]
    gated = run.config.organizer.gate != "off"
    return _synthesize(
        run,
        state,
        _Part(
            "late",
            "remedial" if failed else "bridge",
            chosen if gated else [module for module in taught if module not in excluded],
            1.0,
            levels=None if not gated else REMEDIAL_LEVELS if failed else BRIDGE_LEVELS,
            before=examples.lessons,
            round=1,
        ),
    )


def write_bridge_examples(run: Run, state: State, stage: Stage) -> StageMaterial:
    """`sequential`: what leads to a stage out of the zone (Eq. 8), for a quarter of its tokens.

    Of the levels in the bridge's direction those are taken at which the student's own success is in
    the bounds: the geometric-mean probability that it gives the answers' tokens [ours]. Where it is
    in none, the easiest stands for them all.
    """
    assert stage.bridge is not None
    easier = stage.bridge.direction == "easier"
    written = _synthesize(
        run,
        state,
        _Part(
            part_name(state, stage, "bridge"),
            "bridge",
            stage.modules,
            (1 - run.config.organizer.remedial_share) / 4,
            levels=REMEDIAL_LEVELS if easier else BRIDGE_LEVELS,
            before=_written(run),
            until=stage_limits(run, state, stage).teacher_to,
        ),
    )
    by_level: dict[int, list[Lesson]] = {}
    for lesson in written.lessons:
        by_level.setdefault(LEVELS.index(lesson.example["difficulty_tag"]), []).append(lesson)
    success = {
        level: math.fsum(
            math.exp(-value) for value in nll(run.student, [(x.prompt, x.answer) for x in own])
        )
        / len(own)
        for level, own in by_level.items()
    }
    chosen = bridge_levels(success, stage.bridge.bounds) or tuple(sorted(by_level))[:1]
    inside = [lesson for level in chosen for lesson in by_level[level]]
    return dataclasses.replace(written, lessons=tuple(inside))


def write_stage_examples(run: Run, state: State, stage: Stage) -> StageMaterial:
    """`sequential`: Eq. 1 for one stage."""
    return _synthesize(
        run,
        state,
        _Part(
            part_name(state, stage, "stage"),
            "stage",
            stage.modules,
            1 - run.config.organizer.remedial_share,
            before=_written(run),
            until=stage_limits(run, state, stage).teacher_to,
        ),
    )


def write_remedial_examples(run: Run, state: State, stage: Stage) -> StageMaterial:
    """`sequential`: for the weak modules alone, smaller instances."""
    gate = state.gates[-1]
    name = part_name(state, stage, "remedial")
    # What was paid for in vain before isn't paid for again.
    given_up = _excluded(run, name)
    return _synthesize(
        run,
        state,
        _Part(
            name,
            "remedial",
            [module for module in gate.weak if module not in given_up],
            1 / (run.config.organizer.max_remedial_rounds - gate.remedial_round),
            levels=REMEDIAL_LEVELS,
            before=_written(run),
            until=stage_limits(run, state, stage).teacher_to,
            round=gate.remedial_round + 1,
        ),
    )


def _excluded(run: Run, before: str) -> set[str]:
    """Modules that were given up in the parts before one."""
    found: set[str] = set()
    for name, material in run.materials():
        if name == before:
            break
        found |= {one.module for one in material.excluded}
    return found


def _written(run: Run) -> tuple[Lesson, ...]:
    """Every example that was accepted so far."""
    return tuple(lesson for _, material in run.materials() for lesson in material.lessons)


@dataclasses.dataclass(frozen=True)
class _Part:
    """What is asked of the Adapter at once.

    Attributes:
        name: Of its folder.
        kind: What it is for.
        modules: Whose.
        share: Of the teacher's tokens that are left until `until`.
        levels: Shares of the difficulties; None takes the settings'.
        before: Examples that it mustn't repeat.
        until: Total of the teacher's tokens; None is the whole budget.
        round: Another one asks for other examples.
    """

    name: str
    kind: StageKind
    modules: Collection[str]
    share: float
    levels: dict[Level, float] | None = None
    before: Sequence[Lesson] = ()
    until: int | None = None
    round: int = 0


def _synthesize(run: Run, state: State, part: _Part) -> StageMaterial:
    """A part's examples, for its share of the teacher's tokens."""
    modules = part.modules
    if not modules:
        return StageMaterial((), (), {}, False)
    limits = limits_of(run, f"parts/{part.name}", part.share, part.until, of_left=True)
    request = StageRequest(
        kind=part.kind,
        seeds=_seeds(run, state, modules),
        levels=part.levels,
        round=part.round,
        forms={module: run.forms.choices[module].form for module in modules}
        if run.config.adapter.form_by_student
        else {},
        tokens=None
        if limits.teacher_to is None
        else max(0, limits.teacher_to - limits.teacher_from),
    )

    def write() -> StageMaterial:
        with run.teacher.limited(limits.teacher_to):
            return run.adapter.synthesize(request, part.before)

    with run.clock.timed("synthesis"):
        material = finished(
            run.directory / "parts" / part.name / "material.json", StageMaterial, write
        )
    log.info(
        "%s: %d examples, %d rejected", part.name, len(material.lessons), len(material.rejects)
    )
    return material


def _seeds(run: Run, state: State, modules: Collection[str]) -> tuple[StageSeed, ...]:
    """Synthesis seeds of modules with what is known of these, in the stages' order."""
    stage_of = {
        module: stage.number
        for plan in state.plans
        for stage in plan.stages
        for module in stage.modules
    }
    ratios = run.ratios(state.performance)
    graph = run.diagnosis.graph
    return tuple(
        StageSeed(
            seed,
            module,
            stage_of.get(module, 1),
            ratios.get(module),
            graph.all_prerequisites(module) if module in graph.modules else (),
        )
        for module in modules
        for seed in run.seeds[module]
    )


def _modules(gate: GateResult) -> list[str]:
    return [entry.module for entry in gate.modules]
