"""Algorithm 1 from end to end, and after a stop at any point."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ioa_jax.clock import read_seconds
from ioa_jax.config import MethodConfig
from ioa_jax.distill import DistillResult, distill
from ioa_jax.files import read_json
from ioa_jax.teachers.ledger import Ledger
from ioa_jax.teachers.replay import LedgeredTeacher
from ioa_jax.teachers.spend import Budget
from tests.distill_world import SEEDS, Cook, method_config, new_student


class Stopped(Exception):
    """A process that ends here."""


def run(
    folder: Path, config: MethodConfig, cook: Cook | None = None, on_step: Any = None
) -> DistillResult:
    teacher = LedgeredTeacher(
        cook or Cook(),
        Ledger(folder / "ledger"),
        Budget(max_tokens=config.budget.teacher_tokens),
        counted=folder / "counted.jsonl",
    )
    with teacher:
        return distill(new_student(), teacher, SEEDS, config, folder, on_step=on_step)


def weights(result: DistillResult) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(result.student.model.decoder)]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DistillResult]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, method_config())


def test_the_student_learns_what_it_was_taught(whole: tuple[Path, DistillResult]) -> None:
    folder, result = whole
    record = read_json(folder / "record.json")
    for module in result.diagnosis.targets.modules:
        figures = record["performance"][module]
        assert figures["after"] > figures["before"] + 0.1


def test_every_decision_is_on_disk(whole: tuple[Path, DistillResult]) -> None:
    folder, _ = whole
    record = read_json(folder / "record.json")
    lessons = lines(folder / "lessons.jsonl")
    assert record["lessons"] == len(lessons) > 10
    taught = {module for plan in read_json(folder / "curriculum.json") for module in _modules(plan)}
    assert {lesson["module"] for lesson in lessons} <= taught
    # Wrong examples were found out.
    wrong = sum(record["rejects"].get(reason, 0) for reason in ("check_failed", "unverified"))
    assert wrong > 0
    assert len(lines(folder / "rejects.jsonl")) == sum(record["rejects"].values())
    gates = lines(folder / "gates.jsonl")
    assert {gate["action"] for gate in gates} <= {"advance", "remediate", "park"}
    assert record["gates"]["remedial_rounds"] == sum(gate["remedial_round"] > 0 for gate in gates)
    matrix = read_json(folder / "retention.json")
    assert matrix["stages"][0] == 0
    assert len(matrix["ratios"]) == len(matrix["stages"]) == len({*matrix["stages"]})


def _modules(plan: dict[str, Any]) -> list[str]:
    return [module for stage in plan["stages"] for module in stage["modules"]]


def test_budgets_hold_and_are_accounted_for(whole: tuple[Path, DistillResult]) -> None:
    folder, _ = whole
    spend = read_json(folder / "record.json")["spend"]
    assert sum(used["completion_tokens"] for used in spend["teacher"].values()) <= 20_000
    assert {"synthesis", "verification"} <= spend["teacher"].keys()
    total = spend["student_tokens"] + spend["student_tokens_of_interventions"]
    assert 0.9 * 12_000 < total <= 12_000
    assert sum(spend["student_tokens_by_part"].values()) == spend["student_tokens"]
    assert spend["student_tokens"] == sum(row["tokens"] for row in lines(folder / "train.jsonl"))


def test_steps_have_their_seconds(whole: tuple[Path, DistillResult]) -> None:
    folder, _ = whole
    seconds = read_json(folder / "record.json")["spend"]["seconds"]
    assert list(seconds) == [
        "decomposition", "measurement", "dependencies", "organizing", "synthesis", "gates",
        "retention", "training",
    ]  # fmt: skip
    assert all(value > 0 for value in seconds.values())
    steps = [line["step"] for line in lines(folder / "seconds.jsonl")]
    stages = len({gate["stage"] for gate in lines(folder / "gates.jsonl")})
    assert steps.count("gates") == len(lines(folder / "gates.jsonl"))
    # What else changed is measured after every stage, and at the end.
    assert steps.count("retention") == stages + 1


def test_a_small_teacher_budget_still_leaves_a_student(tmp_path: Path) -> None:
    result = run(tmp_path, method_config(budget={"teacher_tokens": 700, "student_tokens": 6000}))
    record = read_json(tmp_path / "record.json")
    used = sum(used["completion_tokens"] for used in record["spend"]["teacher"].values())
    assert 0 < used <= 700
    assert record["spend"]["student_tokens"] > 0
    assert all(np.isfinite(x).all() for x in weights(result))


@pytest.fixture(scope="module")
def sequential(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DistillResult]:
    folder = tmp_path_factory.mktemp("sequential")
    return folder, run(folder, method_config(organizer={"stage_mode": "sequential"}))


@pytest.mark.parametrize(
    ("mode", "stop_at"),
    [
        ("whole", "calls 0"),
        ("whole", "calls 30"),
        ("whole", "steps 20"),
        ("sequential", "calls 90"),
        ("sequential", "steps 1"),
    ],
)
def test_a_stopped_run_ends_as_if_it_had_not_been(
    tmp_path: Path, request: pytest.FixtureRequest, mode: str, stop_at: str
) -> None:
    folder, expected = request.getfixturevalue(mode)
    stage_mode = "pooled" if mode == "whole" else mode
    config = method_config(organizer={"stage_mode": stage_mode})
    what, _, number = stop_at.partition(" ")
    count = 0

    def stop(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > int(number):
            raise Stopped

    class Interrupted(Cook):
        def say(self, request: Any, number: int) -> str:
            if what == "calls":
                stop()
            return super().say(request, number)

    with pytest.raises(Stopped):
        run(tmp_path, config, Interrupted(), stop if what == "steps" else None)
    resumed = run(tmp_path, config)
    for a, b in zip(weights(expected), weights(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    for name in ("lessons.jsonl", "rejects.jsonl", "gates.jsonl", "train.jsonl"):
        assert _untimed(lines(folder / name)) == _untimed(lines(tmp_path / name))
    # Both processes' time, the first one's diagnosis among it.
    steps = [line["step"] for line in lines(tmp_path / "seconds.jsonl")]
    assert steps.count("decomposition") == 2
    assert read_seconds(tmp_path / "seconds.jsonl").keys() >= {"synthesis", "gates"}


def _untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_controls_switch_parts_off(tmp_path: Path) -> None:
    run(tmp_path / "gate", method_config(organizer={"gate": False}))
    gates = lines(tmp_path / "gate" / "gates.jsonl")
    assert {gate["action"] for gate in gates} == {"advance"}
    assert read_json(tmp_path / "gate" / "record.json")["parked"] == []
