"""Batched text generation with a key/value cache and continuous batching."""

from __future__ import annotations

import collections
import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ioa_jax.engine import batching
from ioa_jax.engine.sampling import SamplingParams, sample
from ioa_jax.errors import InputError
from ioa_jax.models.decoder import Decoder, KVCache
from ioa_jax.models.load import LanguageModel

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

STEPS_PER_DISPATCH = 8  # decoding steps between two looks at stop strings and free slots
SHARED_PREFIX_MIN = 32  # shorter common prefixes are not worth a program of their own
# Matrix-vector products have no fast bf16 kernel on CPU: eight rows cost less than one.
CPU_MIN_ROWS = 8


@dataclasses.dataclass(frozen=True)
class Completion:
    """One generated text.

    Attributes:
        text: Decoded without special tokens, cut before a stop string.
        tokens: Sampled token ids, the ending token included if one was sampled.
        logprobs: Log-probability in nats of each token of `tokens` under the model itself
            (temperature 1, nothing filtered).
        finish_reason: `stop` (ending token or stop string) or `length` (max_tokens or the model's
            context is used up).
        prompt_tokens: Length of the prompt.
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int


@dataclasses.dataclass
class _Slot:
    """A batch row that is being decoded."""

    request: int
    stream: int
    prompt: tuple[int, ...]
    limit: int
    tokens: list[int]
    logprobs: list[float]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _State:
    """Decoding state on the device; B rows.

    Attributes:
        cache: Keys and values.
        last: [B] int32, the token to feed next.
        length: [B] int32, tokens in the cache.
        remaining: [B] int32, tokens that may still be sampled; 0 is a finished or free row.
        stream: [B] int32, number of the row's random stream.
        sampled: [B] int32, tokens sampled so far.
    """

    cache: KVCache
    last: Array
    length: Array
    remaining: Array
    stream: Array
    sampled: Array


@dataclasses.dataclass
class _Prefilled:
    """Prompts whose keys and values are computed, on their way into the batch.

    Attributes:
        cache: One row a prompt, then padding.
        slots: Of the rows.
        waiting: Rows that are not in the batch yet, first come first.
    """

    cache: KVCache
    slots: list[_Slot]
    waiting: list[int]


class Generator:
    """Generates with one model; sequences that finish make room for waiting ones.

    Attributes:
        model: The model.
        batch_size: Rows that decode together.
    """

    def __init__(self, model: LanguageModel, batch_size: int = 32) -> None:
        """Prepare.

        Args:
            model: Weights are used in the dtype they have; bfloat16 halves the memory traffic that
                bounds decoding.
            batch_size: Rows that decode together.

        Raises:
            InputError: `batch_size` under 1.
        """
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: at least 1")
        self.model = model
        self.batch_size = batch_size
        decoder = model.decoder
        self._decoder = decoder.unstacked() if decoder.precision.on_cpu else decoder
        self._min_rows = CPU_MIN_ROWS if decoder.precision.on_cpu else 1
        self._shapes: set[tuple[Any, ...]] = set()

    def generate(
        self,
        prompts: Sequence[str | Sequence[int]],
        params: SamplingParams | None = None,
        progress: Progress | None = None,
        on_completion: Callable[[int, Completion], None] | None = None,
        streams: Sequence[int] | None = None,
    ) -> list[Completion]:
        """Complete every prompt; results in input order.

        Args:
            prompts: Texts (tokenised as they stand; render chats first) or token ids.
            params: Default greedy.
            progress: Called with (prompts done, prompts in all).
            on_completion: Called with (prompt index, completion) as each finishes.
            streams: Number of each prompt's random stream, int32; default its index. With numbers
                of their own, prompts draw the same samples whatever else is generated with them.

        Raises:
            InputError: A prompt is empty or leaves no room in the model's context.
        """
        params = params or SamplingParams()
        encoded = [self._encode(i, prompt) for i, prompt in enumerate(prompts)]
        if not encoded:
            return []
        context = self.model.decoder.config.max_position
        for i, tokens in enumerate(encoded):
            if len(tokens) >= context:
                raise InputError(
                    f"prompt {i} has {len(tokens)} tokens; the model's context is {context}"
                )
        # Neighbours of similar length waste the least padding and cache.
        queue = collections.deque(sorted(range(len(encoded)), key=lambda i: -len(encoded[i])))
        rows = min(self.batch_size, batching.power_of_two(len(encoded)))
        rows = max(rows, self._min_rows)
        prefix, prefix_cache = self._prefill_prefix(encoded)
        slots: list[_Slot | None] = [None] * rows
        state = self._empty_state(rows, 0)
        results: list[Completion | None] = [None] * len(encoded)
        done = 0

        def finish(row: int, text: str, reason: Literal["stop", "length"]) -> None:
            nonlocal done
            slot = slots[row]
            assert slot is not None
            completion = Completion(
                text, tuple(slot.tokens), tuple(slot.logprobs), reason, len(slot.prompt)
            )
            results[slot.request] = completion
            slots[row] = None
            done += 1
            if on_completion is not None:
                on_completion(slot.request, completion)
            if progress is not None:
                progress(done, len(encoded))

        prefilled: _Prefilled | None = None
        while queue or prefilled or any(slots):
            free = [row for row, slot in enumerate(slots) if slot is None]
            while free and (queue or prefilled):
                if prefilled is None:
                    # Padding rows cost as much as prompts: waiting prompts take their place.
                    count = min(len(queue), max(len(free), self._min_rows))
                    fresh = [
                        self._new_slot(i, encoded[i], i if streams is None else streams[i], params)
                        for i in (queue.popleft() for _ in range(count))
                    ]
                    prefilled = self._prefill_prompts(fresh, prefix, prefix_cache)
                moved = dict(zip(free, prefilled.waiting, strict=False))
                free = free[len(moved) :]
                prefilled.waiting = prefilled.waiting[len(moved) :]
                for row, source in moved.items():
                    slots[row] = prefilled.slots[source]
                state = self._fit_cache(state, slots)
                state = self._insert(state, prefilled, moved)
                if not prefilled.waiting:
                    prefilled = None
            state = self._fit_cache(state, slots)
            before = {row: len(slot.tokens) for row, slot in enumerate(slots) if slot is not None}
            state, tokens, logprobs = self._decode(state, params)
            for row in before:
                slot = slots[row]
                assert slot is not None
                fresh = tokens[:, row]
                count = int((fresh >= 0).sum())
                slot.tokens.extend(int(t) for t in fresh[:count])
                slot.logprobs.extend(float(p) for p in logprobs[:count, row])
                outcome = self._outcome(slot, params)
                if outcome is not None:
                    finish(row, *outcome)
            ended = np.array([slot is None for slot in slots])
            if ended.any():
                state = dataclasses.replace(
                    state, remaining=jnp.where(jnp.asarray(ended), 0, state.remaining)
                )
        assert all(result is not None for result in results)
        return [result for result in results if result is not None]

    # -- host side -------------------------------------------------------------------------------

    def _encode(self, index: int, prompt: str | Sequence[int]) -> tuple[int, ...]:
        if isinstance(prompt, str):
            tokens = tuple(self.model.tokenizer(prompt, add_special_tokens=False)["input_ids"])
        else:
            tokens = tuple(prompt)
        if not tokens:
            raise InputError(f"prompt {index} is empty")
        return tokens

    def _outcome(
        self, slot: _Slot, params: SamplingParams
    ) -> tuple[str, Literal["stop", "length"]] | None:
        """Text and reason of a finished row, None for one that goes on."""
        ended = slot.tokens[-1] in self.model.decoder.config.eos_token_ids
        exhausted = len(slot.tokens) >= slot.limit
        if not (ended or exhausted or params.stop):
            return None
        text = str(self.model.tokenizer.decode(slot.tokens, skip_special_tokens=True))
        cuts = [at for at in (text.find(stop) for stop in params.stop) if at >= 0]
        if cuts:
            return text[: min(cuts)], "stop"
        if ended:
            return text, "stop"
        return (text, "length") if exhausted else None

    def _fit_cache(self, state: _State, slots: Sequence[_Slot | None]) -> _State:
        """Grow or shrink the cache to a bucket that holds the next dispatch.

        Attention reads the cache whole; one for the worst case would slow every step.
        """
        longest = max(
            (len(s.prompt) + min(len(s.tokens) + STEPS_PER_DISPATCH, s.limit) for s in slots if s),
            default=1,
        )
        wanted = batching.row_bucket(longest, smallest=64)
        have = state.cache.num_slots
        if have == wanted:
            return state
        self._note("resize", state.last.shape[0], have, wanted)
        return dataclasses.replace(state, cache=_resize(state.cache, wanted))

    def _empty_state(self, rows: int, slots: int) -> _State:
        def zeros() -> Array:
            return jnp.zeros((rows,), jnp.int32)

        return _State(
            self._decoder.init_cache(rows, slots), zeros(), zeros(), zeros(), zeros(), zeros()
        )

    def _prefill_prefix(self, prompts: Sequence[tuple[int, ...]]) -> tuple[int, KVCache | None]:
        """Length and cache of the prefix that all prompts share; (0, None) if too short to pay."""
        shared = min(len(p) for p in prompts) - 1
        for prompt in prompts:
            while prompt[:shared] != prompts[0][:shared]:
                shared = next(i for i in range(shared) if prompt[i] != prompts[0][i])
        if len(prompts) < 2 or shared < SHARED_PREFIX_MIN:
            return 0, None
        rows = self._min_rows  # copies of one row, where a single row has no fast kernel
        width = batching.row_bucket(shared, smallest=64)
        tokens = np.zeros((rows, width), np.int32)
        tokens[:, :shared] = prompts[0][:shared]
        self._note("prefix", rows, width)
        cache = _prefill(
            self._decoder,
            jnp.asarray(tokens),
            jnp.zeros((rows,), jnp.int32),
            self._decoder.init_cache(rows, width),
        )
        return shared, jax.tree.map(lambda x: x[..., :1, :, :, :], cache)

    def _new_slot(
        self, request: int, prompt: tuple[int, ...], stream: int, params: SamplingParams
    ) -> _Slot:
        room = self.model.decoder.config.max_position - len(prompt)
        return _Slot(request, stream, prompt, min(params.max_tokens, room), [], [])

    def _prefill_prompts(
        self, new: list[_Slot], shared: int, prefix_cache: KVCache | None
    ) -> _Prefilled:
        """Compute the keys and values of prompts in a cache of their own."""
        rows = max(batching.power_of_two(len(new)), self._min_rows)
        width = batching.row_bucket(max(len(slot.prompt) for slot in new) - shared, smallest=32)
        slots = batching.row_bucket(shared + width, smallest=64)
        tokens = np.zeros((rows, width), np.int32)
        for i, slot in enumerate(new):
            own = slot.prompt[shared:]
            tokens[i, : len(own)] = own
        cache = self._decoder.init_cache(rows, slots)
        if prefix_cache is not None:
            cache = _copy_prefix(cache, prefix_cache, shared)
        self._note("prefill", rows, width, slots)
        cache = _prefill(
            self._decoder, jnp.asarray(tokens), jnp.full((rows,), shared, jnp.int32), cache
        )
        return _Prefilled(cache, new, list(range(len(new))))

    def _insert(self, state: _State, prefilled: _Prefilled, moved: dict[int, int]) -> _State:
        """Copy prefilled rows into the batch.

        Args:
            state: Before.
            prefilled: Where the rows come from.
            moved: Row of the batch to row of `prefilled`.
        """
        batch = state.last.shape[0]
        rows = jax.tree.leaves(prefilled.cache)[0].shape[-4]
        target = np.full(rows, batch, np.int32)  # out of range: dropped
        last, lengths = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
        limits, streams = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
        for row, source in moved.items():
            slot = prefilled.slots[source]
            # The last prompt token is fed again by the first decoding step, which then samples like
            # every other: one program instead of two.
            target[source], last[source] = row, slot.prompt[-1]
            lengths[source], limits[source] = len(slot.prompt) - 1, slot.limit
            streams[source] = slot.stream
        self._note("insert", batch, state.cache.num_slots, rows, prefilled.cache.num_slots)
        return _insert(
            state,
            prefilled.cache,
            *(jnp.asarray(x) for x in (target, last, lengths, limits, streams)),
        )

    def _decode(
        self, state: _State, params: SamplingParams
    ) -> tuple[_State, np.ndarray, np.ndarray]:
        """Up to STEPS_PER_DISPATCH steps; tokens and logprobs [steps, B], -1 where none."""
        static = dataclasses.replace(
            params,
            max_tokens=1,
            seed=0,
            stop=(),
            temperature=1.0 if params.temperature else 0.0,
        )
        self._note("decode", state.last.shape[0], state.cache.num_slots, static)
        state, tokens, logprobs = _decode_steps(
            self._decoder,
            state,
            jax.random.key(params.seed),
            jnp.float32(params.temperature),
            static,
        )
        return state, *jax.device_get((tokens, logprobs))

    def _note(self, *shape: Any) -> None:
        if shape not in self._shapes:
            self._shapes.add(shape)
            log.info("generation: compiled shape %d: %s", len(self._shapes), shape)


@functools.partial(jax.jit, donate_argnums=3)
def _prefill(decoder: Decoder, tokens: Array, start: Array, cache: KVCache) -> KVCache:
    """Write the keys and values of `tokens` [n, T] at `start` [n]."""
    return decoder.hidden_cached(tokens, start, cache)[1]


@functools.partial(jax.jit, static_argnums=1)
def _resize(cache: KVCache, slots: int) -> KVCache:
    def keys(x: Array) -> Array:
        return _fit_axis(x, slots, x.ndim - 1)

    def values(x: Array) -> Array:
        return _fit_axis(x, slots, x.ndim - 2)

    return KVCache(jax.tree.map(keys, cache.keys), jax.tree.map(values, cache.values))


def _fit_axis(x: Array, size: int, axis: int) -> Array:
    if size <= x.shape[axis]:
        return jax.lax.slice_in_dim(x, 0, size, axis=axis)
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, size - x.shape[axis])
    return jnp.pad(x, widths)


@functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
def _copy_prefix(cache: KVCache, prefix: KVCache, shared: int) -> KVCache:
    """Write the first `shared` slots of a one-row cache into every row."""

    def keys(x: Array, y: Array) -> Array:
        return x.at[..., :shared].set(jnp.broadcast_to(y[..., :shared], (*x.shape[:-1], shared)))

    def values(x: Array, y: Array) -> Array:
        shape = (*x.shape[:-2], shared, x.shape[-1])
        return x.at[..., :shared, :].set(jnp.broadcast_to(y[..., :shared, :], shape))

    return KVCache(
        jax.tree.map(keys, cache.keys, prefix.keys),
        jax.tree.map(values, cache.values, prefix.values),
    )


@functools.partial(jax.jit, donate_argnums=0)
def _insert(
    state: _State,
    cache: KVCache,
    target: Array,
    last: Array,
    length: Array,
    remaining: Array,
    stream: Array,
) -> _State:
    """Copy prefilled rows [n] into the rows `target` of the state; targets out of range: none."""
    slots = state.cache.num_slots

    def rows(x: Array, y: Array) -> Array:
        batch_axis = x.ndim - 4
        at = (slice(None),) * batch_axis + (target,)
        return x.at[at].set(y, mode="drop", unique_indices=True)

    fitted = _resize(cache, slots)
    return _State(
        cache=jax.tree.map(rows, state.cache, fitted),
        last=state.last.at[target].set(last, mode="drop"),
        length=state.length.at[target].set(length, mode="drop"),
        remaining=state.remaining.at[target].set(remaining, mode="drop"),
        stream=state.stream.at[target].set(stream, mode="drop"),
        sampled=state.sampled.at[target].set(0, mode="drop"),
    )


@functools.partial(jax.jit, static_argnums=4, donate_argnums=1)
def _decode_steps(
    decoder: Decoder, state: _State, key: Array, temperature: Array, params: SamplingParams
) -> tuple[_State, Array, Array]:
    """Decode until every row is done or STEPS_PER_DISPATCH tokens are sampled."""
    rows = state.last.shape[0]
    eos = jnp.asarray(decoder.config.eos_token_ids or (-1,), jnp.int32)

    def condition(carry: tuple[Array, _State, Array, Array]) -> Array:
        step, state, _, _ = carry
        return (step < STEPS_PER_DISPATCH) & jnp.any(state.remaining > 0)

    def body(
        carry: tuple[Array, _State, Array, Array],
    ) -> tuple[Array, _State, Array, Array]:
        step, state, tokens, logprobs = carry
        hidden, cache = decoder.hidden_cached(state.last[:, None], state.length, state.cache)
        logits = decoder.logits(hidden[:, 0])
        keys = jax.vmap(
            lambda stream, count: jax.random.fold_in(jax.random.fold_in(key, stream), count)
        )(state.stream, state.sampled)
        token = sample(logits, keys, temperature, params)
        chosen = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0]
        logprob = chosen - jax.nn.logsumexp(logits, axis=-1)
        active = state.remaining > 0
        ended = jnp.any(token[:, None] == eos[None], axis=-1)
        advance = active.astype(jnp.int32)
        state = _State(
            cache=cache,
            last=jnp.where(active, token, state.last),
            length=state.length + advance,
            remaining=jnp.where(ended, 0, jnp.maximum(state.remaining - 1, 0)),
            stream=state.stream,
            sampled=state.sampled + advance,
        )
        tokens = tokens.at[step].set(jnp.where(active, token, -1))
        logprobs = logprobs.at[step].set(jnp.where(active, logprob, 0.0))
        return step + 1, state, tokens, logprobs

    empty = jnp.full((STEPS_PER_DISPATCH, rows), -1, jnp.int32)
    start = (jnp.int32(0), state, empty, jnp.zeros((STEPS_PER_DISPATCH, rows)))
    _, state, tokens, logprobs = jax.lax.while_loop(condition, body, start)
    return state, tokens, logprobs
