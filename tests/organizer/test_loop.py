"""The pure parts together, from probe results to the last gate, with a student made of numbers."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from ioa_jax.identifier.dependency import Population, build_graph, estimate_dependencies
from ioa_jax.identifier.gap import deficient_modules, module_gaps
from ioa_jax.identifier.measure import ProbeGrade, accuracy_performance
from ioa_jax.identifier.target import choose_targets, severities
from ioa_jax.organizer.curriculum import plan_curriculum, replan
from ioa_jax.organizer.mastery import GateSettings, judge_stage
from ioa_jax.organizer.retention import ForgettingMatrix

MODULES = ("m/add", "m/equation", "m/multiply", "m/read")
TEACHER: dict[str, float] = {module: 1.0 for module in MODULES}
GATE = GateSettings(max_remedial_rounds=2, gate="literal")


def measured(performance):
    """Ten probes a module."""
    return accuracy_performance(
        [
            ProbeGrade(f"p{i}", module, float(i < round(10 * performance[module])))
            for module in MODULES
            for i in range(10)
        ]
    )


def diagnose(student):
    """K_target and the graph; adding is needed for multiplying, and that for equations."""
    states = [
        [0.1, 0.1, 0.1, 1.0],
        [0.2, 0.1, 0.2, 1.0],
        [1.0, 0.2, 0.3, 1.0],
        [0.9, 0.2, 0.3, 1.0],
        [1.0, 0.2, 0.9, 1.0],
        [0.9, 0.2, 0.8, 1.0],
        [1.0, 0.9, 1.0, 1.0],
        [1.0, 1.0, 0.9, 1.0],
    ]
    population = Population(
        MODULES, tuple("abcdefgh"), tuple(tuple(row) for row in states), (1.0,) * 4
    )
    graph = build_graph(MODULES, estimate_dependencies(population, {}))
    gaps = module_gaps(measured(TEACHER), measured(student))
    deficient = deficient_modules(gaps)
    return choose_targets(severities(gaps, deficient, graph), len(MODULES), 1.0), graph


def test_the_diagnosis_finds_what_is_missing_and_its_order():
    student = {"m/add": 0.2, "m/equation": 0.1, "m/multiply": 0.2, "m/read": 0.9}
    targets, graph = diagnose(student)
    assert set(targets.modules) == {"m/add", "m/equation", "m/multiply"}
    assert graph.all_prerequisites("m/equation") == ("m/add", "m/multiply")
    assert graph.prerequisites("m/add") == ()
    # Whoever can multiply can add too, so that Eq. 3 sees that dependency both ways; the true one
    # is the stronger, since some can add and not multiply.
    assert ("m/multiply", "m/add") in [
        (drop.edge.prerequisite, drop.edge.dependent) for drop in graph.dropped
    ]
    curriculum = plan_curriculum(targets.modules, graph, student, ["m/read"])
    assert [stage.modules for stage in curriculum.stages] == [
        ("m/add",),
        ("m/multiply",),
        ("m/equation",),
    ]


@given(
    st.fixed_dictionaries({module: st.floats(0, 1) for module in MODULES}),
    st.fixed_dictionaries({module: st.floats(0, 0.5) for module in MODULES}),
)
def test_the_loop_ends_with_every_target_mastered_or_parked(student, progress):
    """Each round of training adds `progress` to what it is about."""
    targets, graph = diagnose(student)
    mastered = {module for module in MODULES if student[module] >= 0.9}
    parked = set()
    matrix = ForgettingMatrix(MODULES).with_stage(0, student)
    curriculum = plan_curriculum(targets.modules, graph, student, mastered)
    rounds = 0
    while curriculum.stages:
        stage = curriculum.stages[0]
        weak = stage.modules
        for remedial_round in itertools.count():
            rounds += 1
            student = student | {m: min(student[m] + progress[m], 1.0) for m in weak}
            gate = judge_stage(
                stage.number, stage.modules, measured(student), TEACHER, remedial_round, GATE
            )
            if gate.action != "remediate":
                break
            weak = gate.weak
        passed = {entry.module for entry in gate.modules if entry.mastered}
        mastered |= passed
        parked |= set(gate.parked)
        matrix = matrix.with_stage(stage.number, student)
        curriculum = replan(curriculum, stage.number, graph, student, mastered, parked=parked)
    assert set(targets.modules) <= mastered | parked
    assert not mastered & parked
    assert rounds <= 3 * len(targets.modules)
    assert all(fall <= 0 for fall in matrix.forgetting().values())
