"""Training stage by stage in both modes, and going on after a stop."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import jax
import numpy as np
import pytest

from ioa_jax.engine.training import StepMetrics, TrainConfig
from ioa_jax.errors import InputError
from ioa_jax.files import read_value
from ioa_jax.organizer.stage_training import (
    PooledTrainer,
    SequentialTrainer,
    StageTrainer,
    TrainedStage,
)
from ioa_jax.student import Student
from tests.tiny import random_pairs, tiny_model

CONFIG = TrainConfig(
    learning_rate=1e-2,
    epochs=2,
    batch_rows=2,
    row_length=64,
    save_every=2,
    retained_share=0.5,
    retention_weight=4.0,
)
PAIRS = random_pairs(24)
RETAINED = PAIRS[16:]
STAGES = {"one": PAIRS[:8], "two": PAIRS[:16], "rest": PAIRS[:16]}
GOALS = {"one": 400, "two": 800, "rest": None}
BUDGET = 1500
MODES = [PooledTrainer, SequentialTrainer]
OnStep = Callable[[str, StepMetrics], None]


class Stopped(Exception):
    """A process that ends in the middle of a step."""


def open_trainer(
    mode: type[StageTrainer], folder: Path, on_step: OnStep | None = None
) -> StageTrainer:
    share = CONFIG.retained_share if mode is PooledTrainer else 0.0
    config = dataclasses.replace(CONFIG, retained_share=share)
    return mode(Student(tiny_model()), config, BUDGET, folder, on_step)


def train_all(trainer: StageTrainer) -> list[np.ndarray]:
    with trainer:
        for name, examples in STAGES.items():
            trainer.train(name, examples, RETAINED, until_tokens=GOALS[name])
        return weights(trainer)


def weights(trainer: StageTrainer) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(trainer.student.model.decoder)]


def same(ones: Iterable[np.ndarray], others: Iterable[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(ones, others, strict=True))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stop_after", [1, 3, 6, 9])
def test_a_stopped_run_ends_with_the_same_weights(
    tmp_path: Path, mode: type[StageTrainer], stop_after: int
) -> None:
    whole = train_all(open_trainer(mode, tmp_path / "whole"))
    seen: list[str] = []

    def stop(stage: str, metrics: StepMetrics) -> None:
        seen.append(stage)
        if len(seen) == stop_after:
            raise Stopped

    with pytest.raises(Stopped):
        train_all(open_trainer(mode, tmp_path / "stopped", stop))
    assert same(whole, train_all(open_trainer(mode, tmp_path / "stopped")))


@pytest.mark.parametrize("mode", MODES)
def test_a_finished_stage_is_not_trained_again(tmp_path: Path, mode: type[StageTrainer]) -> None:
    whole = train_all(open_trainer(mode, tmp_path))
    seen: list[str] = []
    again = open_trainer(mode, tmp_path, lambda stage, _: seen.append(stage))
    assert same(whole, train_all(again))
    assert seen == []
    for stage in again.trained:
        assert read_value(tmp_path / "stages" / f"{stage.name}.json", TrainedStage) == stage


def test_pooled_stages_keep_to_their_goals_and_the_run_to_its_budget(tmp_path: Path) -> None:
    seen: list[StepMetrics] = []
    trainer = open_trainer(PooledTrainer, tmp_path, lambda _, metrics: seen.append(metrics))
    train_all(trainer)
    step = 2 * 64
    assert [stage.name for stage in trainer.trained] == list(STAGES)
    ends = np.cumsum([stage.tokens for stage in trainer.trained])
    # A stage ends with the step that reaches its goal; the last one where nothing fits any more.
    assert 400 <= ends[0] < 400 + step
    assert 800 <= ends[1] < 800 + step
    assert BUDGET - step < ends[2] <= BUDGET
    assert trainer.left == BUDGET - ends[2]
    # One schedule over all stages: warm-up and decay occur once.
    rates = [metrics.learning_rate for metrics in seen]
    peak = rates.index(max(rates))
    assert rates == [*sorted(rates[:peak]), *sorted(rates[peak:], reverse=True)]


def test_a_stage_whose_goal_is_reached_takes_no_step(tmp_path: Path) -> None:
    with open_trainer(PooledTrainer, tmp_path) as trainer:
        first = trainer.train("one", STAGES["one"], until_tokens=400)
        before = weights(trainer)
        assert trainer.train("two", STAGES["two"], until_tokens=first.tokens).steps == 0
        assert same(before, weights(trainer))


def test_retained_examples_hold_the_student_back(tmp_path: Path) -> None:
    """With the divergence from the student before, its answers stay likelier than without."""
    likely: list[float] = []
    for retained in (RETAINED, []):
        with open_trainer(PooledTrainer, tmp_path / str(len(retained))) as trainer:
            trainer.train("one", PAIRS[:8], retained)
            scores = trainer.student.score(RETAINED)
        likely.append(sum(score.logprob for score in scores))
    assert likely[0] > likely[1]


def test_sequential_is_epochs_over_the_stage_alone(tmp_path: Path) -> None:
    seen: list[str] = []
    with open_trainer(SequentialTrainer, tmp_path, lambda s, _: seen.append(s)) as trainer:
        stage = trainer.train("one", PAIRS[:8], RETAINED)
    assert stage.tokens == 2 * sum(len(pair) for pair in PAIRS[:8])
    assert seen == ["one"] * stage.steps
    assert trainer.left == BUDGET - stage.tokens


def test_a_sequential_stage_keeps_to_its_goal(tmp_path: Path) -> None:
    with open_trainer(SequentialTrainer, tmp_path) as trainer:
        first = trainer.train("one", PAIRS[:8], until_tokens=120)
        second = trainer.train("two", PAIRS[8:16], until_tokens=200)
    longest = max(map(len, PAIRS))
    assert 120 - longest < first.tokens <= 120
    assert 200 - longest < first.tokens + second.tokens <= 200


def test_sequential_trains_nothing_where_nothing_is_left(tmp_path: Path) -> None:
    with open_trainer(SequentialTrainer, tmp_path) as trainer:
        trainer.train("one", PAIRS[:8], until_tokens=400)
        before = weights(trainer)
        assert trainer.train("two", PAIRS[8:16], until_tokens=trainer.tokens).steps == 0
        assert same(before, weights(trainer))


def test_sequential_refuses_to_go_on_from_other_weights(tmp_path: Path) -> None:
    with open_trainer(SequentialTrainer, tmp_path) as trainer:
        trainer.train("a", random_pairs(4))
    shutil.rmtree(tmp_path / "checkpoints" / "a")
    (tmp_path / "checkpoints" / "a.deleted").mkdir()
    with open_trainer(SequentialTrainer, tmp_path) as trainer:
        assert not list((tmp_path / "checkpoints").iterdir())
        trainer.train("a", random_pairs(4))
        with pytest.raises(InputError, match="the weights of stage 'a' are gone"):
            trainer.train("b", random_pairs(4))
        with pytest.raises(InputError, match="the weights of stage 'a' are gone"):
            _ = trainer.student
