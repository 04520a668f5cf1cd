"""Algorithm 1 from end to end, and after a stop at any point."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ioa_jax.clock import read_seconds
from ioa_jax.config import MethodConfig
from ioa_jax.distillation import DistillResult, distill
from ioa_jax.engine.generation import Completion
from ioa_jax.errors import InputError
from ioa_jax.files import read_json, read_value
from ioa_jax.organizer.retention import Retained
from ioa_jax.run import State
from ioa_jax.seeds import SeedItem
from ioa_jax.student import Student
from tests.distill_world import QUESTION, SEEDS, Cook, method_config, new_student, speak


class Stopped(Exception):
    """A process that ends here."""


class Brief(Student):
    """A student that answers whatever it is asked at once, so that there is something to retain."""

    def generate(self, chats: Any, *_: Any, **__: Any) -> list[Completion]:
        return [Completion("1", (1,), (-0.5,), "stop", 9) for _ in chats]


def run(
    folder: Path,
    config: MethodConfig,
    cook: Cook | None = None,
    on_step: Any = None,
    *,
    seeds: Sequence[SeedItem] = SEEDS,
    baseline: bool = False,
) -> DistillResult:
    student = Brief(new_student().model, batch_size=8)
    return distill(
        student, cook or Cook(), seeds, config, folder, on_step=on_step, baseline=baseline
    )


def weights(result: DistillResult) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(result.student.model.decoder)]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def two_of_three(**changes: dict[str, Any]) -> MethodConfig:
    """Two modules are taught, the third is retained."""
    diagnose = method_config().diagnose.model_dump() | {"target_fraction": 0.6}
    return method_config(diagnose=diagnose, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DistillResult]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, two_of_three(), baseline=True)


@pytest.fixture(scope="module")
def sequential(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DistillResult]:
    folder = tmp_path_factory.mktemp("sequential")
    return folder, run(folder, SEQUENTIAL)


# The paper read literally.
SEQUENTIAL = method_config(
    organizer={
        "stage_mode": "sequential",
        "gate": "literal",
        "references": False,
        "retention": {"kind": "off"},
        "max_remedial_rounds": 1,
        "tau_mastery": 0.999,
    },
    adapter={
        **method_config().adapter.model_dump(),
        "protocol": "schema",
        "form_by_student": False,
    },
)


def test_the_student_learns_what_it_was_taught(whole: tuple[Path, DistillResult]) -> None:
    folder, result = whole
    record = read_json(folder / "record.json")
    for module in result.diagnosis.targets.modules:
        figures = record["performance"][module]
        assert figures["after"] > figures["before"] + 0.1


def test_every_decision_is_on_disk(whole: tuple[Path, DistillResult]) -> None:
    folder, result = whole
    record = read_json(folder / "record.json")
    lessons = lines(folder / "lessons.jsonl")
    assert record["lessons"] == len(lessons) > 10
    taught = {module for plan in read_json(folder / "curriculum.json") for module in _modules(plan)}
    assert {lesson["module"] for lesson in lessons} == taught
    # Wrong examples were found out.
    assert record["rejects"]["check_failed"] > 0
    assert len(lines(folder / "rejects.jsonl")) == sum(record["rejects"].values())
    gates = lines(folder / "gates.jsonl")
    assert {gate["action"] for gate in gates} <= {"advance", "remediate", "park"}
    # After the stage, after the first pass, at the end.
    assert [gate["remedial_round"] for gate in gates] == [0, 1, 2]
    assert record["gates"]["end"].keys() == record["gates"]["first_pass"].keys() == taught
    matrix = read_json(folder / "retention.json")
    assert matrix["stages"] == [0, 1, 2]
    # All modules, not only those that are taught.
    assert set(matrix["modules"]) == {seed.module for seed in SEEDS} > taught
    assert record["order"] == "performance"
    assert record["baseline"]["performance"].keys() == record["performance"].keys()
    assert result.outcome.verdict == "taught"
    assert record["outcome"]["after"] == pytest.approx(
        sum(values["after"] for values in record["performance"].values()) / 3
    )


def test_the_state_after_each_step_is_a_value_on_disk(whole: tuple[Path, DistillResult]) -> None:
    folder, _ = whole
    names = ["plan", "gate-01-0", "first-pass", "gate-01-1", "end", "gate-01-2"]
    assert {path.stem for path in (folder / "states").iterdir()} == set(names)
    states = [read_value(folder / "states" / f"{name}.json", State) for name in names]
    assert [len(state.gates) for state in states] == [0, 1, 1, 2, 2, 3]
    assert [len(state.forgetting.stages) for state in states] == [1, 1, 2, 2, 3, 3]
    # What a module can do is known of every state, and changes.
    assert len({tuple(state.means().values()) for state in states}) == 4


def test_what_isnt_taught_is_retained(whole: tuple[Path, DistillResult]) -> None:
    folder, result = whole
    retained = read_value(folder / "retained.json", Retained)
    assert {*retained.modules, *result.diagnosis.targets.modules} == {seed.module for seed in SEEDS}
    assert {example.answer for example in retained.examples} == {"1"}
    assert {example.written for example in retained.examples} == {True, False}
    used = read_json(folder / "record.json")["spend"]["teacher"]["retention"]
    assert used["completion_tokens"] <= 0.05 * 20_000


def _modules(plan: dict[str, Any]) -> list[str]:
    return [module for stage in plan["stages"] for module in stage["modules"]]


@pytest.mark.parametrize("mode", ["whole", "sequential"])
def test_budgets_hold_and_are_accounted_for(request: pytest.FixtureRequest, mode: str) -> None:
    folder, _ = request.getfixturevalue(mode)
    spend = read_json(folder / "record.json")["spend"]
    assert sum(used["completion_tokens"] for used in spend["teacher"].values()) <= 20_000
    assert {"synthesis", "verification"} <= spend["teacher"].keys()
    total = spend["student_tokens"] + spend["student_tokens_of_interventions"]
    # Sequential stages end with their epochs.
    assert (0.9 if mode == "whole" else 0.1) * 12_000 < total <= 12_000
    assert sum(spend["student_tokens_by_part"].values()) == spend["student_tokens"]
    assert spend["student_tokens"] == sum(row["tokens"] for row in lines(folder / "train.jsonl"))
    if mode == "whole":
        assert spend["teacher"]["probes"]["completion_tokens"] <= 0.1 * 20_000
        # The first pass has its share, up to a step.
        assert spend["student_tokens_by_part"]["stage-01"] == pytest.approx(0.3 * 12_000, abs=192)


def test_sequential_stages_are_remediated_and_then_given_up(
    sequential: tuple[Path, DistillResult],
) -> None:
    folder, _ = sequential
    gates = lines(folder / "gates.jsonl")
    assert [gate["action"] for gate in gates] == ["remediate", "park"]
    record = read_json(folder / "record.json")
    assert record["parked"] == list(gates[-1]["parked"]) != []
    assert record["gates"]["first_pass"].keys() == record["gates"]["end"].keys()
    kinds = {lesson["kind"] for lesson in lines(folder / "lessons.jsonl")}
    assert kinds == {"stage", "remedial"}


def test_steps_have_their_seconds(whole: tuple[Path, DistillResult]) -> None:
    folder, _ = whole
    seconds = read_json(folder / "record.json")["spend"]["seconds"]
    assert list(seconds) == [
        "decomposition", "measurement", "dependencies", "organizing", "probes", "retention",
        "synthesis", "gates", "baseline", "training",
    ]  # fmt: skip
    assert all(value > 0 for value in seconds.values())
    steps = [line["step"] for line in lines(folder / "seconds.jsonl")]
    # One stage; all modules are measured after the first pass and at the end.
    assert steps.count("gates") == 1
    assert steps.count("retention") == 3


def test_a_small_teacher_budget_still_leaves_a_student(tmp_path: Path) -> None:
    result = run(tmp_path, method_config(budget={"teacher_tokens": 700, "student_tokens": 3000}))
    record = read_json(tmp_path / "record.json")
    used = sum(used["completion_tokens"] for used in record["spend"]["teacher"].values())
    assert 0 < used <= 700
    assert record["spend"]["student_tokens"] > 0
    assert all(np.isfinite(x).all() for x in weights(result))


@pytest.mark.parametrize(
    ("mode", "stop_at"),
    [
        ("whole", "calls 0"),
        ("whole", "calls 60"),
        ("whole", "steps 20"),
        ("whole", "steps 60"),
        ("sequential", "calls 70"),
        ("sequential", "steps 1"),
        ("sequential", "steps 40"),
    ],
)
def test_a_stopped_run_ends_as_if_it_had_not_been(
    tmp_path: Path, request: pytest.FixtureRequest, mode: str, stop_at: str
) -> None:
    folder, expected = request.getfixturevalue(mode)
    config = two_of_three() if mode == "whole" else SEQUENTIAL
    what, _, number = stop_at.partition(" ")
    count = 0

    def stop(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > int(number):
            raise Stopped

    def interrupted(text: str, seed: int) -> str:
        if what == "calls":
            stop()
        return speak(text, seed)

    baseline = mode == "whole"
    on_step = stop if what == "steps" else None
    with pytest.raises(Stopped):
        run(tmp_path, config, Cook(interrupted), on_step, baseline=baseline)
    resumed = run(tmp_path, config, baseline=baseline)
    for a, b in zip(weights(expected), weights(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    for name in ("lessons.jsonl", "rejects.jsonl", "gates.jsonl", "train.jsonl"):
        assert _untimed(lines(folder / name)) == _untimed(lines(tmp_path / name))
    records = [read_json(path / "record.json") for path in (folder, tmp_path)]
    for record in records:
        del record["spend"]["seconds"]
    assert records[0] == records[1]
    # Both processes' time, the first one's diagnosis among it.
    steps = [line["step"] for line in lines(tmp_path / "seconds.jsonl")]
    assert steps.count("decomposition") == 2
    assert read_seconds(tmp_path / "seconds.jsonl").keys() >= {"synthesis", "gates"}


def _untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_without_gates_late_examples_are_for_all(tmp_path: Path) -> None:
    organizer = {"gate": "off", "first_pass_share": 0.0}
    budget = {"teacher_tokens": 3000, "student_tokens": 2000}
    run(tmp_path, method_config(organizer=organizer, budget=budget))
    gates = lines(tmp_path / "gates.jsonl")
    assert {gate["action"] for gate in gates} == {"advance"}
    record = read_json(tmp_path / "record.json")
    assert record["parked"] == []
    assert record["spend"]["student_tokens_by_part"].keys() == {"consolidation"}


# -- runs that teach nothing -----------------------------------------------------------------------


def wrong(text: str, seed: int) -> str:
    """A cook whose solutions never agree: every one has another answer."""
    said = speak(text, seed)
    return said.replace("boxed{", f"boxed{{{len(text)}") if "boxed{" in said else said


@pytest.mark.parametrize("mode", ["pooled", "sequential"])
def test_without_a_usable_example_nothing_is_trained(tmp_path: Path, mode: str) -> None:
    organizer = method_config().organizer.model_dump() | {"stage_mode": mode}
    result = run(tmp_path, method_config(organizer=organizer), Cook(wrong), baseline=True)
    assert result.outcome.verdict == "no_examples"
    for a, b in zip(weights(result), jax.tree.leaves(new_student().model.decoder), strict=True):
        np.testing.assert_array_equal(a, np.asarray(b))
    record = read_json(tmp_path / "record.json")
    assert record["lessons"] == record["spend"]["student_tokens"] == 0
    assert record["baseline"] is None
    assert not (tmp_path / "training/checkpoints").exists()
    # It stopped paying: three batches of a module, and some calls for its probes.
    given_up = sorted(one["module"] for one in record["excluded"])
    assert given_up == sorted({str(seed.module) for seed in SEEDS})
    used = sum(used["completion_tokens"] for used in record["spend"]["teacher"].values())
    assert used < 0.5 * 20_000
    assert "check_failed" in record["conclusion"]
    assert QUESTION.search(record["conclusion"]) is not None


def test_with_nothing_lacking_nothing_is_trained(tmp_path: Path) -> None:
    diagnose = method_config().diagnose.model_dump() | {"tau_gap": 1.0}
    result = run(tmp_path, method_config(diagnose=diagnose), baseline=True)
    assert result.outcome.verdict == "nothing_to_teach"
    record = read_json(tmp_path / "record.json")
    assert record["spend"]["teacher"].keys() <= {"measure", "decompose"}
    assert "no module is deficient" in record["conclusion"]


def test_a_student_that_got_worse_is_given_back_as_it_was(tmp_path: Path) -> None:
    train = method_config().train.model_dump() | {"learning_rate": 1.0}
    budget = {"teacher_tokens": 2000, "student_tokens": 1000}
    config = method_config(train=train, budget=budget)
    result = run(tmp_path, config)
    assert result.outcome.is_worse
    assert result.outcome.trained < result.outcome.before == result.outcome.after
    for a, b in zip(weights(result), jax.tree.leaves(new_student().model.decoder), strict=True):
        np.testing.assert_array_equal(a, np.asarray(b))
    assert "as it was" in read_json(tmp_path / "record.json")["conclusion"]
    last = run(
        tmp_path / "last",
        config.model_copy(
            update={"organizer": config.organizer.model_copy(update={"keep": "last"})}
        ),
    )
    assert last.outcome.share == 1
    assert last.outcome.after == last.outcome.trained


def test_a_folder_belongs_to_its_settings(tmp_path: Path) -> None:
    diagnose = method_config().diagnose.model_dump() | {"tau_gap": 1.0}
    run(tmp_path, method_config(diagnose=diagnose))
    with pytest.raises(InputError, match=r"organizer\.late_share"):
        run(tmp_path, method_config(diagnose=diagnose, organizer={"late_share": 0.3}))
