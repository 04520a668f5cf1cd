import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ioa_jax.engine import batching
from ioa_jax.engine.batching import TokenPair, pack_batch
from ioa_jax.engine.train_step import loss_sum, retained_loss_sum
from ioa_jax.engine.training import Batch, LoRAConfig, TrainConfig, Trainer, train
from ioa_jax.errors import InputError
from tests.tiny import random_pairs, tiny_decoder

CONFIG = TrainConfig(learning_rate=1e-2, epochs=2, batch_rows=4, row_length=64)


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def rows_of(pairs, row_length, packed):
    groups = [batching.PrefixGroup(len(p.prompt), [i], len(p)) for i, p in enumerate(pairs)]
    indices = (
        batching.pack_in_order([len(p) for p in pairs], row_length)
        if packed
        else [[i] for i in range(len(pairs))]
    )
    rows = batching.build_rows(pairs, [[groups[i] for i in row] for row in indices], row_length)
    return jax.tree.map(jnp.asarray, rows.device_arrays())


def test_packed_loss_and_gradients_equal_unpacked():
    decoder, pairs = tiny_decoder(), random_pairs(9)

    def loss(decoder, rows):
        total, count = loss_sum(decoder, None, rows, "full")
        return total / count

    packed, unpacked = rows_of(pairs, 96, True), rows_of(pairs, 96, False)
    assert len(packed["tokens"]) < len(unpacked["tokens"])
    a, grad_a = jax.value_and_grad(loss)(decoder, packed)
    b, grad_b = jax.value_and_grad(loss)(decoder, unpacked)
    assert float(a) == pytest.approx(float(b), rel=1e-5)
    for x, y in zip(leaves(grad_a), leaves(grad_b), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


def test_only_the_completion_is_trained_on():
    decoder, pair = tiny_decoder(), TokenPair((5, 6, 7), (8, 9))
    total, count = loss_sum(decoder, None, rows_of([pair], 32, False), "none")
    logprobs = jax.nn.log_softmax(decoder.logits(decoder.hidden(jnp.array([[5, 6, 7, 8, 9]]))))[0]
    assert float(count) == 2
    assert float(total) == pytest.approx(-float(logprobs[2, 8] + logprobs[3, 9]), rel=1e-5)


@pytest.mark.parametrize("lora", [None, LoRAConfig(rank=2)])
def test_accumulated_step_equals_whole_batch(lora):
    decoder, pairs = tiny_decoder(), random_pairs(10)
    config = dataclasses.replace(CONFIG, epochs=1, lora=lora)
    whole = train(decoder, pairs, config)
    parts = train(decoder, pairs, dataclasses.replace(config, accumulation=4))
    for a, b in zip(whole.metrics, parts.metrics, strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-5)
        assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-4)
        assert a.scored_tokens == b.scored_tokens


@pytest.mark.parametrize("policy", ["dots", "full"])
def test_remat_changes_nothing(policy):
    decoder, rows = tiny_decoder(), rows_of(random_pairs(4), 64, True)

    def gradient(policy):
        return jax.grad(lambda d: loss_sum(d, None, rows, policy)[0])(decoder)

    for x, y in zip(leaves(gradient("none")), leaves(gradient(policy)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_scan_equals_loop():
    decoder = tiny_decoder()
    tokens = jnp.array([random_pairs(1)[0].prompt], jnp.int32)
    np.testing.assert_allclose(
        decoder.hidden(tokens), decoder.unstacked().hidden(tokens), atol=1e-5
    )


def biased_decoder():
    """With biases that aren't 0, as those of a new decoder are."""
    return jax.tree_util.tree_map_with_path(
        lambda path, x: x + 0.5 if "bias" in jax.tree_util.keystr(path) else x,
        tiny_decoder("qwen2"),
    )


def adamw(config, learning_rate):
    """optax's own, with decay on matrices alone."""

    def mask(tree):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "norm" not in str(path) and "bias" not in str(path), tree
        )

    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.adamw(
            learning_rate, config.beta1, config.beta2, weight_decay=config.weight_decay, mask=mask
        ),
    )


