"""Controls of IOA: what each changes, and what those over its lessons train on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ioa_jax.engine.trainer import Trainer

from ioa_jax.engine.batching import TokenPair
from ioa_jax.engine.training import StepMetrics, TrainConfig
from ioa_jax.files import read_json
from ioa_jax.models.huggingface import write_decoder
from suite import run as job
from suite.methods import METHODS, load_method
from suite.methods.base import MethodContext
from suite.methods.ioa import IOA
from suite.methods.pool import PARTS, parts_in_turn, read_pool
from suite.profile import load_profile
from tests.distill_world import Cook, method_config, new_student, write_seeds

DIMENSIONS = ("concretization", "decomposition", "cognitive_load", "format", "language")
CHANGES: dict[str, dict[str, Any]] = {
    "ioa_paper": {"organizer.stage_mode": "sequential"},
    "ioa_no_identifier": {
        "diagnose.decompose.decomposer": "random",
        "diagnose.tau_gap": -1.0,
    },
    "ioa_no_zone": {"organizer.zone": False},
    "ioa_no_gate": {"organizer.gate": False, "organizer.remedial_share": 0.0},
    "ioa_no_remedial": {"organizer.max_remedial_rounds": 0, "organizer.remedial_share": 0.0},
    "ioa_no_adapter": {f"adapter.dimensions.{name}": False for name in DIMENSIONS},
    "ioa_no_retention": {"organizer.retention": False},
}
POOL_CONTROLS = ("ioa_shuffled", "ioa_easy_to_hard", "ioa_hard_to_easy")


def flat(settings: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{place}{name}.")
        else:
            found[f"{place}{name}"] = value
    return found


def test_every_control_is_here() -> None:
    assert {name for name in METHODS if name.startswith("ioa_")} == {*CHANGES, *POOL_CONTROLS}


@pytest.mark.parametrize("profile", ["smollm2", "micro"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_control_changes_what_it_says_and_nothing_else(name: str, profile: str) -> None:
    methods = [load_method(one) for one in ("ioa", name)]
    given = load_profile(profile)[1]
    usual, changed = (
        flat(one.config(given).model_dump()) for one in methods if isinstance(one, IOA)
    )
    assert usual.keys() == changed.keys()
    different = {place: changed[place] for place in usual if changed[place] != usual[place]}
    assert different == CHANGES[name]


# -- controls over its lessons -------------------------------------------------------------------

BUDGET = 6000


@dataclasses.dataclass
class Ran:
    """A run of a cook's lessons.

    Attributes:
        folder: Its own.
        batches: What each cell's optimiser steps trained on, by the cell's name.
        tokens: Of each step.
        contexts: What each method was given, by the cell's name.
    """

    folder: Path
    batches: dict[str, list[list[TokenPair]]]
    tokens: dict[str, list[int]]
    contexts: dict[str, MethodContext]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("controls")
    student = new_student()
    write_decoder(student.model.decoder, student.model.tokenizer, folder / "model")
    write_seeds(folder / "seeds.jsonl")
    # So little is asked for that the student masters all before: its references are replayed.
    config = method_config(organizer={"tau_mastery": 1e-4, "rounds": 1}).model_dump(mode="json")
    settings = {
        "description": "a test",
        "precision": "float32",
        "pack": "micro",
        "teacher": {"spec": "openai:cook@http://localhost:1/v1"},
        "student": {"spec": str(folder / "model")},
        "seed_items": {"source": str(folder / "seeds.jsonl"), "probe_fraction": 0.33},
        "tasks": [],
        "budgets": {"teacher_tokens": 8000, "student_tokens": BUDGET},
        "sampling": {"max_tokens": 48},
        "train": {"learning_rate": 2e-2, "batch_rows": 2, "row_length": 96, "save_every": 1000},
        "options": {name: config[name] for name in ("diagnose", "organizer", "adapter")},
        "methods": ["ioa", *POOL_CONTROLS],
        "seeds": [0],
    }
    (folder / "cooks.yaml").write_text(yaml.safe_dump(settings))
    name, profile = load_profile(str(folder / "cooks.yaml"))
    found = Ran(folder / "results" / name / "run", {}, {}, {})
    step, of_cell = Trainer.step, job._Job._context
    cells: list[str] = []

    def keep_context(self: Any, cell: Any, *rest: Any) -> MethodContext:
        cells.append(cell.name)
        found.contexts[cell.name] = of_cell(self, cell, *rest)
        return found.contexts[cell.name]

    def keep_step(self: Trainer, batch: Sequence[TokenPair]) -> StepMetrics | None:
        metrics = step(self, batch)
        if metrics is not None:
            found.batches.setdefault(cells[-1], []).append(list(batch))
            found.tokens.setdefault(cells[-1], []).append(metrics.tokens)
        return metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ioa_jax.teachers.spec.open_teacher", lambda spec, **settings: Cook())
        patch.setattr(job._Job, "_context", keep_context)
        patch.setattr(Trainer, "step", keep_step)
        directory = job.start_run(profile, name, folder / "results", "run")
        assert not job.run_job(directory)["failed"]
        yield found


@pytest.mark.parametrize("name", POOL_CONTROLS)
def test_a_control_trains_on_what_ioa_taught(ran: Ran, name: str) -> None:
    cell = f"{name}-seed0"
    taught = {pair for batch in ran.batches["ioa-seed0"] for pair in batch}
    assert {pair for batch in ran.batches[cell] for pair in batch} == taught
    # References of all modules are replayed, and lessons are more than these.
    assert len(taught) > len(ran.contexts[cell].seeds)
    own, of_ioa = (
        read_json(ran.folder / "cells" / one / "cell.json")["spend"] for one in (cell, "ioa-seed0")
    )
    assert sum(ran.tokens[cell]) == own["student_tokens"]
    for spend in (own, of_ioa):
        assert BUDGET - 96 < spend["student_tokens"] <= BUDGET
    assert own["teacher_of"] == "ioa"
    for figure in ("teacher_tokens", "teacher_requests", "by_purpose"):
        assert own[figure] == of_ioa[figure]
    assert own["teacher_tokens"] > 0
    assert ran.contexts[cell].teacher.used.completion_tokens == 0


def test_parts_follow_each_other_by_difficulty(ran: Ran) -> None:
    pool = read_pool(ran.contexts["ioa_shuffled-seed0"])
    # By P_S of the module, then by the lesson's own: it grows from easy to hard.
    difficulty = {one.pair: (-one.performance, one.level) for one in pool}
    assert len(set(difficulty.values())) >= 6

    def cuts(batches: Sequence[Sequence[TokenPair]]) -> int:
        """Places before which nothing is harder than anything behind them."""
        keys = [[difficulty[pair] for pair in batch] for batch in batches]
        return sum(
            max(max(batch) for batch in keys[:place]) <= min(min(batch) for batch in keys[place:])
            for place in range(1, len(keys))
        )

    assert cuts(ran.batches["ioa_easy_to_hard-seed0"]) >= PARTS - 1
    assert cuts(ran.batches["ioa_hard_to_easy-seed0"][::-1]) >= PARTS - 1
    assert cuts(ran.batches["ioa_shuffled-seed0"]) < PARTS - 1


def test_shuffled_is_another_order_for_another_seed(ran: Ran, tmp_path: Path) -> None:
    context = ran.contexts["ioa_shuffled-seed0"]
    control = load_method("ioa_shuffled")

    def order(seed: int, name: str) -> list[list[TokenPair]]:
        taken: list[list[TokenPair]] = []
        step = Trainer.step

        def keep(self: Trainer, batch: Sequence[TokenPair]) -> StepMetrics | None:
            taken.append(list(batch))
            return step(self, batch)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "step", keep)
            control.run(
                dataclasses.replace(
                    context,
                    seed=seed,
                    directory=tmp_path / name,
                    budgets=context.budgets.model_copy(update={"student_tokens": 600}),
                    on_step=lambda part, metrics, now: None,
                )
            )
        return taken[:-1]

    first = order(0, "first")
    assert first == order(0, "again") == ran.batches["ioa_shuffled-seed0"][: len(first)]
    assert order(1, "other") != first


def test_parts_share_the_budget_equally() -> None:
    """Of examples whose prompt is their place in the order."""
    pairs = [TokenPair((number,), (1,) * 9) for number in range(80)]
    config = TrainConfig(learning_rate=1e-3, batch_rows=2, row_length=24)
    share = 333
    used = [0] * PARTS
    for batch in parts_in_turn(pairs, config, PARTS * share):
        if sum(used) >= PARTS * share:
            break
        (part,) = {pair.prompt[0] * PARTS // len(pairs) for pair in batch}
        assert not any(used[part + 1 :])
        used[part] += sum(len(pair) for pair in batch)
    # A part ends with a batch, and what it takes too much the next one goes without.
    assert all(abs(one - share) <= 40 for one in used)
