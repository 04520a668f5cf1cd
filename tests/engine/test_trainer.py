import dataclasses

import jax
import numpy as np
import pytest

from ioa_jax.engine.batching import TokenPair
from ioa_jax.engine.training import Batch, LoRAConfig, TrainConfig, Trainer, train
from ioa_jax.errors import InputError
from tests.tiny import random_pairs, tiny_decoder

CONFIG = TrainConfig(
    learning_rate=1e-2, batch_rows=2, row_length=64, warmup_fraction=0.2, save_every=2
)


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def batches(count):
    pairs = random_pairs(4 * count)
    return [Batch(tuple(pairs[4 * i : 4 * i + 4])) for i in range(count)]


def test_the_budget_is_used_up_and_never_exceeded():
    data = batches(6)
    budget = sum(len(pair) for batch in data for pair in batch.examples) - len(
        data[-1].examples[-1]
    )
    trainer = Trainer(tiny_decoder(), CONFIG, budget)
    steps = [trainer.step(batch) for batch in data]
    assert trainer.tokens == budget
    assert trainer.progress == 1
    assert [step.step for step in steps if step is not None] == [1, 2, 3, 4, 5, 6]
    assert trainer.step(data[0]) is None
    assert trainer.steps == 6


def test_the_rate_follows_the_budget_and_not_the_steps():
    data = batches(8)
    total = sum(len(pair) for batch in data for pair in batch.examples)
    trainer = Trainer(tiny_decoder(), CONFIG, total)
    used = 0
    for batch in data:
        tokens = sum(len(pair) for pair in batch.examples)
        metrics = trainer.step(batch)
        assert metrics is not None
        middle = (used + tokens / 2) / total
        expected = (
            middle / 0.2 if middle < 0.2 else 0.5 * (1 + np.cos(np.pi * (middle - 0.2) / 0.8))
        )
        assert metrics.learning_rate == pytest.approx(1e-2 * expected)
        used += tokens


def test_retained_examples_count_against_the_budget():
    config = dataclasses.replace(CONFIG, retained_share=0.5)
    pairs = random_pairs(4)
    batch = Batch(tuple(pairs[:2]), tuple(pairs[2:]))
    tokens = sum(map(len, pairs))
    # Exactly as many as fit, and one token less.
    for left, taken in ((tokens, 4), (tokens - 1, 3)):
        trainer = Trainer(tiny_decoder(), config, left)
        assert trainer.step(batch) is not None
        assert trainer.tokens == sum(map(len, pairs[:taken]))


def test_a_step_says_how_many_there_will_be():
    data = batches(3)
    total = sum(len(pair) for batch in data for pair in batch.examples)
    trainer = Trainer(tiny_decoder(), CONFIG, total)
    first, _, last = [trainer.step(batch) for batch in data]
    assert first is not None
    assert last is not None
    assert first.steps == round(total / first.tokens) > 1
    assert last.steps == 3


def test_truncated_examples_are_counted_over_restarts(tmp_path):
    long = TokenPair(tuple(range(2, 10)), tuple(range(10, 80)))
    short = random_pairs(1)[0]
    with Trainer(tiny_decoder(), CONFIG, 10_000, directory=tmp_path) as first:
        first.step(Batch((long, short)))
        assert (first.truncated, first.tokens) == (1, 64 + len(short))
        first.save()
    with Trainer(tiny_decoder(), CONFIG, 10_000, directory=tmp_path) as second:
        assert (second.truncated, second.tokens) == (1, 64 + len(short))
        second.step(Batch((short, long)))
        assert second.truncated == 2


@pytest.mark.parametrize("lora", [None, LoRAConfig(rank=2)])
def test_a_resumed_run_is_bitwise_the_one_that_never_stopped(tmp_path, lora):
    config = dataclasses.replace(CONFIG, lora=lora)
    data = batches(5)
    whole = Trainer(tiny_decoder(), config, 10_000)
    for batch in data:
        whole.step(batch)
    with Trainer(tiny_decoder(), config, 10_000, directory=tmp_path) as first:
        for batch in data[:3]:
            first.step(batch)
    with Trainer(tiny_decoder(), config, 10_000, directory=tmp_path) as second:
        # Saved after the second step alone.
        assert second.steps == 2
        for batch in data[second.steps :]:
            second.step(batch)
        assert second.tokens == whole.tokens
        for a, b in zip(leaves(whole.decoder), leaves(second.decoder), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_step_equals_one_of_train():
    decoder, pairs = tiny_decoder(), random_pairs(4)
    config = dataclasses.replace(CONFIG, epochs=1, warmup_fraction=0.0, shuffle=False)
    by_train = train(decoder, pairs, config).decoder
    trainer = Trainer(decoder, config, sum(map(len, pairs)))
    trainer.step(Batch(tuple(pairs)))
    for a, b in zip(leaves(by_train), leaves(trainer.decoder), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_another_run_s_checkpoints_are_refused(tmp_path):
    with Trainer(tiny_decoder(), CONFIG, 1000, directory=tmp_path) as trainer:
        trainer.step(batches(1)[0])
        trainer.save()
    with pytest.raises(InputError, match="another budget"):
        Trainer(tiny_decoder(), CONFIG, 2000, directory=tmp_path)
