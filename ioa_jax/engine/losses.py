"""The one loss primitive: per-token quantities of a large head, a chunk of tokens at a time.

Every loss and every score of this project comes from `token_statistics`. No [B, T, V] array exists:
a chunk of hidden states meets the head, is reduced over the vocabulary in float32, and is computed
again in the backward pass.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from ioa_jax.models.decoder import mask_padded_vocab
from ioa_jax.models.precision import Precision, linear

# Rows of logits that exist at a time. Without gradients, 128 rows x 49,152 columns x 4 bytes
# (24 MiB) stay in a CPU's caches. With gradients each chunk also adds to the [V, D] gradient of the
# head, so that few large chunks win; accelerators want larger products anyway.
CPU_SCORING_CHUNK = 128
CHUNK = 512


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Head:
    """Hidden states on their way into an output projection.

    Attributes:
        hidden: [N, D], after the final norm.
        weight: [V, D].
        num_tokens: Leading rows of `weight` that are real tokens; the others get no probability.
    """

    hidden: Float[Array, "N D"]
    weight: Float[Array, "V D"]
    num_tokens: int = dataclasses.field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenStatistics:
    """Per-token results, each [N] float32 unless said otherwise; nats where a unit applies.

    Attributes:
        logprob: log q(label), q the student.
        is_greedy: bool; the label is the student's most likely token.
        entropy: H(q); None unless asked for.
        forward_kl: KL(p || q), p the teacher; None without a teacher.
        reverse_kl: KL(q || p); None without a teacher.
        teacher_logprob: log p(label); None without a teacher.
    """

    logprob: Array
    is_greedy: Array
    entropy: Array | None = None
    forward_kl: Array | None = None
    reverse_kl: Array | None = None
    teacher_logprob: Array | None = None


def token_statistics(
    student: Head,
    labels: Int[Array, " N"],
    precision: Precision,
    *,
    teacher: Head | None = None,
    entropy: bool = False,
    chunk: int = CHUNK,
) -> TokenStatistics:
    """Log-probability, greedy match, entropy and divergences of N tokens.

    Vocabularies of unequal padded size are compared over the smaller number of real tokens (Qwen2.5
    stores 151,936 or 152,064 rows for one tokenizer).

    Args:
        student: The student's hidden states and head.
        labels: The tokens to score.
        precision: Operand dtype of the products; everything after them is float32.
        teacher: Hidden states of the same N tokens in another model. No gradient flows into it.
        entropy: Also return the entropy.
        chunk: Rows of logits held at a time.

    Returns:
        Per-token statistics; differentiable in `student`.
    """
    count = labels.shape[0]
    chunk = min(chunk, max(count, 1))
    padding = -count % chunk
    num_tokens = student.num_tokens
    if teacher is not None:
        num_tokens = min(num_tokens, teacher.num_tokens)

    def chunks(x: Array) -> Array:
        widths = [(0, padding)] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, widths).reshape(-1, chunk, *x.shape[1:])

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def one_chunk(hidden: Array, teacher_hidden: Array | None, labels: Array) -> TokenStatistics:
        logits = mask_padded_vocab(linear(hidden, student.weight, precision), num_tokens)
        log_z = jax.nn.logsumexp(logits, axis=-1)
        # A select instead of a gather, whose gradient would scatter into [chunk, V].
        at_label = jnp.arange(logits.shape[-1])[None] == labels[:, None]
        label_logits = jnp.sum(jnp.where(at_label, logits, 0.0), axis=-1)
        result = TokenStatistics(
            logprob=label_logits - log_z,
            is_greedy=label_logits >= jax.lax.stop_gradient(logits.max(axis=-1)),
        )
        if not entropy and teacher_hidden is None:
            return result
        log_q = logits - log_z[:, None]
        q = jnp.exp(log_q)
        if entropy:
            result = dataclasses.replace(result, entropy=-_expectation(q, log_q))
        if teacher_hidden is not None and teacher is not None:
            teacher_logits = linear(teacher_hidden, teacher.weight, precision)
            width = min(teacher_logits.shape[-1], logits.shape[-1])
            teacher_logits = mask_padded_vocab(teacher_logits[:, :width], num_tokens)
            log_p = jax.lax.stop_gradient(jax.nn.log_softmax(teacher_logits, axis=-1))
            p = jnp.exp(log_p)
            log_q, q = log_q[:, :width], q[:, :width]
            result = dataclasses.replace(
                result,
                forward_kl=_expectation(p, log_p - log_q),
                reverse_kl=_expectation(q, log_q - log_p),
                teacher_logprob=jnp.sum(jnp.where(at_label[:, :width], log_p, 0.0), axis=-1),
            )
        return result

    if teacher is None:
        stacked = jax.lax.map(
            lambda xs: one_chunk(xs[0], None, xs[1]), (chunks(student.hidden), chunks(labels))
        )
    else:
        stacked = jax.lax.map(
            lambda xs: one_chunk(*xs),
            (chunks(student.hidden), chunks(teacher.hidden), chunks(labels)),
        )
    return jax.tree.map(lambda x: x.reshape(-1)[:count], stacked)


def _expectation(p: Array, value: Array) -> Array:
    """Sum of p * value over the vocabulary, with 0 * (-1e30) of masked rows taken as 0."""
    return jnp.sum(jnp.where(p > 0, p * value, 0.0), axis=-1)
