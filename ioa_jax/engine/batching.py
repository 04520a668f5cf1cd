"""Token sequences into rows of fixed length: packing, prefix sharing and bucketed shapes.

A packed row holds several sequences. `segments` says which sequence a token belongs to (0 is
padding); attention never crosses segments, and rotary positions restart in each. Within a segment,
`branches` lets several continuations share one prefix: branch 0 is seen by all, the others only by
themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Int, Int32, Shaped

from ioa_jax.errors import InputError

SMALLEST_ROW = 128  # shorter rows would gain little for a program of their own
GROUP_LENGTH = 512  # tokens up to which a group may always grow
OPEN_ROWS = 8

# Fields of `PackedRows`, on the host and on a device: [R, T] or [R, N] int32. Where a step retains
# examples there is also `retained`, [R, N] float32.
HostRows = Mapping[str, Shaped[np.ndarray, "R _"]]
Rows = Mapping[str, Shaped[Array, "R _"]]


@dataclasses.dataclass(frozen=True)
class TokenPair:
    """A tokenised prompt and completion; only the completion is scored or trained on."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclasses.dataclass(frozen=True)
class PackedRows:
    """R rows of T tokens with up to N scored tokens a row.

    Attributes:
        tokens: 0 for padding.
        positions: Rotary position within the sequence.
        segments: 0 for padding.
        branches: 0 for what every branch of the segment sees.
        sources: Index in the row of the hidden state that predicts a scored token.
        labels: The scored tokens.
        weights: 1 for scored tokens and 0 for padding.
        owners: Index of the pair that a scored token belongs to; -1 for padding.
    """

    tokens: Int32[np.ndarray, "R T"]
    positions: Int32[np.ndarray, "R T"]
    segments: Int32[np.ndarray, "R T"]
    branches: Int32[np.ndarray, "R T"]
    sources: Int32[np.ndarray, "R N"]
    labels: Int32[np.ndarray, "R N"]
    weights: Int32[np.ndarray, "R N"]
    owners: Int32[np.ndarray, "R N"]

    def device_arrays(self) -> dict[str, Int32[np.ndarray, "R _"]]:
        """What the model needs; `owners` stays on the host."""
        fields = dataclasses.asdict(self)
        del fields["owners"]
        return fields


def packed_mask(segments: Int[Array, "B T"], branches: Int[Array, "B T"]) -> Bool[Array, "B T T"]:
    """Who sees whom: earlier tokens of the same segment, on branch 0 or on the same branch."""
    length = segments.shape[1]
    causal = jnp.tril(jnp.ones((length, length), bool))[None]
    same_segment = (segments[:, :, None] == segments[:, None]) & (segments > 0)[:, None]
    # A branch sees the prefix and itself, as if its siblings weren't in the row.
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
            # The mask is over whole rows: a group many times as long as its members would spend
            # more on pairs of tokens that never see each other than it saves on the prefix.
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
    # At most a third of a longer row is padding, at two programs for each doubling.
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
    # Large ones first, so that small ones fill the gaps that these leave.
    order = sorted(range(len(groups)), key=lambda i: -groups[i].size)
    packed = _first_fit([groups[i].size for i in order], row_length, None)
    return [[order[place] for place in row] for row in packed]


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
        # A sequence that went into a far earlier row would be learnt far before its turn.
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

    def filled(width: int, value: int = 0) -> Int32[np.ndarray, "R {width}"]:
        return np.full((num_rows, width), value, np.int32)

    packed = PackedRows(
        tokens=filled(row_length),
        positions=filled(row_length),
        segments=filled(row_length),
        branches=filled(row_length),
        sources=filled(num_scored),
        labels=filled(num_scored),
        weights=filled(num_scored),
        owners=filled(num_scored, -1),
    )
    for number, row in enumerate(rows):
        writer = _RowWriter(packed, number)
        for segment, group in enumerate(row, start=1):
            writer.add(pairs, group, segment)
    return packed


