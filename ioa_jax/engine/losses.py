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
from jaxtyping import Bool, Float, Float32, Int, Shaped

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
        hidden: After the final norm.
        weight: Row v scores token v.
        num_tokens: Leading rows of `weight` that are real tokens; the others get no probability.
    """

    hidden: Float[Array, "N D"]
    weight: Float[Array, "V D"]
    num_tokens: int = dataclasses.field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenStatistics:
    """Per-token results, of N tokens or of [R, N] in rows; nats where a unit applies.

    Attributes:
        logprob: log q(label), q the student.
        is_greedy: The label is the student's most likely token.
        entropy: H(q); None unless asked for.
        forward_kl: KL(p || q), p the teacher; None without a teacher.
        reverse_kl: KL(q || p); None without a teacher.
        teacher_logprob: log p(label); None without a teacher.
    """

    logprob: Float32[Array, "*N"]
    is_greedy: Bool[Array, "*N"]
    entropy: Float32[Array, "*N"] | None = None
    forward_kl: Float32[Array, "*N"] | None = None
    reverse_kl: Float32[Array, "*N"] | None = None
    teacher_logprob: Float32[Array, "*N"] | None = None


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
    # Few tokens are one chunk of their own size; what pads the last of many is cut off again, and
    # since nothing reads it, no gradient flows from it.
    chunk = min(chunk, max(count, 1))
    padding = -count % chunk

    def chunks(x: Shaped[Array, "N ..."]) -> Shaped[Array, "chunks chunk ..."]:
        widths = [(0, padding)] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, widths).reshape(-1, chunk, *x.shape[1:])

    # Without the checkpoint, every chunk's logits would be kept for the backward pass.
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def one_chunk(
        hidden: Float[Array, "n D"],
        teacher_hidden: Float[Array, "n teacher_D"] | None,
        labels: Int[Array, " n"],
    ) -> TokenStatistics:
        part = dataclasses.replace(student, hidden=hidden)
        other = None if teacher is None else dataclasses.replace(teacher, hidden=teacher_hidden)
        return _dense_statistics(part, labels, precision, other, entropy)

    of_teacher = None if teacher is None else teacher.hidden
    stacked = jax.lax.map(
        lambda xs: one_chunk(*xs), jax.tree.map(chunks, (student.hidden, of_teacher, labels))
    )
    return jax.tree.map(lambda x: x.reshape(-1)[:count], stacked)


def _dense_statistics(
    student: Head,
    labels: Int[Array, " n"],
    precision: Precision,
    teacher: Head | None,
    entropy: bool,
) -> TokenStatistics:
    """`token_statistics` of few enough tokens that their logits may exist."""
    num_tokens = student.num_tokens
    if teacher is not None:
        num_tokens = min(num_tokens, teacher.num_tokens)
    logits = mask_padded_vocab(linear(student.hidden, student.weight, precision), num_tokens)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    # A select instead of a gather, whose gradient would scatter into [chunk, V].
    at_label = jnp.arange(logits.shape[-1])[None] == labels[:, None]
    label_logits = jnp.sum(jnp.where(at_label, logits, 0.0), axis=-1)
    result = TokenStatistics(
        logprob=label_logits - log_z,
        # Ties count: the label is one of the most likely.
        is_greedy=label_logits >= jax.lax.stop_gradient(logits.max(axis=-1)),
    )
    if not entropy and teacher is None:
        return result
    log_q = logits - log_z[:, None]
    q = jnp.exp(log_q)
    if entropy:
        result = dataclasses.replace(result, entropy=-_expectation(q, log_q))
    if teacher is not None:
        teacher_logits = linear(teacher.hidden, teacher.weight, precision)
        width = min(teacher_logits.shape[-1], logits.shape[-1])
        teacher_logits = mask_padded_vocab(teacher_logits[:, :width], num_tokens)
        result = _with_divergences(result, teacher_logits, log_q, q, at_label)
    return result


def _with_divergences(
    result: TokenStatistics,
    teacher_logits: Float32[Array, "n common_V"],
    log_q: Float32[Array, "n V"],
    q: Float32[Array, "n V"],
    at_label: Bool[Array, "n V"],
) -> TokenStatistics:
    """`result` with what compares the student with the teacher, over the smaller vocabulary."""
    width = teacher_logits.shape[-1]
    log_p = jax.lax.stop_gradient(jax.nn.log_softmax(teacher_logits, axis=-1))
    p = jnp.exp(log_p)
    log_q, q = log_q[:, :width], q[:, :width]
    return dataclasses.replace(
        result,
        forward_kl=_expectation(p, log_p - log_q),
        reverse_kl=_expectation(q, log_q - log_p),
        teacher_logprob=jnp.sum(jnp.where(at_label[:, :width], log_p, 0.0), axis=-1),
    )


def _expectation(p: Float32[Array, "n V"], value: Float32[Array, "n V"]) -> Float32[Array, " n"]:
    """Sum of p * value over the vocabulary, with 0 * (-1e30) of masked rows taken as 0."""
    return jnp.sum(jnp.where(p > 0, p * value, 0.0), axis=-1)
