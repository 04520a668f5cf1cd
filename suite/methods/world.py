"""Two reference points of the embedded world: what right answers are worth, at budget and without.

Paper: none; they say how much there is to win before any method is compared.
Loop: `uniform_right` is trained on right problems and answers of all modules alike, as many as the
teacher's budget would pay for; `oracle` on endless right ones of the modules that the student lacks
by its true deficits, and keeps it near what it was on all others.
Departures: both take problems from the world's generator, of its split `train`, and ask the teacher
for nothing. They exist for the embedded world alone.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from ioa_jax.config import OrganizerConfig
from ioa_jax.engine.batching import TokenPair
from ioa_jax.engine.sampling import SamplingParams
from ioa_jax.identifier.measure import ModulePerformance, ProbeGrade, accuracy_performance
from ioa_jax.identifier.settings import DiagnoseSettings
from ioa_jax.organizer.mastery import judge_stage
from ioa_jax.streams import stream
from ioa_jax.student import Student
from suite.methods.base import (
    Method,
    MethodContext,
    MethodResult,
    Retention,
    as_chat,
    fine_tune,
    token_count,
)
from suite.methods.ioa import make_config
from suite.micro.world import DIFFICULTIES, MODULES, Problem, distinct_problems, make_problem

# Problems of each module by which the oracle knows the student's true deficits, and those that it
# retains of each mastered one.
MEASURED = 40
RETAINED = 60


class UniformRight:
    """Right answers of all modules alike, at the teacher's budget."""

    summary = "right answers of all modules alike, as many as the budget pays for"
    needs: tuple[str, ...] = ()

    def run(self, context: MethodContext) -> MethodResult:
        pairs: list[TokenPair] = []
        for problem in problems(tuple(MODULES), context.seed):
            pair = context.student.answer_pair(as_chat(problem.prompt), problem.reference)
            pairs.append(pair)
            # A problem and its answer are what a teacher would have to write.
            if token_count(pairs) >= context.budgets.teacher_tokens:
                break
        return MethodResult(fine_tune(context, pairs), {"examples": len(pairs)})


class Oracle:
    """Endless right answers of the true deficits, the rest retained."""

    summary = "endless right answers of what is lacking, the rest retained"
    needs: tuple[str, ...] = ()

    def run(self, context: MethodContext) -> MethodResult:
        settings = make_config(context, {})
        lacking = deficient(context, settings.diagnose)
        kept = [module for module in MODULES if module not in lacking]
        retention = _retention(context, settings.organizer, kept)
        context = dataclasses.replace(context, retention=retention)
        wanted = 2 * context.budgets.student_tokens
        pairs: list[TokenPair] = []
        size = 0
        for problem in problems(lacking, context.seed):
            pairs.append(context.student.answer_pair(as_chat(problem.prompt), problem.reference))
            size += len(pairs[-1])
            if size >= wanted:
                break
        student = fine_tune(context, pairs)
        after = accuracies(context, student, lacking, 11_000)
        gate = settings.organizer.gate_settings()
        end = {
            module: judge_stage(1, (module,), after, {module: 1.0}, 0, gate).passed
            for module in lacking
        }
        return MethodResult(student, {"gates": {"end": end}})


def problems(modules: Sequence[str], seed: int) -> Iterator[Problem]:
    """Problems without end: modules and difficulties in turn, each drawn anew."""
    rng = stream(seed, "right answers")
    for number in itertools.count():
        module = modules[number % len(modules)]
        difficulty = DIFFICULTIES[number // len(modules) % len(DIFFICULTIES)]
        yield make_problem(module, difficulty, int(rng.integers(2**31)), "train")


def deficient(context: MethodContext, settings: DiagnoseSettings) -> tuple[str, ...]:
    """Modules whose gap to a perfect teacher is above τ_gap, on problems of the split `probe`."""
    measured = accuracies(context, context.student, tuple(MODULES), 7000)
    return tuple(module for module, own in measured.items() if 1 - own.mean > settings.tau_gap)


def accuracies(
    context: MethodContext, student: Student, modules: Sequence[str], seed: int
) -> dict[str, ModulePerformance]:
    """A student on problems of the split `probe`, the same number of each module."""
    own = [p for module in modules for p in distinct_problems(module, MEASURED, "probe", seed)]
    answers = student.generate(
        [as_chat(problem.prompt) for problem in own],
        SamplingParams(max_tokens=context.sampling.max_tokens),
    )
    graded = context.graders.grade(
        [(problem.seed_item(), answer.text) for problem, answer in zip(own, answers, strict=True)]
    )
    return accuracy_performance(
        [
            ProbeGrade(problem.id, problem.module, verdict.score)
            for problem, verdict in zip(own, graded, strict=True)
        ]
    )


def _retention(
    context: MethodContext, organizer: OrganizerConfig, modules: Sequence[str]
) -> Retention:
    """Problems of modules, with the student's own answers."""
    own = [p for module in modules for p in distinct_problems(module, RETAINED, "train", 9000)]
    answers = context.student.generate(
        [as_chat(problem.prompt) for problem in own],
        SamplingParams(max_tokens=context.sampling.max_tokens),
    )
    pairs = tuple(
        context.student.answer_pair(as_chat(problem.prompt), answer.text)
        for problem, answer in zip(own, answers, strict=True)
        if answer.finish_reason == "stop" and answer.text.strip()
    )
    share = organizer.retention.share * len(modules) / len(MODULES)
    return Retention(pairs, share, organizer.retention.weight)


UNIFORM_RIGHT: Method = UniformRight()
ORACLE: Method = Oracle()
