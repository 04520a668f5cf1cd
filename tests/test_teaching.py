"""Teaching part by part, and going on after a stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ioa_jax.organizer.schedule import PoolSettings
from ioa_jax.teaching import Material, PooledTeaching, SequentialTeaching, Teaching

from ioa_jax.engine.training import StepMetrics, TrainConfig
from ioa_jax.student import Student
from tests.tiny import random_pairs, tiny_model

CONFIG = TrainConfig(learning_rate=1e-2, epochs=2, batch_rows=2, row_length=64, save_every=2)
PAIRS = random_pairs(24)
PARTS = {
    "one": Material(tuple(PAIRS[:8]), ("a",) * 8),
    "two": Material(tuple(PAIRS[8:16]), ("b",) * 8),
    "rest": Material(),
}


class Stopped(Exception):
    """A process that ends in the middle of a step."""


def pooled(folder: Path, on_step: Any = None) -> Teaching:
    pool = PoolSettings(batch_size=4, seed=3)
    mastered = Material(tuple(PAIRS[16:]), ("c",) * 8)
    return PooledTeaching(student(), CONFIG, pool, 1500, folder, mastered, on_step)


def sequential(folder: Path, on_step: Any = None) -> Teaching:
    return SequentialTeaching(student(), CONFIG, 4, 1500, folder, on_step)


def student() -> Student:
    return Student(tiny_model())


def teach_all(teaching: Teaching) -> list[np.ndarray]:
    with teaching:
        for name, material in PARTS.items():
            teaching.teach(name, material, 400, raised=("a",))
        return [np.asarray(x) for x in jax.tree.leaves(teaching.student.model.decoder)]


@pytest.mark.parametrize("mode", [pooled, sequential])
@pytest.mark.parametrize("stop_after", [1, 3, 5, 6])
def test_a_stopped_run_ends_with_the_same_weights(
    tmp_path: Path, mode: Callable[..., Teaching], stop_after: int
) -> None:
    whole = teach_all(mode(tmp_path / "whole"))
    steps = 0

    def stop(part: str, metrics: StepMetrics) -> None:
        nonlocal steps
        steps += 1
        if steps == stop_after:
            raise Stopped

    with pytest.raises(Stopped):
        teach_all(mode(tmp_path / "stopped", stop))
    resumed = teach_all(mode(tmp_path / "stopped"))
    for a, b in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(a, b)


def test_parts_keep_to_their_share_and_the_run_to_its_budget(tmp_path: Path) -> None:
    with pooled(tmp_path) as teaching:
        first = teaching.teach("one", PARTS["one"], 400)
        longest = 4 * max(len(pair) for pair in PAIRS)
        # A part ends with the step that reaches its share.
        assert 400 <= first.tokens < 400 + longest
        rest = teaching.teach("rest", Material(), 10_000)
        assert teaching.left == 1500 - first.tokens - rest.tokens
        assert 0 <= teaching.left < longest


def test_a_finished_part_is_not_trained_again(tmp_path: Path) -> None:
    teach_all(sequential(tmp_path))
    seen: list[str] = []
    teach_all(sequential(tmp_path, lambda part, metrics: seen.append(part)))
    assert seen == []


def test_sequential_is_epochs_over_the_part_alone(tmp_path: Path) -> None:
    seen: list[str] = []
    with sequential(tmp_path, lambda part, metrics: seen.append(part)) as teaching:
        part = teaching.teach("one", PARTS["one"], 10_000)
    assert part.tokens == 2 * sum(len(pair) for pair in PAIRS[:8])
    assert seen == ["one"] * 4
