"""Attention of whole rows (training, scoring) and over a key/value cache (generation).

B rows, T tokens, S cache slots, K key/value heads, G query heads per key/value head, H head width.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Float32, Shaped

from ioa_jax.models.precision import Precision, cast_operand, product

# Finite, so that a row in which everything is masked (padding) gives a uniform softmax, not NaN.
MASKED = -1e30


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def attention(
    q: Float[Array, "B T K G H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    mask: Bool[Array, "B T T"],
    precision: Precision,
) -> Float[Array, "B T K G H"]:
    """Scaled dot-product attention with grouped queries; softmax in float32.

    The backward pass recomputes the probabilities from the saved log-normaliser, so that no
    [B, K, G, T, T] array outlives its row.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        mask: True where query t (second axis) may see key s (third axis).
        precision: Operand dtype; on CPU rows are computed one after another, so that their scores
            stay in cache.
    """
    return _forward(q, k, v, mask, precision)[0]


def _heads_first(
    x: Float[Array, "B T K *heads H"], precision: Precision
) -> Float[Array, "B K rows H"]:
    """[B, T, K, G, H] -> [B, K, G*T, H], or [B, T, K, H] -> [B, K, T, H]; operand dtype."""
    # Query heads of one key/value head follow one another: with them merged into the rows, keys and
    # values are read once for the whole group and never repeated.
    if x.ndim == 5:
        batch, length, kv, group, width = x.shape
        x = x.transpose(0, 2, 3, 1, 4).reshape(batch, kv, group * length, width)
    else:
        x = x.transpose(0, 2, 1, 3)
    return cast_operand(x, precision)


def _tokens_first(x: Float[Array, "B K rows H"], length: int) -> Float[Array, "B {length} K G H"]:
    """Inverse of `_heads_first` for queries: [B, K, G*T, H] -> [B, T, K, G, H]."""
    batch, kv, rows, width = x.shape
    return x.reshape(batch, kv, rows // length, length, width).transpose(0, 3, 1, 2, 4)


def _over_rows(
    function: Callable[..., Any], precision: Precision, *arrays: Shaped[Array, "B ..."]
) -> Any:
    """`function` of each row; on CPU one after another, so that its scores stay in cache."""
    if precision.on_cpu:
        return jax.lax.map(lambda row: function(*row), arrays)
    return jax.vmap(function)(*arrays)


def _scores(
    q: Float[Array, "K GT H"],
    k: Float[Array, "K T H"],
    mask: Bool[Array, "T T"],
    precision: Precision,
) -> Float32[Array, "K G T T"]:
    """Masked scores of one row."""
    scores = product("kth,ksh->kts", q, k, precision)
    scores = scores.reshape(q.shape[0], -1, *mask.shape)
    return jnp.where(mask[None, None], scores, MASKED)


# Queries, keys and values, heads first and in the operand dtype; the mask; log-normalisers; and an
# empty array in the dtype that gradients have to come back in.
_Residuals = tuple[
    Float[Array, "B K GT H"],
    Float[Array, "B K T H"],
    Float[Array, "B K T H"],
    Bool[Array, "B T T"],
    Float32[Array, "B K G T"],
    Float[Array, " 0"],
]


def _forward(
    q: Float[Array, "B T K G H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    mask: Bool[Array, "B T T"],
    precision: Precision,
) -> tuple[Float[Array, "B T K G H"], _Residuals]:
    length = q.shape[1]
    like = jnp.zeros((0,), q.dtype)
    # Scaling queries is T / H times less work than scaling scores.
    q = _heads_first(q * q.shape[-1] ** -0.5, precision)
    k, v = _heads_first(k, precision), _heads_first(v, precision)

    def row(
        q: Float[Array, "K GT H"],
        k: Float[Array, "K T H"],
        v: Float[Array, "K T H"],
        mask: Bool[Array, "T T"],
    ) -> tuple[Float[Array, "K GT H"], Float32[Array, "K G T"]]:
        scores = _scores(q, k, mask, precision)
        # With the peak taken off no exponential overflows, and the largest is 1.
        peak = scores.max(axis=-1, keepdims=True)
        weights = jnp.exp(scores - peak)
        total = weights.sum(axis=-1, keepdims=True)
        weights = cast_operand((weights / total).reshape(*q.shape[:2], length), precision)
        out = product("kts,ksh->kth", weights, v, precision)
        return out, (peak + jnp.log(total))[..., 0]

    out, log_total = _over_rows(row, precision, q, k, v, mask)
    return _tokens_first(out, length), (q, k, v, mask, log_total, like)


def _backward(
    precision: Precision, residuals: _Residuals, cotangent: Float[Array, "B T K G H"]
) -> tuple[Float[Array, "B T K G H"], Float[Array, "B T K H"], Float[Array, "B T K H"], None]:
    q, k, v, mask, log_total, like = residuals
    length, width = mask.shape[-1], q.shape[-1]
    g = _heads_first(cotangent, precision)

    def row(
        q: Float[Array, "K GT H"],
        k: Float[Array, "K T H"],
        v: Float[Array, "K T H"],
        mask: Bool[Array, "T T"],
        log_total: Float32[Array, "K G T"],
        g: Float[Array, "K GT H"],
    ) -> tuple[Float[Array, "K GT H"], Float[Array, "K T H"], Float[Array, "K T H"]]:
        # The saved log-normaliser spares the peak and the sum of the forward pass.
        weights = jnp.exp(_scores(q, k, mask, precision) - log_total[..., None])
        flat = (*q.shape[:2], length)
        # Of a softmax: d_scores = weights * (d_weights - sum of weights * d_weights).
        d_weights = product("kth,ksh->kts", g, v, precision).reshape(weights.shape)
        inner = (weights * d_weights).sum(axis=-1, keepdims=True)
        d_scores = cast_operand((weights * (d_weights - inner)).reshape(flat), precision)
        weights = cast_operand(weights.reshape(flat), precision)
        return (
            product("kts,ksh->kth", d_scores, k, precision),
            product("kts,kth->ksh", d_scores, q, precision),
            product("kts,kth->ksh", weights, g, precision),
        )

    dq, dk, dv = _over_rows(row, precision, q, k, v, mask, log_total, g)
    dq = _tokens_first(dq, length) * width**-0.5
    dk, dv = dk.transpose(0, 2, 1, 3), dv.transpose(0, 2, 1, 3)
    return dq.astype(like.dtype), dk.astype(like.dtype), dv.astype(like.dtype), None


attention.defvjp(_forward, _backward)


def cached_attention(
    q: Float[Array, "B T K G H"],
    keys: Float[Array, "B K H S"],
    values: Float[Array, "B K S H"],
    mask: Bool[Array, "B T S"],
    precision: Precision,
) -> Float[Array, "B T K G H"]:
    """Attention of new queries over a cache; no gradient is defined for speed.

    Operands are in the cache's dtype: with few queries a row the product is bound by reading the
    cache, and CPUs have no bf16 kernel for such shapes.
    """
    batch, length, kv, group, width = q.shape
    precision = dataclasses.replace(precision, operand=keys.dtype)
    q = _heads_first(q * width**-0.5, precision)
    scores = product("bkth,bkhs->bkts", q, keys, precision)
    scores = scores.reshape(batch, kv, group, length, -1)
    scores = jnp.where(mask[:, None, None], scores, MASKED)
    weights = jax.nn.softmax(scores, axis=-1).reshape(batch, kv, group * length, -1)
    out = product("bkts,bksh->bkth", cast_operand(weights, precision), values, precision)
    return _tokens_first(out, length)
