"""A diagnosis and a run, made up, with every kind of thing that a page shows."""

from ioa_jax.adapter.forms import FormChoice
from ioa_jax.identifier.decompose import KnowledgeModule, Taxonomy
from ioa_jax.identifier.decomposers import Decomposition
from ioa_jax.identifier.dependency import Dependency, Population, build_graph
from ioa_jax.identifier.diagnosis import Diagnosis
from ioa_jax.identifier.estimate import DependencyEstimate
from ioa_jax.identifier.gap import BootstrapSettings, deficient_modules, module_gaps
from ioa_jax.identifier.measure import ModulePerformance, ScorerName
from ioa_jax.identifier.probes import Measurement
from ioa_jax.identifier.seeds import MergedModule, Role
from ioa_jax.identifier.target import choose_targets, severities
from ioa_jax.organizer.mastery import GateResult, judge_stage
from ioa_jax.organizer.retention import ForgettingMatrix
from ioa_jax.report.finished import Record
from ioa_jax.teachers.spend import Usage

# What a model could call a module, if it means harm.
EVIL = "algebra/<script>alert(1)</script>"
MODULES = (
    "algebra/linear-equations",
    "algebra/quadratic-equations-by-completing-the-square",
    EVIL,
    "arithmetic/addition",
    "arithmetic/division",
    "arithmetic/multiplication",
    "counting/permutations",
    "number-theory/primes",
)
TEACHER = (1.0, 1.0, 0.5, 1.0, 1.0, 0.75, 0.0, 1.0)
STUDENT = (0.25, 0.0, 0.25, 1.0, 0.5, 0.25, 0.25, 1.0)
EDGES = (
    Dependency("arithmetic/division", "algebra/linear-equations", 0.9, "population", 4, 5),
    Dependency("arithmetic/addition", "arithmetic/multiplication", 0.5, "quantile", 4, 4),
    Dependency("arithmetic/multiplication", "arithmetic/division", 0.6, "population", 3, 6),
    Dependency("arithmetic/division", "arithmetic/multiplication", 0.4, "population", 3, 6),
    Dependency("algebra/linear-equations", MODULES[1], 0.7, "prior"),
    Dependency("arithmetic/multiplication", EVIL, 0.35, "population", 3, 3),
)


def performance(figures, scorer: ScorerName = "accuracy") -> dict[str, ModulePerformance]:
    """Four probes a module, of which `figure` is the mean."""
    return {
        module: ModulePerformance(
            module,
            scorer,
            tuple(f"{module}#{n}" for n in range(4)),
            tuple(float(n < 4 * figure) for n in range(4)),
        )
        for module, figure in zip(MODULES, figures, strict=True)
    }


def diagnosis() -> Diagnosis:
    teacher, student = performance(TEACHER), performance(STUDENT)
    gaps = module_gaps(teacher, student, bootstrap=BootstrapSettings(200))
    deficient = deficient_modules(gaps)
    teachable = [module for module in MODULES if module != "counting/permutations"]
    graph = build_graph(teachable, EDGES)
    roles: dict[str, Role] = {
        f"{m}#{n}": "probe" if n < 4 else "seed" for m in MODULES for n in range(12)
    }
    return Diagnosis(
        seed=0,
        tau_gap=0.3,
        decomposition=Decomposition(
            requested="teacher",
            decomposer="teacher",
            fallback_reason=None,
            assignment="score",
            taxonomy=Taxonomy(
                tuple(
                    KnowledgeModule(m, m.split("/")[0], m.split("/", 1)[1], 2.0, 3) for m in MODULES
                )
            ),
            modules={item: item.split("#")[0] for item in roles},
            roles=roles,
            margins={},
            merged=(MergedModule("algebra/sets", None, 2, 0),),
            unassigned=("item-7",),
            shown=(),
            proposals=4,
            valid_proposals=3,
        ),
        measurement=Measurement(
            "accuracy",
            {"accuracy": teacher, "logprob": performance(TEACHER, "logprob")},
            {"accuracy": student, "logprob": performance(STUDENT, "logprob")},
            "token",
            (),
            {"teacher": 0.87, "student": None},
        ),
        gaps=gaps,
        set_aside=("counting/permutations",),
        deficient=deficient,
        dependencies=DependencyEstimate(
            "interventions", Population((), (), (), ()), EDGES, graph, 12345
        ),
        targets=choose_targets(severities(gaps, deficient, graph), len(MODULES), 0.4),
    )


def gates() -> list[GateResult]:
    names = MODULES[3:6]
    teacher: dict[str, float] = dict(zip(MODULES, TEACHER, strict=True))
    found: list[GateResult] = []
    for stage, start in ((1, 0.4), (2, 0.7)):
        for number in range(3):
            figures = [min(0.75, start + 0.15 * number + 0.05 * i) for i in range(len(names))]
            student = {
                module: ModulePerformance(module, "logprob", ("a", "b"), (figure, figure))
                for module, figure in zip(names, figures, strict=True)
            }
            found.append(judge_stage(stage, names, student, teacher, number))
    return found


MATRIX = ForgettingMatrix(
    MODULES[:3], (0, 1, 2), ((0.2, None, 0.5), (0.9, 0.1, 0.5), (0.7, 1.0, 0.6))
)
SPEND = {"measure": Usage(24, 480, 1000, 0.27), "synthesis": Usage(50, 9000, 21000, 1.5)}
REJECTS = {"no_json": 4, "too_easy": 17, "<b>odd</b>": 1}
EXAMPLES = {"arithmetic/addition": ("Add <i>2</i> & 3.", "1. First\n2. </pre><script>x</script>")}
FORMS = {
    EVIL: FormChoice(EVIL, "as_written", {"as_written": 0.5, "lines": 0.75}, 8),
    "arithmetic/addition": FormChoice("arithmetic/addition", "lines", {"lines": 0.25}, 8),
}
RECORD = Record.model_validate(
    {
        "conclusion": "The student's mean over 2 modules was 0.250 and is 0.750.\n"
        "<script>x</script>",
        "scorer": "accuracy",
        "config": {"organizer": {"retention": {"kind": "self_distillation"}}},
        "performance": {
            EVIL: {"teacher": 1.0, "before": 0.0, "after": 0.75, "probes": 4},
            "arithmetic/addition": {"teacher": 1.0, "before": 0.5, "after": 0.75, "probes": 4},
        },
        "baseline": {"mean": 0.5, "performance": {EVIL: 0.375, "arithmetic/addition": 0.625}},
        "taught": [EVIL],
        "retained": {"modules": ["arithmetic/addition"], "examples": 12, "written": 8},
        "excluded": [
            {
                "module": "counting/sets",
                "reason": "check_failed",
                "example": "<i>6</i>",
                "calls": 24,
            }
        ],
        "rejects": REJECTS,
        "lessons": 40,
        "references": 8,
        "lessons_by_level": {"introductory": 10, "intermediate": 22, "advanced": 8},
        "probes_by_level": {"introductory": 1, "intermediate": 3, "advanced": 0},
        "levels_asked": {"introductory": 0.25, "intermediate": 0.5, "advanced": 0.25},
        "spend": {
            "student_tokens_by_part": {"stage-01": 3600, "consolidation": 8400},
            "seconds": {"synthesis": 12.4, "training": 61.0},
        },
    }
)
