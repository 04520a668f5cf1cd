"""Batched text generation with a key/value cache and continuous batching.

What is decided on the host: which prompts are computed when, which rows they get, and when a text
ends. The programs that it runs on the device are in `decoding`.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int32

from ioa_jax.engine import batching, decoding
from ioa_jax.engine.decoding import STEPS_PER_DISPATCH, DecodingState
from ioa_jax.engine.sampling import SamplingParams
from ioa_jax.engine.scheduling import (
    DecodingBatch,
    Prefilled,
    Prefix,
    Slot,
    power_of_two_within,
    prefill_shape,
)
from ioa_jax.engine.scoring import Progress
from ioa_jax.errors import InputError
from ioa_jax.models.decoder import KVCache
from ioa_jax.models.load import LanguageModel
from ioa_jax.models.text import cut_at_stop, encode_prompt

log = logging.getLogger(__name__)

FinishReason = Literal["stop", "length"]

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
    finish_reason: FinishReason
    prompt_tokens: int


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
            batch_size: As the attribute. Memory grows with it.
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
        # Decoding feeds few rows, beside which a scan's copies of the weights weigh: see there.
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
        # Over all prompts and not over each group: few-shot headers stand in every one of them.
        prefix = self._prefill_prefix(encoded)
        results: list[Completion | None] = [None] * len(encoded)
        done = 0

        def finish(slot: Slot, text: str, reason: FinishReason) -> None:
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

        numbers = range(len(encoded)) if streams is None else streams
        waiting = [
            Slot(i, stream, prompt, min(params.max_tokens, context - len(prompt)))
            for i, (stream, prompt) in enumerate(zip(numbers, encoded, strict=True))
        ]
        # Neighbours of similar length waste the least padding and cache. The sort is stable, so
        # that equal prompts keep their order.
        waiting.sort(key=lambda slot: -len(slot.prompt))
        for most, group in itertools.groupby(waiting, lambda slot: self._most_rows(slot.prompt)):
            self._generate_group(collections.deque(group), most, prefix, params, finish)
        assert all(result is not None for result in results)
        return [result for result in results if result is not None]

    # -- how many rows ---------------------------------------------------------------------------

    def _most_rows(self, prompt: Sequence[int]) -> int:
        """Rows of the batch beside prompts of this length, such that the cache stays bounded."""
        most = max(self.batch_size, self._min_rows)
        slots = batching.row_bucket(len(prompt) + STEPS_PER_DISPATCH, smallest=64)
        return most if slots <= ROW_SLOTS else power_of_two_within(most * ROW_SLOTS // slots)

    def _rows(self, texts: int) -> int:
        """Rows of a batch; of few sizes, since each is a program to compile."""
        # Where drafts serve all rows in full, rows beside them would only take positions from them.
        few = CHEAP_POSITIONS // (1 + self.draft_tokens) if self.draft_tokens else 0
        return few if texts <= few else batching.power_of_two(max(texts, self._min_rows))

    def _generate_group(
        self,
        queue: collections.deque[Slot],
        most: int,
        prefix: Prefix,
        params: SamplingParams,
        finish: Callable[[Slot, str, FinishReason], None],
    ) -> None:
        """Generate for every slot of `queue` in one batch of at most `most` rows.

        The queue has its longest prompt first and is emptied; `finish` is called with slot, text
        and reason as each ends.
        """
        rows = min(most, self._rows(len(queue)))
        # No slots yet: the first prompts say how many they need.
        state = decoding.empty_state(self._decoder, rows, 0)
        batch = DecodingBatch(queue, None, [None] * rows, state)
        while batch.waits or any(batch.slots):
            self._compact(batch)
            drafted = max(0, min(self.draft_tokens, CHEAP_POSITIONS // len(batch.slots) - 1))
            self._refill(batch, prefix, drafted)
            batch.state = self._fit_cache(batch.state, batch.slots, drafted)
            batch.state, tokens, logprobs = self._decode(batch.state, params, drafted)
            for row, slot in enumerate(batch.slots):
                if slot is None:
                    continue
                # Of each step: the tokens that counted, then -1 for wrong guesses.
                fresh = tokens[:, row] >= 0
                slot.tokens.extend(int(t) for t in tokens[:, row][fresh])
                slot.logprobs.extend(float(p) for p in logprobs[:, row][fresh])
                outcome = self._outcome(slot, params)
                if outcome is not None:
                    finish(slot, *outcome)
                    batch.slots[row] = None
            # The device doesn't know of stop strings: a row that one ended would go on.
            ended = np.array([slot is None for slot in batch.slots])
            if ended.any():
                remaining = jnp.where(jnp.asarray(ended), 0, batch.state.remaining)
                batch.state = dataclasses.replace(batch.state, remaining=remaining)

    def _compact(self, batch: DecodingBatch) -> None:
        """Leave out empty rows when the last texts are few.

        Drafts serve these better than empty rows beside them. Once, since each number of rows is a
        program.
        """
        fewer, live = CHEAP_POSITIONS // 2, len(batch.slots) - len(batch.free())
        if not self.draft_tokens or batch.waits or not live <= fewer < len(batch.slots):
            return
        # Live rows first, and empty ones to make up the number.
        kept = sorted(range(len(batch.slots)), key=lambda row: batch.slots[row] is None)[:fewer]
        self._note("compact", batch.state.length.shape[0], batch.state.cache.num_slots)
        batch.slots = [batch.slots[row] for row in kept]
        batch.state = decoding.take_rows(batch.state, jnp.asarray(kept))

    def _refill(self, batch: DecodingBatch, prefix: Prefix, drafted: int) -> None:
        """Give the free rows to waiting prompts."""
        free = batch.free()
        while free and batch.waits:
            if batch.prefilled is None:
                batch.prefilled = self._prefill_prompts(batch.queue, len(free), prefix)
            # More prompts may be computed at once than rows are free: the others wait, computed.
            prefilled = batch.prefilled
            moved = dict(zip(free, prefilled.waiting, strict=False))
            free = free[len(moved) :]
            prefilled.waiting = prefilled.waiting[len(moved) :]
            for row, source in moved.items():
                batch.slots[row] = prefilled.slots[source]
            batch.state = self._fit_cache(batch.state, batch.slots, drafted)
            batch.state = self._insert(batch.state, prefilled, moved)
            if not prefilled.waiting:
                batch.prefilled = None

    # -- texts ------------------------------------------------------------------------------------

    def _encode(self, index: int, prompt: str | Sequence[int]) -> tuple[int, ...]:
        if isinstance(prompt, str):
            tokens = tuple(encode_prompt(self.model.tokenizer, prompt))
        else:
            tokens = tuple(prompt)
        if not tokens:
            raise InputError(f"prompt {index} is empty")
        context = self.model.decoder.config.max_position
        if len(tokens) >= context:
            raise InputError(
                f"prompt {index} has {len(tokens)} tokens; the model's context is {context}"
            )
        return tokens

    def _outcome(self, slot: Slot, params: SamplingParams) -> tuple[str, FinishReason] | None:
        """Text and reason of a finished row, None for one that goes on."""
        ended = slot.tokens[-1] in self.model.decoder.config.eos_token_ids
        exhausted = len(slot.tokens) >= slot.limit
        # Spares decoding every row's text after each dispatch.
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

    def _fit_cache(
        self, state: DecodingState, slots: Sequence[Slot | None], drafted: int
    ) -> DecodingState:
        """Grow or shrink the cache to a bucket that holds the next dispatch.

        Attention reads the cache whole; one for the worst case would slow every step.
        """
        fresh = STEPS_PER_DISPATCH * (1 + drafted)
        longest = max(
            (len(s.prompt) + min(len(s.tokens) + fresh, s.limit) for s in slots if s), default=1
        )
        # Sizes come from few buckets, since each is a program to compile.
        wanted = batching.row_bucket(longest, smallest=64)
        rows = state.length.shape[0]
        if rows <= CHEAP_POSITIONS // 2:
            ends = max((len(slot.prompt) + slot.limit for slot in slots if slot), default=1)
            wanted = max(wanted, min(batching.power_of_two(ends), CHEAP_SLOTS // rows))
        have = state.cache.num_slots
        if have == wanted:
            return state
        self._note("resize", rows, have, wanted)
        return decoding.fit_slots(state, wanted)

    def _prefill_prefix(self, prompts: Sequence[tuple[int, ...]]) -> Prefix:
        """The prefix that all prompts share, computed once."""
        # Of every prompt one token at least is left over, for the first decoding step to feed.
        shared = min(len(p) for p in prompts) - 1
        # Comparing slices is fast; the loop over single tokens runs only where prompts part.
        for prompt in prompts:
            while prompt[:shared] != prompts[0][:shared]:
                shared = next(i for i in range(shared) if prompt[i] != prompts[0][i])
        if len(prompts) < 2 or shared < SHARED_PREFIX_MIN:
            return Prefix()
        width, slots, _ = prefill_shape(shared, 0)
        cache = self._fill(
            "prefix", [prompts[0][:shared]], 0, width, self._decoder.init_cache(1, slots)
        )
        return Prefix(shared, cache)

    def _prefill_prompts(
        self,
        queue: collections.deque[Slot],
        free: int,
        prefix: Prefix,
    ) -> Prefilled:
        """Compute the keys and values of the next prompts in a cache of their own.

        What is taken leaves the queue; `free` rows of the batch wait for a prompt.
        """
        shared = prefix.length
        width, slots, most = prefill_shape(len(queue[0].prompt), shared)
        # Padding rows cost as much as prompts: waiting prompts take their place. A few prompts are
        # computed one by one, with the program of one.
        count = min(len(queue), max(free, self._min_rows), most)
        if count < most and count <= self._min_rows // 2:
            count = 1
        new = [queue.popleft() for _ in range(count)]
        rows = min(most, batching.power_of_two(count))
        cache = self._decoder.init_cache(rows, slots)
        if prefix.cache is not None:
            cache = decoding.copy_prefix(cache, prefix.cache, shared)
        prompts = [slot.prompt[shared:] for slot in new]
        cache = self._fill("prefill", prompts, shared, width, cache)
        return Prefilled(cache, new, list(range(count)))

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
        # Padding behind a short prompt writes keys that the next tokens of its row overwrite.
        for at in range(0, chunks * width, width):
            cache = decoding.prefill(
                self._decoder,
                jnp.asarray(tokens[:, at : at + width]),
                jnp.full((rows,), start + at, jnp.int32),
                cache,
            )
        return cache

    def _insert(
        self, state: DecodingState, prefilled: Prefilled, moved: dict[int, int]
    ) -> DecodingState:
        """Copy prefilled rows into the batch; `moved` has for rows of it those of `prefilled`."""
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
        counters = (lengths, limits, streams, np.zeros(rows, np.int32))
        new = DecodingState(prefilled.cache, *(jnp.asarray(x) for x in (text, *counters)))
        return decoding.insert(state, new, jnp.asarray(target))

    def _decode(
        self, state: DecodingState, params: SamplingParams, drafted: int
    ) -> tuple[DecodingState, Int32[np.ndarray, "steps B W"], Float32[np.ndarray, "steps B W"]]:
        """Up to STEPS_PER_DISPATCH steps of W = 1 + `drafted` tokens at most.

        Returns:
            The state, tokens (-1 where there is none) and logprobs.
        """
        # What a program doesn't depend on is set to one value, or each value would compile it anew.
        static = dataclasses.replace(
            params,
            max_tokens=1,
            seed=0,
            stop=(),
            temperature=1.0 if params.temperature else 0.0,
        )
        self._note("decode", state.length.shape[0], state.cache.num_slots, drafted, static)
        state, tokens, logprobs = decoding.decode_steps(
            self._decoder,
            state,
            jax.random.key(params.seed),
            jnp.float32(params.temperature),
            static,
            drafted,
        )
        return state, *jax.device_get((tokens, logprobs))

    def _note(self, *shape: Any) -> None:
        # A first sight of a shape is a compilation: where a run is slow, the log says why.
        if shape not in self._shapes:
            self._shapes.add(shape)
            log.info("generation: compiled shape %d: %s", len(self._shapes), shape)
