"""Log-probabilities of given completions, packed and jit-compiled."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from ioa_jax.engine import batching, losses
from ioa_jax.engine.batching import Rows, TokenPair
from ioa_jax.errors import InputError
from ioa_jax.models.decoder import Decoder
from ioa_jax.models.load import LanguageModel
from ioa_jax.models.lora import LoRA
from ioa_jax.models.text import encode_prompt_completion

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Score:
    """What a model thinks of one completion given its prompt.

    Attributes:
        logprob: Sum of the completion's token log-probabilities, in nats.
        token_logprobs: One a completion token, in nats.
        tokens: The completion's token ids.
        is_greedy: Every token is the model's most likely one.
    """

    logprob: float
    token_logprobs: tuple[float, ...]
    tokens: tuple[int, ...]
    is_greedy: bool


class Scorer:
    """Scores (prompt, completion) pairs with one model.

    Pairs with a common prompt prefix share its computation; groups are packed into rows whose
    lengths and numbers come from a few buckets, so that the number of compiled programs is bounded
    (each is logged).

    Attributes:
        model: The scored model.
        tokens_per_batch: Tokens of one compiled call.
    """

    def __init__(self, model: LanguageModel, tokens_per_batch: int | None = None) -> None:
        """Prepare.

        Args:
            model: Weights are used in the dtype they have; load with `dtype=bfloat16` to halve
                their memory traffic.
            tokens_per_batch: Default 2,048 on CPU, 16,384 elsewhere.
        """
        self.model = model
        on_cpu = model.decoder.precision.on_cpu
        self.tokens_per_batch = tokens_per_batch or (2048 if on_cpu else 16384)
        self._chunk = losses.CPU_SCORING_CHUNK if on_cpu else losses.CHUNK
        self._shapes: set[tuple[int, ...]] = set()

    def score(
        self, pairs: Sequence[tuple[str, str]], progress: Progress | None = None
    ) -> list[Score]:
        """Score texts, as `ioa_jax.models.text.encode_prompt_completion` splits them.

        Args:
            pairs: (prompt, completion).
            progress: Called with (pairs done, pairs in all).

        Raises:
            InputError: As `score_tokens`; or a completion is empty.
        """
        tokenizer = self.model.tokenizer
        encoded = [encode_prompt_completion(tokenizer, *pair) for pair in pairs]
        return self.score_tokens(
            [TokenPair(tuple(prompt), tuple(completion)) for prompt, completion in encoded],
            progress,
        )

    def score_tokens(
        self,
        pairs: Sequence[TokenPair],
        progress: Progress | None = None,
        on_score: Callable[[int, Score], None] | None = None,
    ) -> list[Score]:
        """As `score`, for token ids. Results are in input order.

        Args:
            pairs: What is scored.
            progress: Called with (pairs done, pairs in all).
            on_score: Called with (index of a pair, its score) after the batch that it is in.

        Raises:
            InputError: A part is empty, or a pair is longer than the model's context and a token:
                the last one is predicted, and no other from it.
        """
        for i, pair in enumerate(pairs):
            if not pair.prompt or not pair.completion:
                raise InputError(f"pair {i}: prompt and completion need at least one token each")
        context = self.model.decoder.config.max_position + 1
        # A group is kept as short as a batch allows: attention grows with the row's square.
        groups = batching.group_by_prefix(pairs, context)
        logprobs: list[list[float]] = [[] for _ in pairs]
        greedy = [True] * len(pairs)
        scores: dict[int, Score] = {}
        # The longest rows first: what memory doesn't hold fails at once, not after an hour.
        for row_length, rows in self._rows(groups):
            per_call = max(1, self.tokens_per_batch // row_length)
            for start in range(0, len(rows), per_call):
                chosen = rows[start : start + per_call]
                packed = self._build(pairs, chosen, row_length)
                result = jax.device_get(
                    _score_rows(self.model.decoder, packed.device_arrays(), self._chunk)
                )
                # Scored tokens of a pair stand in one row, in their order.
                real = packed.owners >= 0
                for owner, logprob, match in zip(
                    packed.owners[real], result[0][real], result[1][real], strict=True
                ):
                    logprobs[owner].append(float(logprob))
                    greedy[owner] &= bool(match)
                for i in (i for row in chosen for group in row for i in group.members):
                    values = logprobs[i]
                    scores[i] = Score(sum(values), tuple(values), pairs[i].completion, greedy[i])
                    if on_score is not None:
                        on_score(i, scores[i])
                if progress is not None:
                    progress(len(scores), len(pairs))
        return [scores[i] for i in range(len(pairs))]

    def _rows(
        self, groups: Sequence[batching.PrefixGroup]
    ) -> list[tuple[int, list[list[batching.PrefixGroup]]]]:
        """Rows of groups by row length; short groups share rows of one small length."""
        # No row is shorter than this: single short pairs would be many lengths, each a program.
        smallest = batching.row_bucket(min(256, max((g.size for g in groups), default=1)))
        by_length: dict[int, list[batching.PrefixGroup]] = {}
        for group in groups:
            by_length.setdefault(batching.row_bucket(group.size, smallest), []).append(group)
        return [
            (length, [[members[i] for i in row] for row in batching.pack_groups(members, length)])
            for length, members in sorted(by_length.items(), reverse=True)
        ]

    def _build(
        self,
        pairs: Sequence[TokenPair],
        rows: Sequence[Sequence[batching.PrefixGroup]],
        row_length: int,
    ) -> batching.PackedRows:
        scored = max(
            sum(len(pairs[i].completion) for group in row for i in group.members) for row in rows
        )
        # All three from few sizes: each combination is a program.
        shape = (
            batching.power_of_two(len(rows)),
            row_length,
            batching.row_bucket(scored, smallest=32),
        )
        if shape not in self._shapes:
            self._shapes.add(shape)
            log.info(
                "scoring: compiled shape %d of [rows, tokens, scored] = %s",
                len(self._shapes),
                list(shape),
            )
        return batching.build_rows(pairs, rows, row_length, shape[0], shape[2])


@functools.partial(jax.jit, static_argnums=2)
def _score_rows(
    decoder: Decoder, rows: Rows, chunk: int
) -> tuple[Float[Array, "R N"], Bool[Array, "R N"]]:
    """Log-probabilities and greedy matches."""
    statistics = row_statistics(decoder, rows, chunk=chunk)
    return statistics.logprob, statistics.is_greedy


def row_statistics(
    decoder: Decoder,
    rows: Rows,
    *,
    chunk: int,
    lora: LoRA | None = None,
    remat: str = "none",
    reference: Decoder | None = None,
) -> losses.TokenStatistics:
    """Statistics of the scored tokens of packed rows, each [R, N]; traced inside jit.

    Args:
        decoder: The model.
        rows: `PackedRows.device_arrays()`.
        chunk: Rows of logits held at a time.
        lora: Adapters of `decoder`.
        remat: See `Decoder.hidden`.
        reference: Another model, of whose divergences no gradient flows into it; None: none are
            computed.
    """
    mask = batching.packed_mask(rows["segments"], rows["branches"])

    def head(model: Decoder, adapters: LoRA | None, policy: str) -> losses.Head:
        hidden = model.hidden(rows["tokens"], rows["positions"], mask, lora=adapters, remat=policy)
        # Only positions that predict a scored token meet the head: prompts are often most of a row.
        chosen = jnp.take_along_axis(hidden, rows["sources"][..., None], axis=1)
        return losses.Head(
            chosen.reshape(-1, hidden.shape[-1]), model.head_weight(), model.config.num_tokens
        )

    shape = rows["labels"].shape
    other = None
    if reference is not None:
        other = jax.tree.map(jax.lax.stop_gradient, head(reference, None, "none"))
    statistics = losses.token_statistics(
        head(decoder, lora, remat),
        rows["labels"].reshape(-1),
        decoder.precision,
        teacher=other,
        chunk=chunk,
    )
    return jax.tree.map(lambda x: x.reshape(shape), statistics)
