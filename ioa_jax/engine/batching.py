"""Token sequences into rows of fixed length: packing, prefix sharing and bucketed shapes.

A packed row holds several sequences. `segments` says which sequence a token belongs to (0 is
padding); attention never crosses segments, and rotary positions restart in each. Within a segment,
`branches` lets several continuations share one prefix: branch 0 is seen by all, the others only by
themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Int

from ioa_jax.errors import InputError

SMALLEST_ROW = 128
GROUP_LENGTH = 512  # tokens up to which a group may always grow


@dataclasses.dataclass(frozen=True)
class TokenPair:
    """A tokenised prompt and completion; only the completion is scored or trained on."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclasses.dataclass(frozen=True)
class PackedRows:
    """R rows of T tokens with up to N scored tokens a row, all numpy int32 arrays.

    Attributes:
        tokens: [R, T].
        positions: [R, T], rotary position within the sequence.
        segments: [R, T], 0 for padding.
        branches: [R, T], 0 for what every branch of the segment sees.
        sources: [R, N], index in the row of the hidden state that predicts a scored token.
        labels: [R, N], the scored tokens.
        weights: [R, N], 1 for scored tokens and 0 for padding.
        owners: [R, N], index of the pair that a scored token belongs to; -1 for padding.
    """

    tokens: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    branches: np.ndarray
    sources: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    owners: np.ndarray

    def device_arrays(self) -> dict[str, np.ndarray]:
        """What the model needs; `owners` stays on the host."""
        fields = dataclasses.asdict(self)
        del fields["owners"]
        return fields


def packed_mask(segments: Int[Array, "B T"], branches: Int[Array, "B T"]) -> Bool[Array, "B T T"]:
    """Who sees whom: earlier tokens of the same segment, on branch 0 or on the same branch."""
    length = segments.shape[1]
    causal = jnp.tril(jnp.ones((length, length), bool))[None]
    same_segment = (segments[:, :, None] == segments[:, None]) & (segments > 0)[:, None]
    visible = (branches == 0)[:, None] | (branches[:, :, None] == branches[:, None])
    return causal & same_segment & visible


@dataclasses.dataclass
class PrefixGroup:
    """Pairs that begin with the same `shared` tokens, all of them within every pair's prompt."""

    shared: int
    members: list[int]
    size: int  # tokens in a packed row: the shared prefix once, then what each member adds


def group_by_prefix(pairs: Sequence[TokenPair], max_length: int) -> list[PrefixGroup]:
    """Greedy grouping of pairs so that common prompt prefixes are computed once.

    Neighbours in lexicographic order share the longest prefixes. A pair joins the group before it
    when at least half of the pair is shared (few-shot headers, answers to one question): less
    would not pay for the longer row, since attention grows with its square.

    Args:
        pairs: Tokenised pairs.
        max_length: Longest row.

    Raises:
        InputError: A pair alone is longer than `max_length`.
    """
    for i, pair in enumerate(pairs):
        if len(pair) > max_length:
            raise InputError(
                f"pair {i} has {len(pair)} tokens, more than the longest row ({max_length})"
            )
    order = sorted(range(len(pairs)), key=lambda i: (pairs[i].prompt, pairs[i].completion))
    groups: list[PrefixGroup] = []
    for i in order:
        pair = pairs[i]
        if groups:
            last = groups[-1]
            first = pairs[last.members[0]].prompt
            common = _common_prefix(first, pair.prompt, last.shared)
            # With a shorter prefix every earlier member repeats what is no longer shared.
            repeated = (last.shared - common) * (len(last.members) - 1)
            size = last.size + repeated + len(pair) - common
            limit = min(max_length, max(GROUP_LENGTH, 2 * len(pair)))
            if 2 * common >= len(pair) and size < last.size + len(pair) and size <= limit:
                last.shared, last.size = common, size
                last.members.append(i)
                continue
        groups.append(PrefixGroup(len(pair.prompt), [i], len(pair)))
    return groups


def _common_prefix(a: Sequence[int], b: Sequence[int], limit: int) -> int:
    limit = min(limit, len(a), len(b))
    for i in range(limit):
        if a[i] != b[i]:
            return i
    return limit


def row_bucket(length: int, smallest: int = SMALLEST_ROW) -> int:
    """Smallest of `smallest` times 1, 1.5, 2, 3, 4, 6, 8 … that holds `length`."""
    bucket = smallest
    while bucket < length:
        if bucket * 3 // 2 >= length:
            return bucket * 3 // 2
        bucket *= 2
    return bucket


def power_of_two(count: int) -> int:
    """Smallest power of two that is at least `count`."""
    return 1 << max(count - 1, 0).bit_length()


