"""Batched text generation with a key/value cache and continuous batching."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
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
from ioa_jax.models.text import cut_at_stop, encode_prompt

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

STEPS_PER_DISPATCH = 8  # decoding steps between two looks at stop strings and free slots
SHARED_PREFIX_MIN = 32  # shorter common prefixes are not worth a program of their own
# Matrix-vector products have no fast bf16 kernel on CPU: eight rows cost less than one.
CPU_MIN_ROWS = 8
# Positions that a step computes at little more than what reading the weights takes. SmolLM2-135M on
# one core of an AMD EPYC without AMX: 8 take 54 ms, 16 take 60, 32 take 85.
CHEAP_POSITIONS = 16
# Rows times slots of a cache that is made as long as its texts may become: where few rows decode,
# attention takes little, and each size that a cache grows through is a program to compile.
CHEAP_SLOTS = 4096
DRAFT_TOKENS = 7  # more are hardly ever right
DRAFT_NGRAM = 3  # longest match that a draft is chosen by
# What bounds the memory of prompts. Powers of two: they are the sizes that programs come in.
PREFILL_TOKENS = 2048  # tokens that one program computes, rows times width
PREFILL_SCORES = 2**22  # the same times the cache's slots: what attention holds for each head
PREFILL_SLOTS = 2**14  # rows times slots of the cache in which prompts wait for their place
ROW_SLOTS = 2048  # a row of the batch may have more only where the batch has fewer rows


@dataclasses.dataclass(frozen=True)
class Completion:
    """One generated text.

    Attributes:
        text: Decoded without special tokens, cut before a stop string.
        tokens: Sampled token ids up to the ending token or the one that completes a stop string.
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
        cache: Keys and values; S slots.
        text: [B, S] int32, tokens by position: those in the cache, then the one to feed next.
        length: [B] int32, tokens in the cache.
        remaining: [B] int32, tokens that may still be sampled; 0 is a finished or free row.
        stream: [B] int32, number of the row's random stream.
        sampled: [B] int32, tokens sampled so far.
    """

    cache: KVCache
    text: Array
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
        batch_size: Rows that decode together; fewer beside prompts of over about 2,000 tokens, so
            that memory doesn't grow with the longest prompt times the rows.
        draft_tokens: Tokens at most that a step drafts for each row and verifies.
    """

    def __init__(
        self, model: LanguageModel, batch_size: int = 32, draft_tokens: int = DRAFT_TOKENS
    ) -> None:
        """Prepare.

        Args:
            model: Weights are used in the dtype they have; bfloat16 halves the memory traffic that
                bounds decoding.
            batch_size: Rows that decode together, at most. Memory grows with it.
            draft_tokens: A step guesses this many tokens at most from what followed the same tokens
                before in the row (prompt lookup decoding, Saxena 2023) and verifies them
                (speculative decoding, Leviathan et al. 2023). What is sampled at a place depends on
                the row's stream and the place alone, so a guess is right if it is that very token,
                and texts are the same as without drafts, up to rounding. Only where 8 rows or fewer
                decode, since more positions in a step cost more than drafts gain. 0 drafts none.

        Raises:
            InputError: `batch_size` under 1, `draft_tokens` under 0.
        """
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: at least 1")
        if draft_tokens < 0:
            raise InputError(f"draft_tokens={draft_tokens}: at least 0")
        self.model = model
        self.batch_size = batch_size
        self.draft_tokens = draft_tokens
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
            prompts: Texts, tokenised by `ioa_jax.models.text.encode_prompt`, or token ids, such as
                those of rendered chats.
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
        prefix, prefix_cache = self._prefill_prefix(encoded)
        results: list[Completion | None] = [None] * len(encoded)
        done = 0

        def finish(slot: _Slot, text: str, reason: Literal["stop", "length"]) -> None:
            nonlocal done
            completion = Completion(
                text, tuple(slot.tokens), tuple(slot.logprobs), reason, len(slot.prompt)
            )
            results[slot.request] = completion
            done += 1
            if on_completion is not None:
                on_completion(slot.request, completion)
            if progress is not None:
                progress(done, len(encoded))

        waiting = [
            self._new_slot(i, prompt, i if streams is None else streams[i], params)
            for i, prompt in enumerate(encoded)
        ]
        # Neighbours of similar length waste the least padding and cache.
        waiting.sort(key=lambda slot: -len(slot.prompt))
        for most, group in itertools.groupby(waiting, lambda slot: self._most_rows(slot.prompt)):
            self._generate_group(
                collections.deque(group), most, prefix, prefix_cache, params, finish
            )
        assert all(result is not None for result in results)
        return [result for result in results if result is not None]

    # -- host side -------------------------------------------------------------------------------

    def _most_rows(self, prompt: Sequence[int]) -> int:
        """Rows of the batch beside prompts of this length, such that the cache stays bounded."""
        most = max(self.batch_size, self._min_rows)
        slots = batching.row_bucket(len(prompt) + STEPS_PER_DISPATCH, smallest=64)
        return most if slots <= ROW_SLOTS else _power_of_two_within(most * ROW_SLOTS // slots)

    def _rows(self, texts: int) -> int:
        """Rows of a batch; of few sizes, since each is a program to compile."""
        few = CHEAP_POSITIONS // (1 + self.draft_tokens) if self.draft_tokens else 0
        return few if texts <= few else batching.power_of_two(max(texts, self._min_rows))

    def _generate_group(
        self,
        queue: collections.deque[_Slot],
        most: int,
        shared: int,
        prefix_cache: KVCache | None,
        params: SamplingParams,
        finish: Callable[[_Slot, str, Literal["stop", "length"]], None],
    ) -> None:
        """Generate for every slot of `queue` in one batch of at most `most` rows.

        Args:
            queue: Longest prompt first; is emptied.
            most: Rows at most.
            shared: Tokens of the prefix that all prompts share.
            prefix_cache: Its keys and values.
            params: How to sample.
            finish: Called with slot, text and reason as each ends.
        """
        rows = min(most, self._rows(len(queue)))
        slots: list[_Slot | None] = [None] * rows
        state = self._empty_state(rows, 0)
        prefilled: _Prefilled | None = None
        while queue or prefilled or any(slots):
            free = [row for row, slot in enumerate(slots) if slot is None]
            # Drafts serve the last rows better than empty rows beside them. Once, since each number
            # of rows is a program.
            fewer, live = CHEAP_POSITIONS // 2, len(slots) - len(free)
            last = not (queue or prefilled) and live <= fewer < len(slots)
            if self.draft_tokens and last:
                kept = sorted(range(len(slots)), key=lambda row: slots[row] is None)[:fewer]
                slots, free = [slots[row] for row in kept], []
                self._note("compact", state.length.shape[0], state.cache.num_slots)
                state = _take_rows(state, jnp.asarray(kept))
            drafted = max(0, min(self.draft_tokens, CHEAP_POSITIONS // len(slots) - 1))
            while free and (queue or prefilled):
                if prefilled is None:
                    prefilled = self._prefill_prompts(queue, len(free), shared, prefix_cache)
                moved = dict(zip(free, prefilled.waiting, strict=False))
                free = free[len(moved) :]
                prefilled.waiting = prefilled.waiting[len(moved) :]
                for row, source in moved.items():
                    slots[row] = prefilled.slots[source]
                state = self._fit_cache(state, slots, drafted)
                state = self._insert(state, prefilled, moved)
                if not prefilled.waiting:
                    prefilled = None
            state = self._fit_cache(state, slots, drafted)
            state, tokens, logprobs = self._decode(state, params, drafted)
            for row, slot in enumerate(slots):
                if slot is None:
                    continue
                fresh = tokens[:, row] >= 0
                slot.tokens.extend(int(t) for t in tokens[:, row][fresh])
                slot.logprobs.extend(float(p) for p in logprobs[:, row][fresh])
                outcome = self._outcome(slot, params)
                if outcome is not None:
                    finish(slot, *outcome)
                    slots[row] = None
            ended = np.array([slot is None for slot in slots])
            if ended.any():
                state = dataclasses.replace(
                    state, remaining=jnp.where(jnp.asarray(ended), 0, state.remaining)
                )

    def _encode(self, index: int, prompt: str | Sequence[int]) -> tuple[int, ...]:
        if isinstance(prompt, str):
            tokens = tuple(encode_prompt(self.model.tokenizer, prompt))
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
        cut = cut_at_stop(self.model.tokenizer, slot.tokens, params.stop) if params.stop else None
        if cut is not None:
            # However many tokens were sampled at once, none counts beyond the one that ends `stop`.
            text, count = cut
            del slot.tokens[count:], slot.logprobs[count:]
            return text, "stop"
        if not (ended or exhausted):
            return None
        text = str(self.model.tokenizer.decode(slot.tokens, skip_special_tokens=True))
        return text, "stop" if ended else "length"

    def _fit_cache(self, state: _State, slots: Sequence[_Slot | None], drafted: int) -> _State:
        """Grow or shrink the cache to a bucket that holds the next dispatch.

        Attention reads the cache whole; one for the worst case would slow every step.
        """
        fresh = STEPS_PER_DISPATCH * (1 + drafted)
        longest = max(
            (len(s.prompt) + min(len(s.tokens) + fresh, s.limit) for s in slots if s), default=1
        )
        wanted = batching.row_bucket(longest, smallest=64)
        rows = state.length.shape[0]
        if rows <= CHEAP_POSITIONS // 2:
            ends = max((len(slot.prompt) + slot.limit for slot in slots if slot), default=1)
            wanted = max(wanted, min(batching.power_of_two(ends), CHEAP_SLOTS // rows))
        have = state.cache.num_slots
        if have == wanted:
            return state
        self._note("resize", rows, have, wanted)
        return dataclasses.replace(
            state, cache=_resize(state.cache, wanted), text=_fit_array(state.text, wanted, 1)
        )

    def _empty_state(self, rows: int, slots: int) -> _State:
        def zeros() -> Array:
            return jnp.zeros((rows,), jnp.int32)

        text = jnp.zeros((rows, slots), jnp.int32)
        return _State(
            self._decoder.init_cache(rows, slots), text, zeros(), zeros(), zeros(), zeros()
        )

    def _prefill_prefix(self, prompts: Sequence[tuple[int, ...]]) -> tuple[int, KVCache | None]:
        """Length and cache of the prefix that all prompts share; (0, None) if too short to pay."""
        shared = min(len(p) for p in prompts) - 1
        for prompt in prompts:
            while prompt[:shared] != prompts[0][:shared]:
                shared = next(i for i in range(shared) if prompt[i] != prompts[0][i])
        if len(prompts) < 2 or shared < SHARED_PREFIX_MIN:
            return 0, None
        width, slots, _ = _prefill_shape(shared, 0)
        cache = self._fill(
            "prefix", [prompts[0][:shared]], 0, width, self._decoder.init_cache(1, slots)
        )
        return shared, cache

    def _new_slot(
        self, request: int, prompt: tuple[int, ...], stream: int, params: SamplingParams
    ) -> _Slot:
        room = self.model.decoder.config.max_position - len(prompt)
        return _Slot(request, stream, prompt, min(params.max_tokens, room), [], [])

    def _prefill_prompts(
        self,
        queue: collections.deque[_Slot],
        free: int,
        shared: int,
        prefix_cache: KVCache | None,
    ) -> _Prefilled:
        """Compute the keys and values of the next prompts in a cache of their own.

        Args:
            queue: Longest prompt first; what is taken leaves it.
            free: Rows of the batch that wait for a prompt.
            shared: Tokens that the prefix's cache has already.
            prefix_cache: Keys and values of the shared prefix.
        """
        width, slots, most = _prefill_shape(len(queue[0].prompt), shared)
        # Padding rows cost as much as prompts: waiting prompts take their place. A few prompts are
        # computed one by one, with the program of one.
        count = min(len(queue), max(free, self._min_rows), most)
        if count < most and count <= self._min_rows // 2:
            count = 1
        new = [queue.popleft() for _ in range(count)]
        rows = min(most, batching.power_of_two(count))
        cache = self._decoder.init_cache(rows, slots)
        if prefix_cache is not None:
            cache = _copy_prefix(cache, prefix_cache, shared)
        prompts = [slot.prompt[shared:] for slot in new]
        cache = self._fill("prefill", prompts, shared, width, cache)
        return _Prefilled(cache, new, list(range(count)))

    def _fill(
        self, kind: str, prompts: Sequence[Sequence[int]], start: int, width: int, cache: KVCache
    ) -> KVCache:
        """Write the keys and values of `prompts` at slot `start`, `width` tokens at a time.

        Args:
            kind: For the log of shapes.
            prompts: At most one a row of the cache.
            start: Slot of their first token.
            width: Tokens of each prompt in one program.
            cache: Is donated.
        """
        rows = jax.tree.leaves(cache)[0].shape[-4]
        chunks = -(-max(map(len, prompts)) // width)
        tokens = np.zeros((rows, chunks * width), np.int32)
        for i, prompt in enumerate(prompts):
            tokens[i, : len(prompt)] = prompt
        self._note(kind, rows, width, cache.num_slots)
        for at in range(0, chunks * width, width):
            cache = _prefill(
                self._decoder,
                jnp.asarray(tokens[:, at : at + width]),
                jnp.full((rows,), start + at, jnp.int32),
                cache,
            )
        return cache

    def _insert(self, state: _State, prefilled: _Prefilled, moved: dict[int, int]) -> _State:
        """Copy prefilled rows into the batch.

        Args:
            state: Before.
            prefilled: Where the rows come from.
            moved: Row of the batch to row of `prefilled`.
        """
        batch = state.length.shape[0]
        rows = jax.tree.leaves(prefilled.cache)[0].shape[-4]
        target = np.full(rows, batch, np.int32)  # out of range: dropped
        text = np.zeros((rows, prefilled.cache.num_slots), np.int32)
        lengths = np.zeros(rows, np.int32)
        limits, streams = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
        for row, source in moved.items():
            slot = prefilled.slots[source]
            # The last prompt token is fed again by the first decoding step, which then samples like
            # every other: one program instead of two.
            target[source], text[source, : len(slot.prompt)] = row, slot.prompt
            lengths[source], limits[source] = len(slot.prompt) - 1, slot.limit
            streams[source] = slot.stream
        self._note("insert", batch, state.cache.num_slots, rows, prefilled.cache.num_slots)
        return _insert(
            state,
            prefilled.cache,
            *(jnp.asarray(x) for x in (target, text, lengths, limits, streams)),
        )

    def _decode(
        self, state: _State, params: SamplingParams, drafted: int
    ) -> tuple[_State, np.ndarray, np.ndarray]:
        """Up to STEPS_PER_DISPATCH steps of 1 + `drafted` tokens at most.

        Returns:
            The state, tokens and logprobs [steps, B, 1 + drafted]; tokens are -1 where none.
        """
        static = dataclasses.replace(
            params,
            max_tokens=1,
            seed=0,
            stop=(),
            temperature=1.0 if params.temperature else 0.0,
        )
        self._note("decode", state.length.shape[0], state.cache.num_slots, drafted, static)
        state, tokens, logprobs = _decode_steps(
            self._decoder,
            state,
            jax.random.key(params.seed),
            jnp.float32(params.temperature),
            static,
            drafted,
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


def _power_of_two_within(limit: int) -> int:
    """Largest power of two up to `limit`; at least 1."""
    return 1 << max(limit, 1).bit_length() - 1


def _prefill_shape(longest: int, shared: int) -> tuple[int, int, int]:
    """How prompts are prefilled.

    Args:
        longest: Tokens of the longest.
        shared: Tokens of them that are computed already.

    Returns:
        Tokens of a prompt in one program, slots of the cache, rows at most.
    """
    own = longest - shared
    slots = batching.row_bucket(longest, smallest=64)
    tokens = min(PREFILL_TOKENS, max(64, _power_of_two_within(PREFILL_SCORES // slots)))
    # Even chunks, so that the last isn't mostly padding.
    chunks = -(-own // tokens)
    width = batching.row_bucket(-(-own // chunks), smallest=32)
    return width, slots, _power_of_two_within(min(tokens // width, PREFILL_SLOTS // slots))


def _resize(cache: KVCache, slots: int) -> KVCache:
    """The cache in another size, array by array: of most layers there is only one at a time.

    Args:
        cache: Is used up.
        slots: After.
    """

    def fit(x: Array, axis: int) -> Array:
        fitted = _fit_array(x, slots, axis).block_until_ready()
        x.delete()
        return fitted

    return _over_slots(fit, cache)


def _over_slots(function: Callable[[Array, int], Array], cache: KVCache) -> KVCache:
    """`function` of each array and the number of its axis of slots."""
    return KVCache(
        jax.tree.map(lambda x: function(x, x.ndim - 1), cache.keys),
        jax.tree.map(lambda x: function(x, x.ndim - 2), cache.values),
    )


def _fit_axis(x: Array, size: int, axis: int) -> Array:
    if size <= x.shape[axis]:
        return jax.lax.slice_in_dim(x, 0, size, axis=axis)
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, size - x.shape[axis])
    return jnp.pad(x, widths)


_fit_array = jax.jit(_fit_axis, static_argnums=(1, 2))


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
    text: Array,
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

    fitted = _over_slots(lambda x, axis: _fit_axis(x, slots, axis), cache)
    return _State(
        cache=jax.tree.map(rows, state.cache, fitted),
        text=state.text.at[target].set(_fit_axis(text, slots, 1), mode="drop"),
        length=state.length.at[target].set(length, mode="drop"),
        remaining=state.remaining.at[target].set(remaining, mode="drop"),
        stream=state.stream.at[target].set(stream, mode="drop"),
        sampled=state.sampled.at[target].set(0, mode="drop"),
    )


@jax.jit
def _take_rows(state: _State, rows: Array) -> _State:
    """The rows [n] of the state as a batch of their own."""
    others = (state.text, state.length, state.remaining, state.stream, state.sampled)
    return _State(
        jax.tree.map(lambda x: jnp.take(x, rows, axis=x.ndim - 4), state.cache),
        *(x[rows] for x in others),
    )


def _draft(text: Array, length: Array, count: int) -> Array:
    """Guess what follows each row: what followed its last tokens where they stood before.

    Of the places that share most of the last DRAFT_NGRAM tokens, the latest. Where the text there
    reaches its own end, it is taken to go on repeating. Without such a place any guess will do.

    Args:
        text: [B, S] int32.
        length: [B] int32, position of the last token.
        count: Tokens to guess.

    Returns:
        [B, count] int32.
    """
    slots = text.shape[1]
    at = jnp.arange(slots)[None]
    same = at < length[:, None]
    score = jnp.where(same, at, 0)
    for back in range(DRAFT_NGRAM):
        wanted = jnp.take_along_axis(text, jnp.maximum(length - back, 0)[:, None], axis=1)
        same &= (jnp.roll(text, back, axis=1) == wanted) & (at >= back)
        score += jnp.where(same, slots, 0)
    found = jnp.argmax(score, axis=1)[:, None]
    period = jnp.maximum(length[:, None] - found, 1)
    return jnp.take_along_axis(text, found + 1 + jnp.arange(count)[None] % period, axis=1)


@functools.partial(jax.jit, static_argnums=(4, 5), donate_argnums=1)
def _decode_steps(
    decoder: Decoder,
    state: _State,
    key: Array,
    temperature: Array,
    params: SamplingParams,
    drafted: int,
) -> tuple[_State, Array, Array]:
    """Decode until every row is done or STEPS_PER_DISPATCH steps are taken.

    A step feeds each row's next token and `drafted` guesses of those after it. A guess that equals
    what is sampled before it was right, and so what is sampled after it counts too. Keys and values
    of wrong guesses lie beyond the row's length, where the next step overwrites them.
    """
    rows, width = state.length.shape[0], 1 + drafted
    eos = jnp.asarray(decoder.config.eos_token_ids or (-1,), jnp.int32)
    row, offset = jnp.arange(rows)[:, None], jnp.arange(width)[None]

    def condition(carry: tuple[Array, _State, Array, Array]) -> Array:
        step, state, _, _ = carry
        return (step < STEPS_PER_DISPATCH) & jnp.any(state.remaining > 0)

    def body(
        carry: tuple[Array, _State, Array, Array],
    ) -> tuple[Array, _State, Array, Array]:
        step, state, tokens, logprobs = carry
        fed = jnp.take_along_axis(state.text, state.length[:, None], axis=1)
        if drafted:
            fed = jnp.concatenate([fed, _draft(state.text, state.length, drafted)], axis=1)
        hidden, cache = decoder.hidden_cached(fed, state.length, state.cache)
        logits = decoder.logits(hidden.reshape(rows * width, -1))
        counts = (state.sampled[:, None] + offset).reshape(-1)
        keys = jax.vmap(
            lambda stream, count: jax.random.fold_in(jax.random.fold_in(key, stream), count)
        )(jnp.repeat(state.stream, width), counts)
        token = sample(logits, keys, temperature, params)
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
        state = _State(
            cache=cache,
            text=state.text.at[row, place].set(token, mode="drop"),
            length=state.length + fresh,
            remaining=jnp.where(ended, 0, state.remaining - fresh),
            stream=state.stream,
            sampled=state.sampled + fresh,
        )
        tokens = tokens.at[step].set(jnp.where(counted, token, -1))
        logprobs = logprobs.at[step].set(jnp.where(counted, logprob, 0.0))
        return step + 1, state, tokens, logprobs

    empty = jnp.full((STEPS_PER_DISPATCH, rows, width), -1, jnp.int32)
    start = (jnp.int32(0), state, empty, jnp.zeros(empty.shape))
    _, state, tokens, logprobs = jax.lax.while_loop(condition, body, start)
    return state, tokens, logprobs
