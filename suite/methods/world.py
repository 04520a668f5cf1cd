"""Two reference points of the embedded world: what right answers are worth, at budget and without.

Paper: none; they say how much there is to win before any method is compared.
Loop: `uniform_right` is trained on right problems and answers of all modules alike, as many as the
teacher's budget would pay for; `oracle` on endless right ones of the modules that the student lacks
by its true deficits, and keeps it near what it was on all others. Its students stand before IOA's
gate, with a teacher that is always right.
Departures: both take problems from the world's generator, of its split `train`, and ask the teacher
for nothing. They exist for the embedded world alone.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

from ioa_jax.config import OrganizerConfig
from ioa_jax.engine.batching import TokenPair
from ioa_jax.engine.sampling import SamplingParams
from ioa_jax.identifier.measure import ModulePerformance
from ioa_jax.identifier.probes import measure_student
from ioa_jax.organizer.mastery import judge_stage
from ioa_jax.streams import stream
from ioa_jax.student import Student
from ioa_jax.thoughts import cut_thoughts
from suite.methods.base import (
    Method,
    MethodContext,
    MethodResult,
    Retention,
    as_chat,
    fine_tune,
    fits,
)
from suite.methods.ioa import make_config
from suite.micro.world import DIFFICULTIES, MODULES, Problem, distinct_problems, make_problem

# Problems of each module, of the split `probe`, by which the oracle knows the student's true
# deficits and its gates judge; and of the split `train` those that it retains of each other module.
MEASURED = 40
RETAINED = 60


class UniformRight:
    """Right answers of all modules alike, at the teacher's budget."""

    summary = "right answers of all modules alike, as many as the budget pays for"
    needs: tuple[str, ...] = ()

    def run(self, context: MethodContext) -> MethodResult:
        # A problem and its answer are what a teacher would have to write.
        pairs = right_pairs(context, tuple(MODULES), context.budgets.teacher_tokens)
        return MethodResult(fine_tune(context, pairs), {"examples": len(pairs)})


class Oracle:
    """Endless right answers of the true deficits, the rest retained."""

    summary = "endless right answers of what is lacking, the rest retained"
    needs: tuple[str, ...] = ()

    def run(self, context: MethodContext) -> MethodResult:
        settings = make_config(context, {})
        lacking = deficient(measure(context, context.student), settings.diagnose.tau_gap)
        if not lacking:
            return MethodResult(context.student, {"lacking": [], "gates": {"end": {}}})
        kept = [module for module in MODULES if module not in lacking]
        retention = _retention(context, settings.organizer, kept)
        context = dataclasses.replace(context, retention=retention)
        # So many that none is seen twice.
        pairs = right_pairs(context, lacking, context.budgets.student_tokens)
        student = fine_tune(context, pairs)
        gate = judge_stage(
            1,
            lacking,
            measure(context, student),
            dict.fromkeys(lacking, 1.0),
            0,
            settings.organizer.gate_settings(),
        )
        passed = {entry.module: entry.mastered for entry in gate.modules}
        return MethodResult(student, {"lacking": list(lacking), "gates": {"end": passed}})


def problems(modules: Sequence[str], seed: int) -> Iterator[Problem]:
    """Problems without end: modules and difficulties in turn, each drawn anew."""
    rng = stream(seed, "right answers")
    for number in itertools.count():
        module = modules[number % len(modules)]
        difficulty = DIFFICULTIES[number // len(modules) % len(DIFFICULTIES)]
        yield make_problem(module, difficulty, int(rng.integers(2**31)), "train")


def right_pairs(context: MethodContext, modules: Sequence[str], tokens: int) -> list[TokenPair]:
    """Problems with their right answers, of so many student tokens at most."""
    pairs: list[TokenPair] = []
    for problem in problems(modules, context.seed):
        pair = _pair(context, problem, problem.reference)
        tokens -= len(pair)
        if tokens < 0:
            return pairs
        if fits(context, pair):
            pairs.append(pair)
    raise AssertionError("problems have no end")


def measure(context: MethodContext, student: Student) -> Mapping[str, ModulePerformance]:
    """P_S of every module, on problems of the split `probe`."""
    own = {
        module: tuple(p.seed_item() for p in distinct_problems(module, MEASURED, "probe", 7000))
        for module in MODULES
    }
    return measure_student(
        student, own, "accuracy", graders=context.graders, max_tokens=context.sampling.max_tokens
    )


def deficient(performance: Mapping[str, ModulePerformance], tau_gap: float) -> tuple[str, ...]:
    """Modules whose gap to a teacher that is always right is above τ_gap."""
    return tuple(module for module in MODULES if 1 - performance[module].mean > tau_gap)


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
        _pair(context, problem, text)
        for problem, answer in zip(own, answers, strict=True)
        if answer.finish_reason == "stop"
        and (text := cut_thoughts(answer.text).answer or "").strip()
    )
    return Retention(
        tuple(pair for pair in pairs if fits(context, pair)),
        organizer.retention.share * len(modules) / len(MODULES),
        weight=organizer.retention.weight,
    )


def _pair(context: MethodContext, problem: Problem, answer: str) -> TokenPair:
    return context.student.answer_pair(as_chat(problem.prompt), answer)


UNIFORM_RIGHT: Method = UniformRight()
ORACLE: Method = Oracle()
