"""The chunked primitive against dense closed forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ioa_jax.engine.losses import Head, token_statistics
from ioa_jax.models.precision import Precision

FLOAT32 = Precision.named("float32")


def heads(count=13, seed=0, vocab=50, teacher_vocab=50, num_tokens=50):
    keys = jax.random.split(jax.random.key(seed), 5)
    student = Head(
        jax.random.normal(keys[0], (count, 8)), jax.random.normal(keys[1], (vocab, 8)), num_tokens
    )
    teacher = Head(
        jax.random.normal(keys[2], (count, 6)),
        jax.random.normal(keys[3], (teacher_vocab, 6)),
        num_tokens,
    )
    return student, teacher, jax.random.randint(keys[4], (count,), 0, num_tokens)


def dense(student, teacher, labels):
    n = student.num_tokens
    log_q = jax.nn.log_softmax((student.hidden @ student.weight.T)[:, :n])
    log_p = jax.nn.log_softmax((teacher.hidden @ teacher.weight.T)[:, :n])
    rows = jnp.arange(len(labels))
    return {
        "logprob": log_q[rows, labels],
        "is_greedy": log_q.argmax(-1) == labels,
        "entropy": -(jnp.exp(log_q) * log_q).sum(-1),
        "forward_kl": (jnp.exp(log_p) * (log_p - log_q)).sum(-1),
        "reverse_kl": (jnp.exp(log_q) * (log_q - log_p)).sum(-1),
        "teacher_logprob": log_p[rows, labels],
    }


@pytest.mark.parametrize("chunk", [1, 4, 13, 100])
def test_chunked_equals_dense(chunk):
    student, teacher, labels = heads()
    found = token_statistics(student, labels, FLOAT32, teacher=teacher, entropy=True, chunk=chunk)
    for name, expected in dense(student, teacher, labels).items():
        np.testing.assert_allclose(getattr(found, name), expected, atol=1e-5, err_msg=name)


def test_the_likeliest_token_is_greedy_and_the_next_is_not():
    student, _, _ = heads()
    order = jnp.argsort(-(student.hidden @ student.weight.T), axis=-1)
    for place, greedy in ((0, True), (1, False)):
        found = token_statistics(student, order[:, place], FLOAT32).is_greedy
        assert found.tolist() == [greedy] * 13


def test_padded_vocabularies_of_unequal_size():
    student, teacher, labels = heads(vocab=56, teacher_vocab=64, num_tokens=50)
    found = token_statistics(student, labels, FLOAT32, teacher=teacher, entropy=True, chunk=4)
    for name, expected in dense(student, teacher, labels).items():
        np.testing.assert_allclose(getattr(found, name), expected, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("of_student", "of_teacher"), [(50, 44), (44, 50)])
def test_vocabularies_of_unequal_size_are_compared_over_the_smaller(of_student, of_teacher):
    student, teacher, labels = heads(vocab=56, teacher_vocab=64, num_tokens=44)
    expected = dense(student, teacher, labels)
    student = dataclasses.replace(student, num_tokens=of_student)
    teacher = dataclasses.replace(teacher, num_tokens=of_teacher)
    found = token_statistics(student, labels, FLOAT32, teacher=teacher, entropy=True, chunk=4)
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(found, name), values, atol=1e-5, err_msg=name)


def test_no_gradient_flows_into_the_teacher():
    student, teacher, labels = heads()

    def divergences(hidden, weight):
        found = token_statistics(student, labels, FLOAT32, teacher=Head(hidden, weight, 50))
        assert found.forward_kl is not None
        assert found.reverse_kl is not None
        return (found.forward_kl + found.reverse_kl).sum()

    for gradient in jax.grad(divergences, argnums=(0, 1))(teacher.hidden, teacher.weight):
        assert not gradient.any()


@pytest.mark.parametrize("name", ["logprob", "entropy", "forward_kl", "reverse_kl"])
def test_gradients_equal_dense(name):
    student, teacher, labels = heads()
    weights = jnp.linspace(0.5, 1.5, len(labels))

    def chunked(hidden, weight):
        found = token_statistics(
            Head(hidden, weight, 50), labels, FLOAT32, teacher=teacher, entropy=True, chunk=5
        )
        return (getattr(found, name) * weights).sum()

    def whole(hidden, weight):
        return (dense(Head(hidden, weight, 50), teacher, labels)[name] * weights).sum()

    got = jax.grad(chunked, argnums=(0, 1))(student.hidden, student.weight)
    want = jax.grad(whole, argnums=(0, 1))(student.hidden, student.weight)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_no_array_of_all_logits_exists():
    student, teacher, labels = heads(count=64)

    def loss(hidden, weight):
        found = token_statistics(
            Head(hidden, weight, 50), labels, FLOAT32, teacher=teacher, chunk=8
        )
        assert found.forward_kl is not None
        return found.forward_kl.sum() + found.logprob.sum()

    text = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(student.hidden, student.weight).as_text()
    assert "8x50xf32" in text
    assert "64x50xf32" not in text
    assert "8x8x50xf32" not in text


def test_bfloat16_operands_stay_near_float32():
    student, _, labels = heads()
    low = token_statistics(student, labels, Precision.named("bfloat16"), chunk=4)
    high = token_statistics(student, labels, FLOAT32, chunk=4)
    assert low.logprob.dtype == jnp.float32
    np.testing.assert_allclose(low.logprob, high.logprob, atol=0.1)
