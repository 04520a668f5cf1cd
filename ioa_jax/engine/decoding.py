"""Decoding on the device: the state of a batch, and the programs that change it.

B rows, S cache slots, n rows on their way into the batch, W positions that a step computes a row
(one and the drafted ones), V vocabulary rows.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Float32, Int, Int32, Key, PRNGKeyArray, Shaped

from ioa_jax.engine.sampling import SamplingParams, sample
from ioa_jax.models.decoder import Decoder, KVCache

STEPS_PER_DISPATCH = 8  # decoding steps between two looks at stop strings and free slots
DRAFT_NGRAM = 3  # longest match that a draft is chosen by


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecodingState:
    """What a batch has generated, and what it goes on from.

    Attributes:
        cache: Keys and values; S slots.
        text: Tokens by position: those in the cache, then the one to feed next.
        length: Tokens in the cache.
        remaining: Tokens that may still be sampled; 0 is a finished or free row.
        stream: Number of the row's random stream.
        sampled: Tokens sampled so far.
    """

    cache: KVCache
    text: Int32[Array, "B S"]
    length: Int32[Array, " B"]
    remaining: Int32[Array, " B"]
    stream: Int32[Array, " B"]
    sampled: Int32[Array, " B"]


def empty_state(decoder: Decoder, rows: int, slots: int) -> DecodingState:
    """A batch of `rows` free rows."""
    text = jnp.zeros((rows, slots), jnp.int32)
    # An array each: the state is donated, and a buffer can be given away once.
    counters = [jnp.zeros((rows,), jnp.int32) for _ in range(4)]
    return DecodingState(decoder.init_cache(rows, slots), text, *counters)


# -- prompts ---------------------------------------------------------------------------------------


# Caches and states are donated throughout: with a copy of each, half as many rows would fit.
@functools.partial(jax.jit, donate_argnums=3)
def prefill(
    decoder: Decoder, tokens: Int32[Array, "n T"], start: Int32[Array, " n"], cache: KVCache
) -> KVCache:
    """Write the keys and values of `tokens`, from slot `start` of each row on."""
    return decoder.hidden_cached(tokens, start, cache)[1]


@functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
def copy_prefix(cache: KVCache, prefix: KVCache, shared: int) -> KVCache:
    """Write the first `shared` slots of a one-row cache into every row."""

    def keys(
        x: Float[Array, "*L n K H S"], y: Float[Array, "*L 1 K H P"]
    ) -> Float[Array, "*L n K H S"]:
        return x.at[..., :shared].set(jnp.broadcast_to(y[..., :shared], (*x.shape[:-1], shared)))

    def values(
        x: Float[Array, "*L n K S H"], y: Float[Array, "*L 1 K P H"]
    ) -> Float[Array, "*L n K S H"]:
        shape = (*x.shape[:-2], shared, x.shape[-1])
        return x.at[..., :shared, :].set(jnp.broadcast_to(y[..., :shared, :], shape))

    return KVCache(
        jax.tree.map(keys, cache.keys, prefix.keys),
        jax.tree.map(values, cache.values, prefix.values),
    )


@functools.partial(jax.jit, donate_argnums=0)
def insert(
    state: DecodingState, prefilled: DecodingState, target: Int32[Array, " n"]
) -> DecodingState:
    """Copy prefilled rows into the rows `target` of the state; targets out of range: none."""
    slots = state.cache.num_slots

    def rows(
        x: Float[Array, "*L B K _ _"], y: Float[Array, "*L n K _ _"]
    ) -> Float[Array, "*L B K _ _"]:
        # Stacked caches lead with the layers' axis, those of single layers don't.
        at = (slice(None),) * (x.ndim - 4) + (target,)
        return x.at[at].set(y, mode="drop", unique_indices=True)

    def drop(x: Int32[Array, "B ..."], y: Int32[Array, "n ..."]) -> Int32[Array, "B ..."]:
        return x.at[target].set(y, mode="drop")

    fitted = _over_slots(lambda x, axis: _fit_axis(x, slots, axis), prefilled.cache)
    return DecodingState(
        cache=jax.tree.map(rows, state.cache, fitted),
        text=drop(state.text, _fit_axis(prefilled.text, slots, 1)),
        length=drop(state.length, prefilled.length),
        remaining=drop(state.remaining, prefilled.remaining),
        stream=drop(state.stream, prefilled.stream),
        sampled=drop(state.sampled, prefilled.sampled),
    )


# -- sizes -----------------------------------------------------------------------------------------


def fit_slots(state: DecodingState, slots: int) -> DecodingState:
    """The state with another number of slots; its cache is used up."""
    return dataclasses.replace(
        state, cache=resize(state.cache, slots), text=_fit_array(state.text, slots, 1)
    )


def resize(cache: KVCache, slots: int) -> KVCache:
    """The cache in another size, array by array: of most layers there is only one at a time.

    Args:
        cache: Is used up.
        slots: After.
    """

    def fit(x: Float[Array, "*old"], axis: int) -> Float[Array, "*new"]:
        fitted = _fit_array(x, slots, axis).block_until_ready()
        x.delete()
        return fitted

    return _over_slots(fit, cache)


def _over_slots(
    function: Callable[[Float[Array, "*old"], int], Float[Array, "*new"]], cache: KVCache
) -> KVCache:
    """`function` of each array and the number of its axis of slots."""
    return KVCache(
        jax.tree.map(lambda x: function(x, x.ndim - 1), cache.keys),
        jax.tree.map(lambda x: function(x, x.ndim - 2), cache.values),
    )


def _fit_axis(x: Shaped[Array, "*old"], size: int, axis: int) -> Shaped[Array, "*new"]:
    # What is cut lies beyond every live row's text; what is added is written before it is read.
    if size <= x.shape[axis]:
        return jax.lax.slice_in_dim(x, 0, size, axis=axis)
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, size - x.shape[axis])
    return jnp.pad(x, widths)


_fit_array = jax.jit(_fit_axis, static_argnums=(1, 2))


@jax.jit
def take_rows(state: DecodingState, rows: Int32[Array, " n"]) -> DecodingState:
    """Some rows of the state as a batch of their own."""
    others = (state.text, state.length, state.remaining, state.stream, state.sampled)
    return DecodingState(
        jax.tree.map(lambda x: jnp.take(x, rows, axis=x.ndim - 4), state.cache),
        *(x[rows] for x in others),
    )


# -- steps -----------------------------------------------------------------------------------------


def draft(
    text: Int32[Array, "B S"], length: Int32[Array, " B"], count: int
) -> Int32[Array, "B {count}"]:
    """Guess what follows each row: what followed its last tokens where they stood before.

    Of the places that share most of the last DRAFT_NGRAM tokens, the latest. Where the text there
    reaches its own end, it is taken to go on repeating. Without such a place any guess will do.

    Args:
        text: Tokens by position.
        length: Position of the last token.
        count: Tokens to guess.
    """
    slots = text.shape[1]
    at = jnp.arange(slots)[None]
    same = at < length[:, None]
    # Each token that matches counts more than any place, and a later place more than an earlier.
    score = jnp.where(same, at, 0)
    for back in range(DRAFT_NGRAM):
        wanted = jnp.take_along_axis(text, jnp.maximum(length - back, 0)[:, None], axis=1)
        same &= (jnp.roll(text, back, axis=1) == wanted) & (at >= back)
        score += jnp.where(same, slots, 0)
    found = jnp.argmax(score, axis=1)[:, None]
    # From the match to the text's end, beyond which the draft begins again at the match.
    period = jnp.maximum(length[:, None] - found, 1)
    return jnp.take_along_axis(text, found + 1 + jnp.arange(count)[None] % period, axis=1)


def _keys(
    key: PRNGKeyArray, state: DecodingState, offset: Int32[Array, "1 W"]
) -> Key[Array, " BW"]:
    """Key of the draw at each position: of the row's stream and of the tokens sampled before.

    Nothing else has a part in it, so that a guess is right whatever becomes of those before it.
    """
    counts = (state.sampled[:, None] + offset).reshape(-1)
    return jax.vmap(
        lambda stream, count: jax.random.fold_in(jax.random.fold_in(key, stream), count)
    )(jnp.repeat(state.stream, offset.shape[1]), counts)


# Steps taken, the state, and the tokens and log-probabilities of all steps.
Carry = tuple[Int[Array, ""], DecodingState, Int32[Array, "steps B W"], Float32[Array, "steps B W"]]


@functools.partial(jax.jit, static_argnums=(4, 5), donate_argnums=1)
def decode_steps(
    decoder: Decoder,
    state: DecodingState,
    key: PRNGKeyArray,
    temperature: Float[Array, ""],
    params: SamplingParams,
    drafted: int,
) -> tuple[DecodingState, Int32[Array, "steps B W"], Float32[Array, "steps B W"]]:
    """Decode until every row is done or STEPS_PER_DISPATCH steps are taken.

    A step feeds each row's next token and `drafted` guesses of those after it. A guess that equals
    what is sampled before it was right, and so what is sampled after it counts too. Keys and values
    of wrong guesses lie beyond the row's length, where the next step overwrites them.
    """
    rows, width = state.length.shape[0], 1 + drafted
    # No token is -1: a model without ending tokens goes on to its limit.
    eos = jnp.asarray(decoder.config.eos_token_ids or (-1,), jnp.int32)
    row, offset = jnp.arange(rows)[:, None], jnp.arange(width)[None]

    def condition(carry: Carry) -> Bool[Array, ""]:
        step, state, _, _ = carry
        return (step < STEPS_PER_DISPATCH) & jnp.any(state.remaining > 0)

    def body(carry: Carry) -> Carry:
        step, state, tokens, logprobs = carry
        fed = jnp.take_along_axis(state.text, state.length[:, None], axis=1)
        if drafted:
            fed = jnp.concatenate([fed, draft(state.text, state.length, drafted)], axis=1)
        # All guesses in one pass: reading the weights is what a step takes, not its positions.
        hidden, cache = decoder.hidden_cached(fed, state.length, state.cache)
        logits = decoder.logits(hidden.reshape(rows * width, -1))
        token = sample(logits, _keys(key, state, offset), temperature, params)
        chosen = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0]
        logprob = (chosen - jax.nn.logsumexp(logits, axis=-1)).reshape(rows, width)
        token = token.reshape(rows, width)
        ends = jnp.any(token[..., None] == eos[None, None], axis=-1)
        # A position counts if all before it were guessed right and none of them ended the text.
        goes_on = (fed[:, 1:] == token[:, :-1]) & ~ends[:, :-1]
        right = jnp.cumprod(goes_on.astype(jnp.int32), axis=1)
        fresh = jnp.minimum(1 + right.sum(axis=1), state.remaining)
        counted = offset < fresh[:, None]
        ended = jnp.any(ends & counted, axis=1)
        # Out of range: dropped.
        place = jnp.where(counted, state.length[:, None] + 1 + offset, state.text.shape[1])
        state = dataclasses.replace(
            state,
            cache=cache,
            text=state.text.at[row, place].set(token, mode="drop"),
            length=state.length + fresh,
            remaining=jnp.where(ended, 0, state.remaining - fresh),
            sampled=state.sampled + fresh,
        )
        tokens = tokens.at[step].set(jnp.where(counted, token, -1))
        logprobs = logprobs.at[step].set(jnp.where(counted, logprob, 0.0))
        return step + 1, state, tokens, logprobs

    empty = jnp.full((STEPS_PER_DISPATCH, rows, width), -1, jnp.int32)
    start = (jnp.int32(0), state, empty, jnp.zeros(empty.shape))
    _, state, tokens, logprobs = jax.lax.while_loop(condition, body, start)
    return state, tokens, logprobs