ADAMW = dataclasses.replace(CONFIG, epochs=1, shuffle=False, weight_decay=0.5, clip=0.3)


def test_step_is_adamw():
    """The optimiser against optax's own AdamW, one full-batch step."""
    decoder, pairs = biased_decoder(), random_pairs(3)
    result = train(decoder, pairs, ADAMW)
    (step,) = result.metrics
    rows = jax.tree.map(jnp.asarray, pack_batch(pairs, 64, 4).device_arrays())

    def mean_loss(decoder):
        total, count = loss_sum(decoder, None, rows, "none")
        return total / count

    @jax.jit
    def expected(decoder):
        loss, grads = jax.value_and_grad(mean_loss)(decoder)
        optimizer = adamw(ADAMW, step.learning_rate)
        with jax.numpy_dtype_promotion("standard"):
            updates, _ = optimizer.update(grads, optimizer.init(decoder), decoder)
        return loss, optax.tree.norm(grads), jax.tree.map(jnp.add, decoder, updates)

    loss, norm, trained = expected(decoder)
    assert step.loss == pytest.approx(float(loss), rel=1e-5)
    assert step.grad_norm == pytest.approx(float(norm), rel=1e-4)
    for x, y in zip(leaves(result.decoder), leaves(trained), strict=True):
        # Adam divides a gradient by its own size: where one is near zero, the rounding of another
        # compilation shows. One hundredth of a step is 1e-4.
        np.testing.assert_allclose(x, y, atol=1e-4)


def test_the_optimiser_is_adamw_over_several_steps():
    """Of given gradients, small and large ones: what one step hides of the moments."""
    decoder, rng = biased_decoder(), np.random.default_rng(0)
    own, reference = ADAMW.step_settings().optimizer(), adamw(ADAMW, 1.0)
    states = [one.init(decoder) for one in (own, reference)]
    for size in (1e-4, 1.0, 1e-3):
        grads = jax.tree.map(
            lambda x, size=size: jnp.asarray(size * rng.normal(size=x.shape), x.dtype), decoder
        )
        direction, states[0] = own.update(grads, states[0], decoder)
        with jax.numpy_dtype_promotion("standard"):
            updates, states[1] = reference.update(grads, states[1], decoder)
        for x, y in zip(leaves(direction), leaves(updates), strict=True):
            np.testing.assert_allclose(x, -y, rtol=1e-5, atol=1e-6)


def test_loss_falls_and_lora_leaves_the_base_alone():
    decoder, pairs = tiny_decoder(), random_pairs(8)
    before = leaves(decoder)
    full = train(decoder, pairs, dataclasses.replace(CONFIG, epochs=20))
    assert full.metrics[-1].loss < 0.7 * full.metrics[0].loss
    lora = train(
        decoder,
        pairs,
        dataclasses.replace(CONFIG, epochs=12, lora=LoRAConfig(rank=4, targets="q|v|down")),
    )
    assert lora.metrics[-1].loss < lora.metrics[0].loss
    assert lora.lora is not None
    assert set(lora.lora.layers) == {"q", "v", "down"}
    for x, y in zip(before, leaves(decoder), strict=True):
        np.testing.assert_array_equal(x, y)
    # Merged weights give what base plus adapters give.
    tokens = jnp.array([pairs[0].prompt], jnp.int32)
    np.testing.assert_allclose(
        lora.decoder.hidden(tokens), decoder.hidden(tokens, lora=lora.lora), atol=2e-4
    )


def test_learning_rate_warms_up_and_falls():
    config = dataclasses.replace(CONFIG, warmup_fraction=0.1)
    assert config.learning_rate_at(0.05) == pytest.approx(5e-3)
    assert config.learning_rate_at(0.1) == pytest.approx(1e-2)
    assert config.learning_rate_at(0.55) == pytest.approx(5e-3)
    assert config.learning_rate_at(1.0) == pytest.approx(0, abs=1e-9)
    # From the peak to a tenth of it.
    config = dataclasses.replace(config, final_fraction=0.1)
    assert config.learning_rate_at(0.1) == pytest.approx(1e-2)
    assert config.learning_rate_at(0.55) == pytest.approx(5.5e-3)
    assert config.learning_rate_at(1.0) == pytest.approx(1e-3)