def pack_groups(groups: Sequence[PrefixGroup], row_length: int) -> list[list[int]]:
    """First-fit decreasing; returns group indices by row. Every group fits in `row_length`."""
    order = sorted(range(len(groups)), key=lambda i: -groups[i].size)
    packed = _first_fit([groups[i].size for i in order], row_length, None)
    return [[order[place] for place in row] for row in packed]


OPEN_ROWS = 8


def pack_in_order(
    sizes: Sequence[int], row_length: int, open_rows: int = OPEN_ROWS
) -> list[list[int]]:
    """First fit over the `open_rows` youngest rows: sequences stay near their place in the order.

    Args:
        sizes: Tokens of each sequence, each at most `row_length`.
        row_length: Tokens of a row.
        open_rows: Rows that may still take a sequence.

    Returns:
        Sequence indices by row.
    """
    return _first_fit(sizes, row_length, open_rows)


class RowPacker:
    """First fit of sequences into rows, one sequence at a time.

    Attributes:
        rows: Indices of the sequences of each row, counted from 0 in the order of `add`.
    """

    def __init__(
        self, row_length: int, max_rows: int | None = None, open_rows: int | None = OPEN_ROWS
    ) -> None:
        """Nothing is packed yet.

        Args:
            row_length: Tokens of a row.
            max_rows: Rows at most; None is no limit.
            open_rows: Youngest rows that may still take a sequence; None is all.
        """
        self.rows: list[list[int]] = []
        self._free: list[int] = []
        self._row_length = row_length
        self._max_rows = max_rows
        self._open_rows = open_rows
        self._count = 0

    def add(self, size: int) -> bool:
        """Place a sequence of at most `row_length` tokens; False where no row is left for it."""
        first = 0 if self._open_rows is None else max(0, len(self.rows) - self._open_rows)
        for row in range(first, len(self.rows)):
            if self._free[row] >= size:
                self.rows[row].append(self._count)
                self._free[row] -= size
                break
        else:
            if len(self.rows) == self._max_rows:
                return False
            self.rows.append([self._count])
            self._free.append(self._row_length - size)
        self._count += 1
        return True


def _first_fit(sizes: Sequence[int], row_length: int, open_rows: int | None) -> list[list[int]]:
    packer = RowPacker(row_length, open_rows=open_rows)
    for size in sizes:
        packer.add(size)
    return packer.rows


def build_rows(
    pairs: Sequence[TokenPair],
    rows: Sequence[Sequence[PrefixGroup]],
    row_length: int,
    num_rows: int | None = None,
    num_scored: int | None = None,
) -> PackedRows:
    """Lay groups out in rows.

    Args:
        pairs: All pairs; groups refer to them by index.
        rows: The groups of each row.
        row_length: T.
        num_rows: R; default `len(rows)`. More rows are padding.
        num_scored: N; default the largest number of completion tokens in a row.
    """
    scored = [sum(len(pairs[i].completion) for g in row for i in g.members) for row in rows]
    num_rows = len(rows) if num_rows is None else num_rows
    num_scored = max([1, *scored]) if num_scored is None else num_scored

    def zeros(width: int) -> np.ndarray:
        return np.zeros((num_rows, width), np.int32)

    packed = PackedRows(
        tokens=zeros(row_length),
        positions=zeros(row_length),
        segments=zeros(row_length),
        branches=zeros(row_length),
        sources=zeros(num_scored),
        labels=zeros(num_scored),
        weights=zeros(num_scored),
        owners=np.full((num_rows, num_scored), -1, np.int32),
    )
    for r, row in enumerate(rows):
        at = n = 0
        for segment, group in enumerate(row, start=1):
            shared = pairs[group.members[0]].prompt[: group.shared]
            start = at
            at = _write(packed, r, at, shared, 0, segment, 0)
            for branch, i in enumerate(group.members, start=1):
                pair = pairs[i]
                own = (*pair.prompt[group.shared :], *pair.completion)
                own_start = at
                at = _write(packed, r, at, own, group.shared, segment, branch)
                # The token before the first of `own` is the last of the shared prefix.
                count = len(pair.completion)
                previous = own_start + len(pair.prompt) - group.shared - 1 + np.arange(count)
                if len(pair.prompt) == group.shared:
                    previous[0] = start + group.shared - 1
                packed.sources[r, n : n + count] = previous
                packed.labels[r, n : n + count] = pair.completion
                packed.weights[r, n : n + count] = 1
                packed.owners[r, n : n + count] = i
                n += count
    return packed


def _write(
    packed: PackedRows,
    row: int,
    at: int,
    tokens: Sequence[int],
    first_position: int,
    segment: int,
    branch: int,
) -> int:
    end = at + len(tokens)
    packed.tokens[row, at:end] = tokens
    packed.positions[row, at:end] = np.arange(first_position, first_position + len(tokens))
    packed.segments[row, at:end] = segment
    packed.branches[row, at:end] = branch
    return end
