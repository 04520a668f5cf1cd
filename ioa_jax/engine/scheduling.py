"""What decodes together, what waits for a place, and in which sizes prompts are computed."""

from __future__ import annotations

import collections
import dataclasses

from ioa_jax.engine import batching
from ioa_jax.engine.decoding import DecodingState
from ioa_jax.models.decoder import KVCache

# What bounds the memory of prompts. Powers of two: they are the sizes that programs come in.
PREFILL_TOKENS = 2048  # tokens that one program computes, rows times width
PREFILL_SCORES = 2**22  # the same times the cache's slots: what attention holds for each head
PREFILL_SLOTS = 2**14  # rows times slots of the cache in which prompts wait for their place


@dataclasses.dataclass
class Slot:
    """A text on its way, from its prompt to its end.

    Attributes:
        request: Number of the prompt.
        stream: Number of its random stream.
        prompt: Its tokens.
        limit: New tokens at most.
        tokens: Sampled so far.
        logprobs: Of `tokens`, in nats.
    """

    request: int
    stream: int
    prompt: tuple[int, ...]
    limit: int
    tokens: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Prefix:
    """Keys and values of the tokens that all prompts begin with.

    Attributes:
        length: Tokens; 0 where too few are shared to pay.
        cache: One row; None where `length` is 0.
    """

    length: int = 0
    cache: KVCache | None = None


@dataclasses.dataclass
class Prefilled:
    """Prompts whose keys and values are computed, on their way into the batch.

    Attributes:
        cache: One row a prompt, then padding.
        slots: Of the rows.
        waiting: Rows that are not in the batch yet, first come first.
    """

    cache: KVCache
    slots: list[Slot]
    waiting: list[int]


@dataclasses.dataclass
class DecodingBatch:
    """Rows that decode together, and what waits for a place among them.

    Attributes:
        queue: Prompts that nothing is computed of, longest first.
        prefilled: Prompts that are computed; None where none waits.
        slots: What each row decodes; None is a free row.
        state: Of the rows, on the device.
    """

    queue: collections.deque[Slot]
    prefilled: Prefilled | None
    slots: list[Slot | None]
    state: DecodingState

    @property
    def waits(self) -> bool:
        """Whether a prompt still has no row."""
        return bool(self.queue or self.prefilled)

    def free(self) -> list[int]:
        """Numbers of the rows that a prompt may have."""
        return [row for row, slot in enumerate(self.slots) if slot is None]


def power_of_two_within(limit: int) -> int:
    """Largest power of two up to `limit`; at least 1."""
    return 1 << max(limit, 1).bit_length() - 1


def prefill_shape(longest: int, shared: int) -> tuple[int, int, int]:
    """How prompts are prefilled.

    Args:
        longest: Tokens of the longest.
        shared: Tokens of them that are computed already.

    Returns:
        Tokens of a prompt in one program, slots of the cache, rows at most.
    """
    # Attention of a program holds scores of all its tokens against all slots, shared ones too.
    own = longest - shared
    slots = batching.row_bucket(longest, smallest=64)
    tokens = min(PREFILL_TOKENS, max(64, power_of_two_within(PREFILL_SCORES // slots)))
    # Even chunks, so that the last isn't mostly padding.
    chunks = -(-own // tokens)
    width = batching.row_bucket(-(-own // chunks), smallest=32)
    return width, slots, power_of_two_within(min(tokens // width, PREFILL_SLOTS // slots))
