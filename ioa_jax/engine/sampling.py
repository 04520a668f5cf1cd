"""Next tokens from logits: greedy, temperature, top-k, top-p."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Int32, Key

from ioa_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """How text is generated.

    Attributes:
        max_tokens: New tokens at most.
        temperature: 0 is greedy.
        top_k: Sample among the k most likely tokens; 0 is no limit. Ties with the k-th stay in.
        top_p: Sample among the smallest set of tokens whose probability reaches this, in (0, 1]; of
            those that `top_k` leaves, at the temperature.
        stop: Texts that end a completion; they are not part of it.
        seed: Seed of the sampling; a request's samples depend on it, on the request's number and
            on nothing else in the batch.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise InputError(f"max_tokens={self.max_tokens}: at least 1")
        if not 0 <= self.temperature < math.inf:
            raise InputError(f"temperature={self.temperature}: a finite number, at least 0")
        if self.top_k < 0:
            raise InputError(f"top_k={self.top_k}: at least 0 (0 is no limit)")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p={self.top_p}: in (0, 1]")
        if any(not text for text in self.stop):
            raise InputError("stop: an empty stop string would end every completion at once")


# Thresholds as int32 bit patterns: one that keeps enough, and one that keeps too little.
Bounds = tuple[Int32[Array, " B"], Int32[Array, " B"]]


def sample(
    logits: Float[Array, "B V"],
    keys: Key[Array, " B"],
    temperature: Float[Array, ""],
    params: SamplingParams,
) -> Int32[Array, " B"]:
    """One token a row.

    Args:
        logits: float32.
        keys: One a row.
        temperature: Traced, so that its value needs no new program; only used when
            `params.temperature` is not 0.
        params: Static; decides which filters the program has.
    """
    if params.temperature == 0:
        return _argmax(logits)
    scaled = logits / temperature
    # One threshold finds both: the k-th largest logit, and the one at which shares reach top_p.
    if params.top_k:
        scaled = _keep_above(scaled, jnp.ones_like(scaled), float(params.top_k))
    if params.top_p < 1:
        scaled = _keep_above(scaled, jax.nn.softmax(scaled, axis=-1), params.top_p)
    # The largest of logit plus Gumbel noise is a sample of the softmax.
    noise = jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[-1:]))(keys)
    return _argmax(scaled + noise)


def _argmax(x: Float[Array, "B V"]) -> Int32[Array, " B"]:
    """Index of the first maximum of each row.

    Two plain reductions: on CPU, `jnp.argmax`'s reduction of pairs doesn't vectorise and takes as
    long as a third of the head's product.
    """
    last = x.shape[-1] - 1
    index = jax.lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)
    return jnp.min(jnp.where(x == x.max(axis=-1, keepdims=True), index, last), axis=-1)


def _keep_above(
    logits: Float[Array, "B V"], mass: Float[Array, "B V"], wanted: float
) -> Float[Array, "B V"]:
    """-inf for all but the smallest set of top tokens whose `mass` reaches `wanted`.

    Bisection for the largest threshold that still keeps enough: a sort of the whole vocabulary a
    step is the slowest thing a decoder could do. Float32 bit patterns, made monotone, are bisected
    as integers, so that 32 steps find the exact threshold.
    """
    bits = jax.lax.bitcast_convert_type(logits, jnp.int32)
    # Of negative floats, larger patterns are smaller numbers.
    ordered = jnp.where(bits < 0, jnp.int32(-(2**31)) - bits, bits)

    def halve(_: Int[Array, ""], bounds: Bounds) -> Bounds:
        low, high = bounds
        # Without overflow: floor of the mean of two int32.
        middle = (low & high) + ((low ^ high) >> 1)
        kept = jnp.sum(jnp.where(ordered >= middle[:, None], mass, 0.0), axis=-1)
        enough = kept >= wanted
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    rows = logits.shape[0]
    low = jnp.full((rows,), -(2**31), jnp.int32)
    high = ordered.max(axis=-1) + 1
    low, _ = jax.lax.fori_loop(0, 32, halve, (low, high))
    return jnp.where(ordered >= low[:, None], logits, -jnp.inf)