@dataclasses.dataclass
class _RowWriter:
    """Fills a row of `packed` from the left.

    Attributes:
        packed: Is changed.
        row: Which row.
        at: Tokens written so far.
        scored: Scored tokens written so far.
    """

    packed: PackedRows
    row: int
    at: int = 0
    scored: int = 0

    def add(self, pairs: Sequence[TokenPair], group: PrefixGroup, segment: int) -> None:
        """Append a group: what its members share once, then the rest of each."""
        start = self.at
        self._write(pairs[group.members[0]].prompt[: group.shared], 0, segment, 0)
        for branch, i in enumerate(group.members, start=1):
            pair = pairs[i]
            own_start = self.at
            own = (*pair.prompt[group.shared :], *pair.completion)
            self._write(own, group.shared, segment, branch)
            # Logits at a token are of the next one: a completion token is scored where the token
            # before it stands.
            count = len(pair.completion)
            previous = own_start + len(pair.prompt) - group.shared - 1 + np.arange(count)
            if len(pair.prompt) == group.shared:
                # The token before the first of `own` is the last of the shared prefix.
                previous[0] = start + group.shared - 1
            place = (self.row, slice(self.scored, self.scored + count))
            self.packed.sources[place] = previous
            self.packed.labels[place] = pair.completion
            self.packed.weights[place] = 1
            self.packed.owners[place] = i
            self.scored += count

    def _write(self, tokens: Sequence[int], position: int, segment: int, branch: int) -> None:
        place = (self.row, slice(self.at, self.at + len(tokens)))
        self.packed.tokens[place] = tokens
        self.packed.positions[place] = np.arange(position, position + len(tokens))
        self.packed.segments[place] = segment
        self.packed.branches[place] = branch
        self.at += len(tokens)


def cut_pair(pair: TokenPair, row_length: int, where: str) -> TokenPair:
    """A pair whose completion is cut to what a row holds.

    Raises:
        InputError: A part is empty, or the prompt leaves no room; names `where`.
    """
    # The completion loses its end, never the prompt a part: an answer to half a question teaches
    # the wrong thing.
    room = row_length - len(pair.prompt)
    if room < 1 or not pair.prompt or not pair.completion:
        raise InputError(
            f"{where}: prompt of {len(pair.prompt)} and completion of {len(pair.completion)} "
            f"tokens; both need at least one, and row_length={row_length} has to hold the prompt "
            "and part of the completion"
        )
    return TokenPair(pair.prompt, pair.completion[:room])


def pack_batch(
    pairs: Sequence[TokenPair],
    row_length: int,
    num_rows: int | None = None,
    num_scored: int | None = None,
    *,
    retained: Sequence[TokenPair] = (),
) -> PackedRows:
    """Pairs in packed rows, in their order, and retained ones in the last rows.

    Args:
        pairs: Each fits a row.
        row_length: Tokens of a row.
        num_rows: In all; default: as many as are needed. More are padding, before the retained.
        num_scored: Scored tokens of a row; default: one of few numbers, so that few programs are
            compiled.
        retained: Each fits a row.
    """
    # In rows of their own: only these have to meet the student before training.
    own = _rows_of(pairs, row_length, 0)
    kept = _rows_of(retained, row_length, len(pairs))
    everything = [*pairs, *retained]
    if num_scored is None:
        most = max(
            sum(len(everything[i].completion) for group in row for i in group.members)
            for row in (*own, *kept)
        )
        num_scored = min(row_bucket(most, smallest=32), row_length)
    padding = [] if num_rows is None else [[]] * (num_rows - len(own) - len(kept))
    rows = [*own, *padding, *kept]
    return build_rows(everything, rows, row_length, len(rows), num_scored)


def _rows_of(pairs: Sequence[TokenPair], row_length: int, first: int) -> list[list[PrefixGroup]]:
    """Groups of one pair each, by row; pairs are numbered from `first`."""
    packed = pack_in_order([len(pair) for pair in pairs], row_length)
    return [
        [PrefixGroup(len(pairs[i].prompt), [first + i], len(pairs[i])) for i in row]
        for row in packed
    ]