def test_epochs_are_trained_on_whole():
    pairs = random_pairs(10)
    result = train(tiny_decoder(), pairs, CONFIG)
    assert result.tokens == 2 * sum(map(len, pairs))
    assert sum(step.tokens for step in result.metrics) == result.tokens


def retained_rows(examples, retained):
    packed = pack_batch(examples, 64, 4, retained=retained)
    rows = packed.device_arrays()
    kept = packed.owners >= len(examples)
    rows["retained"] = kept.astype(np.float32)
    return jax.tree.map(jnp.asarray, rows)


def test_retained_examples_are_kept_by_divergence_and_others_by_cross_entropy():
    """λ KL(before || now), from the whole distributions, against the chunked primitive."""
    now, before = tiny_decoder(), tiny_decoder(seed=1)
    examples, retained = random_pairs(2), random_pairs(1, seed=7)
    settings = dataclasses.replace(CONFIG, retained_share=0.5, retention_weight=3.0).step_settings()
    total, count = retained_loss_sum(now, None, before, retained_rows(examples, retained), settings)

    def logprobs(decoder, pair):
        tokens = jnp.array([[*pair.prompt, *pair.completion]], jnp.int32)
        found = jax.nn.log_softmax(decoder.logits(decoder.hidden(tokens)))[0]
        return np.asarray(found[len(pair.prompt) - 1 : -1], np.float64)

    expected = 0.0
    for pair in examples:
        expected -= sum(logprobs(now, pair)[t, token] for t, token in enumerate(pair.completion))
    p, q = logprobs(before, retained[0]), logprobs(now, retained[0])
    expected += 3.0 * float(np.sum(np.exp(p) * (p - q)))
    assert float(count) == sum(len(pair.completion) for pair in (*examples, *retained))
    assert float(total) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("lora", [None, LoRAConfig(rank=2)])
def test_a_student_that_only_retains_stays_what_it_was(lora):
    config = dataclasses.replace(
        CONFIG, batch_rows=2, retained_share=0.5, lora=lora, weight_decay=0.0
    )
    decoder, pairs = tiny_decoder(), tuple(random_pairs(2))
    trainer = Trainer(decoder, config, 10_000)
    metrics = trainer.step(Batch((), pairs))
    assert metrics is not None
    # The divergence is 0 at its minimum, and so is its gradient.
    assert metrics.loss == pytest.approx(0, abs=1e-6)
    assert metrics.grad_norm < 1e-4
    taught = trainer.step(Batch(pairs, pairs))
    assert taught is not None
    assert taught.loss > 0.1
    assert taught.tokens == 2 * metrics.tokens


def test_a_step_learns_its_examples_and_keeps_the_retained():
    decoder, rng = tiny_decoder(), np.random.default_rng(0)
    # One a row: fewer are retained than the share allows.
    pairs = [
        TokenPair(*(tuple(int(t) for t in rng.integers(2, 97, 20)) for _ in range(2)))
        for _ in range(4)
    ]
    examples, retained = pairs[:3], pairs[3:]
    batch = Batch(tuple(examples), tuple(retained))
    scored = sum(len(pair.completion) for pair in (*examples, *retained))

    def loss(retention):
        config = dataclasses.replace(CONFIG, retained_share=0.5, retention=retention)
        step = Trainer(decoder, config, 10_000).step(batch)
        assert step is not None
        assert step.scored_tokens == scored
        return step.loss

    def likelihood(pairs):
        rows = rows_of(pairs, 64, True)
        return float(jax.jit(loss_sum, static_argnums=(1, 3))(decoder, None, rows, "none")[0])

    own, kept = likelihood(examples), likelihood(retained)
    # Before the first step there is no divergence.
    assert loss("divergence") == pytest.approx(own / scored, rel=1e-4)
    assert loss("replay") == pytest.approx((own + kept) / scored, rel=1e-4)


