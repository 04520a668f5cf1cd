"""What the models of the world have to reach, and what they do reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ioa_jax.adapter.duplicates import BenchmarkIndex
from ioa_jax.adapter.novelty import Novelty
from ioa_jax.adapter.settings import AdapterSettings
from ioa_jax.adapter.stage import StageRequest, StageSeed
from ioa_jax.adapter.synthesize import Adapter
from ioa_jax.adapter.verification import Checkers, VerificationSettings
from ioa_jax.graders.by_kind import Graders
from ioa_jax.graders.registry import make_grader
from ioa_jax.models.load import LanguageModel
from ioa_jax.sandbox import Sandbox
from ioa_jax.student import Student
from ioa_jax.teachers.local import LocalTeacher
from ioa_jax.values import Value
from suite.micro.measure import MAX_TOKENS, accuracies
from suite.micro.recipe import Variant
from suite.micro.world import MODULES, distinct_problems

# Of the teacher: means over the modules of the test split, and shares of its examples.
MIN_MEAN = 0.95
MIN_MODULE = 0.85
MIN_PARSED = 0.95
MIN_VERIFIED = 0.85
# Of the student `uneven`: a module counts as mastered from here on.
MASTERED = 0.8

_PER_MODULE = 20
_SEEDS_PER_MODULE = 4
_UNREADABLE = ("no_json", "schema", "length", "filtered")
_WRONG = ("check_failed", "vacuous_tests", "unverified")
_JSON_TOKENS = 320


@dataclasses.dataclass(frozen=True)
class Examples(Value):
    """What became of the examples that the teacher was asked for, by the Adapter's own rules.

    Attributes:
        parsed: Share of the answers that fit the schema.
        verified: Share of the examples that came to verification and passed it.
        figures: The Adapter's.
    """

    parsed: float
    verified: float
    figures: dict[str, float]


def benchmark_accuracies(student: Student) -> dict[str, float]:
    """Mean score of greedy answers on the test split, by module."""
    problems = [
        problem for module in MODULES for problem in distinct_problems(module, _PER_MODULE, "test")
    ]
    with Graders() as graders:
        return accuracies(student, problems, graders)


def write_examples(model: LanguageModel) -> Examples:
    """Ask the teacher for three examples of each of some seeds of every module, a level each."""
    settings = AdapterSettings(
        protocol="schema",
        pack="micro",
        form="none",
        level_order="easy_first",
        styled_share=1.0,
        examples_per_seed=3,
        max_retries=0,
        max_tokens=_JSON_TOKENS,
        verification=VerificationSettings(max_tokens=MAX_TOKENS),
    )
    seeds = [
        StageSeed(problem.seed_item(), module, mastery=0.5)
        for module in MODULES
        for problem in distinct_problems(module, _SEEDS_PER_MODULE, "probe")
    ]
    kinds = ("math", "instruction", "exact", "rouge")
    graders = {kind: make_grader(kind) for kind in kinds}
    try:
        with Sandbox() as sandbox, LocalTeacher(model) as teacher:
            adapter = Adapter(
                teacher,
                settings,
                Novelty(BenchmarkIndex({}), {}, settings.duplicate_similarity),
                Checkers(graders, sandbox),
            )
            figures = adapter.synthesize(StageRequest("stage", tuple(seeds))).figures
    finally:
        for grader in graders.values():
            grader.close()
    unreadable, wrong = (
        sum(figures.get(f"rejected.{reason}", 0.0) for reason in reasons)
        for reasons in (_UNREADABLE, _WRONG)
    )
    passed = figures["accepted"]
    return Examples(
        parsed=1 - unreadable / figures["calls"],
        verified=passed / (passed + wrong) if passed + wrong else 0.0,
        figures=dict(figures),
    )


def teacher_faults(accuracy: Mapping[str, float], examples: Examples) -> list[str]:
    """The gates that the teacher misses, in words; empty if it passes."""
    faults: list[str] = []
    mean = sum(accuracy.values()) / len(accuracy)
    if mean < MIN_MEAN:
        faults.append(f"mean test accuracy {mean:.3f} is under {MIN_MEAN}")
    faults += [
        f"{module}: test accuracy {value:.2f} is under {MIN_MODULE}"
        for module, value in accuracy.items()
        if value < MIN_MODULE
    ]
    for name, share, least in (
        ("fit the schema", examples.parsed, MIN_PARSED),
        ("verify", examples.verified, MIN_VERIFIED),
    ):
        if share < least:
            faults.append(f"{share:.3f} of the examples {name}, under {least}")
    return faults


def student_faults(
    variant: Variant, student: Mapping[str, float], teacher: Mapping[str, float]
) -> list[str]:
    """What the student isn't that its variant should be, in words.

    `uneven`: about two thirds of the modules at r of `MASTERED` or more, the others up to 0.65, and
    the middle ones few. `flat`: a mean r from 0.4 to 0.6 and no module mastered.
    """
    mastery = {module: value / teacher[module] for module, value in student.items()}
    mastered = [module for module, r in mastery.items() if r >= MASTERED]
    if variant == "uneven":
        faults = []
        if not 0.55 <= len(mastered) / len(mastery) <= 0.75:
            faults.append(f"{len(mastered)} of {len(mastery)} modules are mastered")
        middle = [module for module, r in mastery.items() if 0.65 < r < MASTERED]
        if len(middle) > len(mastery) // 10:
            faults.append(f"neither weak nor mastered: {', '.join(middle)}")
        return faults
    mean = sum(mastery.values()) / len(mastery)
    faults = [f"{module}: r is {mastery[module]:.2f}" for module in mastered]
    return faults if 0.4 <= mean <= 0.6 else [f"the mean r is {mean:.2f}", *faults]
