"""Batches: rows that are full, epochs, and the share of retained examples."""

import dataclasses
import itertools

import pytest

from ioa_jax.engine.batching import (
    PrefixGroup,
    TokenPair,
    pack_batch,
    pack_groups,
    pack_in_order,
)
from ioa_jax.engine.epochs import endless_batches
from ioa_jax.engine.train_config import TrainConfig
from ioa_jax.errors import InputError
from tests.tiny import random_pairs

CONFIG = TrainConfig(batch_rows=4, row_length=64)


def take(count, *arguments, **named):
    return list(itertools.islice(endless_batches(*arguments, **named), count))


def test_an_epoch_has_every_example_once_in_an_order_of_its_own():
    pairs = random_pairs(60)
    batches = take(200, pairs, CONFIG)
    seen = [pair for batch in batches for pair in batch.examples]
    assert sorted(map(repr, seen[:60])) == sorted(map(repr, pairs))
    assert sorted(map(repr, seen[60:120])) == sorted(map(repr, pairs))
    assert seen[:60] != seen[60:120]
    assert batches == take(200, pairs, CONFIG)
    assert batches != take(200, pairs, dataclasses.replace(CONFIG, seed=1))
    assert batches != take(200, pairs, CONFIG, "another purpose")
    kept = take(3, pairs, dataclasses.replace(CONFIG, shuffle=False))
    assert [pair for batch in kept for pair in batch.examples] == pairs[
        : sum(len(batch.examples) for batch in kept)
    ]


def test_batches_fill_their_rows():
    pairs = random_pairs(200)
    for batch in take(10, pairs, CONFIG):
        assert len(pack_in_order([len(pair) for pair in batch.examples], 64)) == 4


@pytest.mark.parametrize("share", [0.1, 0.4, 0.5])
def test_retained_examples_fill_their_share_of_the_rows(share):
    pairs, kept = random_pairs(400), random_pairs(400, seed=5)
    config = dataclasses.replace(CONFIG, batch_rows=8, retained_share=share)
    batches = take(50, pairs, config, retained=kept)
    rows = [len(pack_in_order([len(pair) for pair in b.retained], 64)) for b in batches]
    assert sum(rows) == pytest.approx(50 * 8 * share, abs=10)
    assert max(rows) <= config.retained_rows
    assert all(set(map(repr, b.retained)) <= set(map(repr, kept)) for b in batches)


def test_a_row_is_left_for_what_is_taught():
    shares = [(8, 0.1), (8, 0.5), (8, 0.99), (2, 0.9), (1, 0.5), (8, 0.0)]
    found = [
        dataclasses.replace(CONFIG, batch_rows=rows, retained_share=share).retained_rows
        for rows, share in shares
    ]
    assert found == [1, 4, 7, 1, 1, 0]


def test_first_fit_is_over_the_youngest_rows():
    # The last one fits each of the rows, and goes to the oldest of eight.
    assert pack_in_order([60] * 9 + [4], 64) == [[0], [1, 9], *([i] for i in range(2, 9))]
    assert pack_in_order([40, 24, 1], 64) == [[0, 1], [2]]


def test_the_largest_groups_are_packed_first():
    groups = [PrefixGroup(1, [i], size) for i, size in enumerate([20, 20, 50, 50])]
    assert sorted(map(sorted, pack_groups(groups, 70))) == [[0, 2], [1, 3]]


def test_packed_batches_have_retained_rows_last():
    pairs, kept = random_pairs(5), random_pairs(3, seed=1)
    packed = pack_batch(pairs, 64, 8, retained=kept)
    first = {int(i) for i in packed.owners[:-2].ravel()}
    last = {int(i) for i in packed.owners[-1].ravel()}
    assert packed.tokens.shape[0] == 8
    assert max(first) < 5 or 5 in first
    assert last - {-1} <= {5, 6, 7}
    count = sum(len(pair.completion) for pair in (*pairs, *kept))
    assert int(packed.weights.sum()) == count


def test_what_fits_no_row_is_named():
    with pytest.raises(InputError, match="example 1"):
        take(1, [TokenPair((2,), (3,)), TokenPair((2,) * 64, (3,))], CONFIG)
    with pytest.raises(InputError, match="no examples"):
        take(1, [], CONFIG)