@pytest.mark.parametrize("retention", ["divergence", "replay"])
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5])
def test_no_more_rows_are_retained_than_the_share_allows(share, retention):
    # One a row, of which one is too long and cut.
    pairs = [TokenPair((2,) * 20, (3,) * length) for length in (20, 20, 20, 60)]
    config = dataclasses.replace(
        CONFIG, batch_rows=4, retained_share=share, retention=retention, warmup_fraction=0.0
    )
    trainer = Trainer(tiny_decoder(), config, 10_000)
    allowed = config.retained_rows
    assert allowed == 4 * share
    if allowed:
        assert trainer.step(Batch((), tuple(pairs[-allowed:]))) is not None
    before = leaves(trainer.decoder)
    with pytest.raises(InputError, match=rf"{allowed + 1} rows of 64 .* allows {allowed};"):
        trainer.step(Batch((), tuple(pairs[-allowed - 1 :])))
    # Nothing was trained on.
    assert trainer.steps == bool(allowed)
    for x, y in zip(before, leaves(trainer.decoder), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_split_step_retains_as_a_whole_one():
    """Also where examples fill more rows than a batch has, and retained rows two parts."""
    decoder = tiny_decoder()
    rng = np.random.default_rng(1)
    # One a row.
    pairs = [
        TokenPair(*(tuple(int(t) for t in rng.integers(2, 97, 20)) for _ in range(2)))
        for _ in range(9)
    ]
    for taught, kept, parts in ((6, 3, 2), (1, 3, 2), (1, 3, 4)):
        batch = Batch(tuple(pairs[:taught]), tuple(pairs[-kept:]))
        found = []
        for accumulation in (1, parts):
            config = dataclasses.replace(
                CONFIG,
                batch_rows=4,
                retained_share=0.75,
                accumulation=accumulation,
                warmup_fraction=0.0,
            )
            step = Trainer(decoder, config, 10_000).step(batch)
            assert step is not None
            # Retained tokens add nothing before the first step; by cross-entropy they would.
            found.append((step.loss, step.grad_norm))
        assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_adapters_begin_as_their_seed_says():
    config = dataclasses.replace(CONFIG, lora=LoRAConfig(rank=2))
    first, again, other = (
        leaves(Trainer(tiny_decoder(), dataclasses.replace(config, seed=seed), 1000).lora)
        for seed in (1, 1, 2)
    )
    assert all(np.array_equal(x, y) for x, y in zip(first, again, strict=True))
    assert not all(np.array_equal(x, y) for x, y in zip(first, other, strict=True))


def test_retention_holds_what_training_would_change():
    """By the divergence from before: the likelihood of any one text may rise or fall."""
    decoder, examples = tiny_decoder(), tuple(random_pairs(4))
    retained = tuple(random_pairs(4, seed=3))
    measured = dataclasses.replace(CONFIG, retained_share=0.5, retention_weight=1.0).step_settings()

    def moved(share, weight):
        # At one rate: retained tokens count for the schedule too.
        config = dataclasses.replace(
            CONFIG,
            warmup_fraction=0.0,
            final_fraction=1.0,
            retained_share=share,
            retention_weight=weight,
        )
        trainer = Trainer(decoder, config, 100_000)
        for _ in range(12):
            trainer.step(Batch(examples, retained if share else ()))
        rows = retained_rows((), retained)
        total, count = retained_loss_sum(trainer.decoder, None, decoder, rows, measured)
        return float(total / count)

    assert moved(0.5, 4.0) < 0.5 * moved(0.0, 0.0)


def test_bad_input_is_named():
    decoder = tiny_decoder()
    with pytest.raises(InputError, match="no examples"):
        train(decoder, [], CONFIG)
    with pytest.raises(InputError, match="example 1"):
        train(decoder, [TokenPair((2,), (3,)), TokenPair((2,) * 64, (3,))], CONFIG)
    with pytest.raises(InputError, match="float32"):
        train(decoder.astype(jnp.bfloat16), random_pairs(1), CONFIG)
    with pytest.raises(InputError, match="doesn't divide"):
        TrainConfig(batch_rows=4, accumulation=3)
    for rate in (float("nan"), -1.0, 0.0, 1e39):
        with pytest.raises(InputError, match="learning_rate"):
            TrainConfig(learning_rate=rate)
    with pytest.raises(InputError, match="retained_share"):
        Trainer(decoder, CONFIG, 1000).step(Batch((), tuple(random_pairs(1))))


def test_checkpoints_of_another_run_are_refused(tmp_path):
    decoder, pairs = tiny_decoder(), random_pairs(4)
    train(decoder, pairs, CONFIG, directory=tmp_path)
    with pytest.raises(InputError, match="other data or settings"):
        train(decoder, pairs, dataclasses.replace(CONFIG, seed=9), directory=tmp_path)


def other_token(tokens):
    return (*tokens[:-1], tokens[-1] % 90 + 2)


@pytest.mark.parametrize("part", ["prompt", "completion"])
def test_checkpoints_of_other_examples_are_refused(tmp_path, part):
    decoder, pairs = tiny_decoder(), random_pairs(4)
    train(decoder, pairs, dataclasses.replace(CONFIG, epochs=1), directory=tmp_path)
    changed = dataclasses.replace(pairs[2], **{part: other_token(getattr(pairs[2], part))})
    pairs = [*pairs[:2], changed, pairs[3]]
    with pytest.raises(InputError, match="other data or settings"):
        train(decoder, pairs, dataclasses.replace(CONFIG, epochs=1), directory=tmp_path)


def test_truncated_examples_are_counted():
    tokens = tuple(range(2, 67))
    # A row of 64 tokens holds the first two whole, and all but a token of the third.
    pairs = [TokenPair(tokens[:3], tokens[3:9]), TokenPair(tokens[:3], tokens[3:64])]
    pairs += [TokenPair(tokens[:4], tokens[4:65])]
    result = train(tiny_decoder(), pairs, dataclasses.replace(CONFIG, epochs=1))
    assert (result.truncated, result.tokens) == (1, 9 + 64 + 64)


RUN = """
import sys, time
from pathlib import Path
import numpy as np, jax
from ioa_jax.engine.training import TrainConfig, train
from tests.tiny import random_pairs, tiny_decoder
config = TrainConfig(learning_rate=1e-2, epochs=8, batch_rows=2, row_length=64, save_every=3)
slow = float(sys.argv[3])
def step(metrics):
    print(metrics.step, flush=True)
    time.sleep(slow)
directory = None if sys.argv[1] == "-" else Path(sys.argv[1])
result = train(tiny_decoder(), random_pairs(12), config, directory=directory, on_step=step)
np.savez(sys.argv[2], *[np.asarray(x) for x in jax.tree.leaves(result.decoder)])
"""


def test_killed_run_resumes_to_bitwise_the_same_weights(tmp_path):
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}

    def start(directory, output, slow):
        return subprocess.Popen(
            [sys.executable, "-c", RUN, str(directory), str(output), str(slow)],
            cwd=root,
            env=env,
            stdout=subprocess.PIPE,
            text=True,
        )

    whole = start("-", tmp_path / "whole.npz", 0)
    whole_steps = whole.communicate(timeout=300)[0].split()
    assert whole.returncode == 0

    killed = start(tmp_path / "run", tmp_path / "killed.npz", 0.3)
    assert killed.stdout is not None
    for line in killed.stdout:
        if int(line) == 8:
            os.kill(killed.pid, signal.SIGKILL)
            break
    killed.communicate(timeout=60)
    assert not (tmp_path / "killed.npz").exists()

    resumed = start(tmp_path / "run", tmp_path / "resumed.npz", 0)
    steps = resumed.communicate(timeout=300)[0].split()
    assert resumed.returncode == 0
    assert 0 < len(steps) < len(whole_steps)
    with np.load(tmp_path / "whole.npz") as a, np.load(tmp_path / "resumed.npz") as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])
