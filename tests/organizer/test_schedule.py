from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ioa_jax.errors import InputError
from ioa_jax.organizer.schedule import (
    PoolSettings,
    StageData,
    pooled_step,
    sequential_step,
    sequential_steps,
    share_steps,
)


def stage(first, count, module="a", steps=4, raised=()):
    return StageData(tuple(range(first, first + count)), (module,) * count, steps, raised)


STAGES = [stage(0, 6, "a"), stage(6, 5, "b"), stage(11, 7, "c")]
SETTINGS = PoolSettings(batch_size=6)


def test_sequential_epochs_hold_every_example_of_the_stage_once():
    # 6, 5 and 7 examples in batches of 4 are 2 steps an epoch.
    assert sequential_steps(STAGES, 4, 3) == (6, 6, 6)
    steps = [sequential_step(STAGES, step, 4, 3, seed=1) for step in range(18)]
    assert [len(step) for step in steps] == [4, 2] * 3 + [4, 1] * 3 + [4, 3] * 3
    epochs = [steps[i] + steps[i + 1] for i in range(0, 18, 2)]
    for number, members in enumerate(STAGES):
        of_stage = epochs[3 * number : 3 * number + 3]
        assert all(sorted(epoch) == list(members.examples) for epoch in of_stage)
        assert len(set(of_stage)) > 1


def test_the_first_pooled_stage_is_all_new():
    # 4 steps of 6 out of 6 examples are 4 epochs.
    for step in range(4):
        assert sorted(pooled_step(STAGES, step, SETTINGS)) == list(range(6))


def test_later_pooled_batches_are_half_new_and_half_from_everything_before():
    for step in range(8, 12):
        batch = pooled_step(STAGES, step, SETTINGS)
        assert set(batch[:3]) <= set(STAGES[2].examples)
        assert set(batch[3:]) <= set(range(11))
        assert len(set(batch)) == 6
    replayed = {i for step in range(8, 12) for i in pooled_step(STAGES, step, SETTINGS)[3:]}
    assert replayed & set(STAGES[0].examples)
    assert replayed & set(STAGES[1].examples)


def test_the_new_share_is_rounded_up():
    batch = pooled_step(STAGES, 4, PoolSettings(batch_size=5))
    assert [i in STAGES[1].examples for i in batch] == [True] * 3 + [False] * 2
    batch = pooled_step(STAGES, 4, PoolSettings(batch_size=5, new_share=1.0))
    assert sorted(batch) == list(STAGES[1].examples)


def test_new_material_is_used_evenly():
    new = [i for step in range(8, 12) for i in pooled_step(STAGES, step, SETTINGS)[:3]]
    counts = Counter(new)
    # 12 uses of 7 examples.
    assert sorted(counts) == list(STAGES[2].examples)
    assert set(counts.values()) == {1, 2}


def test_mastered_modules_are_replayed_from_the_start():
    batch = pooled_step(STAGES, 0, SETTINGS, mastered=stage(100, 9, "m", steps=0))
    assert all(i < 6 for i in batch[:3])
    assert all(i >= 100 for i in batch[3:])


def test_replay_of_fallen_modules_is_raised():
    def share(raised):
        data = [stage(0, 50, "a"), stage(50, 50, "b"), stage(100, 50, "c", 400, raised)]
        settings = PoolSettings(batch_size=4, raise_factor=3.0)
        drawn = [i for step in range(8, 408) for i in pooled_step(data, step, settings)[2:]]
        return sum(i < 50 for i in drawn) / len(drawn)

    # 800 draws: a share of 0.5 has a standard error of 0.018, one of 0.75 of 0.015.
    assert share(()) == pytest.approx(0.5, abs=0.07)
    assert share(("a",)) == pytest.approx(0.75, abs=0.06)
    assert share(("a", "b")) == pytest.approx(0.5, abs=0.07)


def test_a_small_pool_is_repeated_evenly():
    data = [stage(0, 2, "a", 1), stage(2, 9, "b", 1)]
    batch = pooled_step(data, 1, PoolSettings(batch_size=10))
    assert sorted(Counter(batch[5:]).values()) == [2, 3]


def test_a_stage_without_examples_replays():
    data = [stage(0, 6, "a", 1), StageData((), (), 1)]
    assert set(pooled_step(data, 1, SETTINGS)) == set(range(6))
    with pytest.raises(InputError, match="stage 0"):
        pooled_step([StageData((), (), 1)], 0, SETTINGS)
    assert sequential_steps(data, 4, 1) == (2, 0)
    with pytest.raises(InputError, match="step 2 of 2"):
        sequential_step(data, 2, 4, 1, seed=0)


def test_batches_depend_on_no_later_stage_and_on_the_seed():
    for step in range(8):
        assert pooled_step(STAGES, step, SETTINGS) == pooled_step(STAGES[:2], step, SETTINGS)
    other = PoolSettings(batch_size=6, seed=1)
    assert [pooled_step(STAGES, i, SETTINGS) for i in range(12)] != [
        pooled_step(STAGES, i, other) for i in range(12)
    ]


@pytest.mark.parametrize("step", [-1, 12])
def test_steps_are_those_of_the_stages(step):
    with pytest.raises(InputError, match=f"step {step} of 12"):
        pooled_step(STAGES, step, SETTINGS)


def test_share_steps():
    assert share_steps(10, [1.0, 1.0]) == (5, 5)
    # One each; the other 7 by weight are 4.2, 1.4 and 1.4: the remainders of the two are larger.
    assert share_steps(10, [3.0, 1.0, 1.0]) == (5, 3, 2)
    with pytest.raises(InputError, match="1 steps for 2 stages"):
        share_steps(1, [1.0, 1.0])
    with pytest.raises(InputError, match="positive"):
        share_steps(9, [1.0, 0.0])


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=8), st.integers(0, 500))
def test_shared_steps_sum_to_the_total(weights, spare):
    steps = share_steps(len(weights) + spare, weights)
    assert sum(steps) == len(weights) + spare
    for count, weight in zip(steps, weights, strict=True):
        assert abs(count - 1 - spare * weight / sum(weights)) < 1 + 1e-6


@pytest.mark.parametrize(
    "bad", [{"batch_size": 0}, {"new_share": 0.0}, {"new_share": 1.1}, {"raise_factor": 0.5}]
)
def test_settings_are_checked(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        PoolSettings(**bad)


def test_stage_data_is_checked_and_read_back_as_written():
    with pytest.raises(InputError, match="2 examples and 1 modules"):
        StageData((1, 2), ("a",))
    with pytest.raises(InputError, match="steps=-1"):
        StageData((), (), -1)
    data = stage(3, 2, raised=("b",))
    assert StageData.from_json(data.to_json(), "stage.json") == data
