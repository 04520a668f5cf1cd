"""Supervised fine-tuning under a budget of tokens: packed rows, full weights or LoRA.

`Trainer` is the one training engine: of `ioa train`, of the stages of IOA and of every method of
the suite. Examples may arrive as it goes. Beside examples that are learnt by cross-entropy, a step
may have retained ones, on which the student is kept near what it was before training.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from ioa_jax.engine import batching, losses
from ioa_jax.engine.batching import PackedRows, PrefixGroup, RowPacker, TokenPair
from ioa_jax.engine.checkpoint import Checkpoints
from ioa_jax.engine.scoring import row_statistics
from ioa_jax.errors import InputError
from ioa_jax.models.decoder import REMAT_POLICIES, Decoder
from ioa_jax.models.lora import LoRA, init_lora, merge_lora
from ioa_jax.models.mesh import batch_sharding, decoder_shardings
from ioa_jax.streams import stream

log = logging.getLogger(__name__)

Retention = Literal["divergence", "replay"]


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
    """Adapters to train instead of the weights.

    Attributes:
        rank: r.
        alpha: Scale times r.
        targets: Regular expression over projection names (`q`, `k_proj`, …).
    """

    rank: int = 16
    alpha: float = 32.0
    targets: str = "q|k|v|o"


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Hyperparameters of one training run (defaults: the paper's, section 4 of its appendix).

    Attributes:
        learning_rate: Peak.
        epochs: Passes over the data, where `train` makes the batches.
        batch_rows: Packed rows of one optimiser step.
        row_length: Tokens of a row; longer sequences lose the end of their completion.
        accumulation: Parts a step's rows are split into; gradients are summed, then divided by the
            step's number of scored tokens, so that the split changes nothing.
        warmup_fraction: Share of the budget with a rising learning rate.
        final_fraction: Learning rate at the end of the cosine, as a share of the peak.
        weight_decay: AdamW's, on matrices only.
        beta1: AdamW's.
        beta2: AdamW's.
        clip: Largest global gradient norm.
        seed: Of the data order and of fresh adapters.
        shuffle: New order each epoch; off keeps the order of the examples (a curriculum).
        remat: See `Decoder.hidden`.
        lora: Train adapters; None trains every weight.
        save_every: Steps between checkpoints, if a directory is given.
        retained_share: Share of a step's rows that retained examples fill, in [0, 1); 0: none
            [ours].
        retention: What is minimised on them: `divergence`, λ · KL(before ‖ now); or `replay`, the
            cross-entropy as on all others.
        retention_weight: λ.
    """

    learning_rate: float = 2e-5
    epochs: int = 3
    batch_rows: int = 8
    row_length: int = 256
    accumulation: int = 1
    warmup_fraction: float = 0.03
    final_fraction: float = 0.0
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    seed: int = 0
    shuffle: bool = True
    remat: str = "full"
    lora: LoRAConfig | None = None
    save_every: int = 50
    retained_share: float = 0.0
    retention: Retention = "divergence"
    retention_weight: float = 4.0

    def __post_init__(self) -> None:
        for field in ("epochs", "batch_rows", "row_length", "accumulation", "save_every"):
            if getattr(self, field) < 1:
                raise InputError(f"{field}={getattr(self, field)}: at least 1")
        if not (math.isfinite(self.learning_rate) and 0 < self.learning_rate < 1e3):
            raise InputError(f"learning_rate={self.learning_rate}: a number above 0")
        if self.batch_rows % self.accumulation:
            raise InputError(
                f"accumulation={self.accumulation} doesn't divide batch_rows={self.batch_rows}"
            )
        if self.remat not in REMAT_POLICIES:
            raise InputError(f"remat={self.remat!r}: choose from {sorted(REMAT_POLICIES)}")
        if not 0 <= self.retained_share < 1:
            raise InputError(f"retained_share={self.retained_share}: from 0 up to, but not, 1")

    @property
    def retained_rows(self) -> int:
        """Rows of a step that retained examples may fill."""
        most = self.batch_rows - 1 if self.batch_rows > 1 else 1
        return min(math.ceil(self.retained_share * self.batch_rows), most)

    @property
    def needs_student_before(self) -> bool:
        """Whether a step looks at what the student was before training."""
        return self.retained_rows > 0 and self.retention == "divergence"

    def step_settings(self) -> StepSettings:
        """The part that a compiled step depends on."""
        diverging = self.needs_student_before
        return StepSettings(
            self.accumulation,
            self.weight_decay,
            self.beta1,
            self.beta2,
            self.clip,
            self.remat,
            self.retained_rows if diverging else 0,
            self.retention_weight if diverging else 0.0,
        )

    def learning_rate_at(self, progress: float) -> float:
        """Linear warm-up, then a cosine.

        Args:
            progress: Share of the budget at the middle of a step, in [0, 1].
        """
        if progress < self.warmup_fraction:
            return self.learning_rate * progress / self.warmup_fraction
        done = (progress - self.warmup_fraction) / max(1 - self.warmup_fraction, 1e-9)
        cosine = (1 + math.cos(math.pi * min(done, 1.0))) / 2
        final = self.final_fraction
        return self.learning_rate * (final + (1 - final) * cosine)


@dataclasses.dataclass(frozen=True)
class StepMetrics:
    """One optimiser step.

    Attributes:
        step: From 1.
        steps: In all, at the pace so far.
        loss: What was minimised: mean over scored tokens, nats; without retained examples the mean
            negative log-likelihood.
        grad_norm: Before clipping.
        learning_rate: Used by the step.
        scored_tokens: Tokens that the loss is over.
        tokens: Tokens computed, padding left out.
        seconds: Wall time.
    """

    step: int
    steps: int
    loss: float
    grad_norm: float
    learning_rate: float
    scored_tokens: int
    tokens: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """A trained model.

    Attributes:
        decoder: Trained; with LoRA, the base with adapters merged.
        lora: The adapters, or None.
        metrics: One entry a step of this process (a resumed run has only its own).
        tokens: Tokens trained on in the whole run, prompts included, padding left out.
        truncated: Examples whose completion lost its end.
    """

    decoder: Decoder
    lora: LoRA | None
    metrics: tuple[StepMetrics, ...]
    tokens: int
    truncated: int


@dataclasses.dataclass(frozen=True)
class Batch:
    """Examples of an optimiser step.

    Attributes:
        examples: Learnt by cross-entropy.
        retained: On these the student is kept near what it was before training.
    """

    examples: tuple[TokenPair, ...]
    retained: tuple[TokenPair, ...] = ()


# -- batches ---------------------------------------------------------------------------------------


def cut_pair(pair: TokenPair, row_length: int, where: str) -> TokenPair:
    """A pair whose completion is cut to what a row holds.

    Raises:
        InputError: A part is empty, or the prompt leaves no room; names `where`.
    """
    room = row_length - len(pair.prompt)
    if room < 1 or not pair.prompt or not pair.completion:
        raise InputError(
            f"{where}: prompt of {len(pair.prompt)} and completion of {len(pair.completion)} "
            f"tokens; both need at least one, and row_length={row_length} has to hold the prompt "
            "and part of the completion"
        )
    return TokenPair(pair.prompt, pair.completion[:room])


def endless_batches(
    examples: Sequence[TokenPair],
    config: TrainConfig,
    *purpose: str | int,
    retained: Sequence[TokenPair] = (),
) -> Iterator[Batch]:
    """Batches that fill `config.batch_rows` packed rows each, without end.

    Examples pass in epochs, each in an order of its own; so do retained ones, in rows of their own
    whose share is `config.retained_share`. A function of the arguments alone: a run that is resumed
    passes over the batches that it has had.

    Args:
        examples: At least one.
        config: Rows, their length, seed, shuffle and share.
        purpose: Other words give another order.
        retained: None are taken where this is empty.

    Raises:
        InputError: No examples, or one that fits no row.
    """
    if not examples:
        raise InputError("no examples to train on")
    own = _Epochs(examples, config, *purpose)
    kept = _Epochs(retained, config, *purpose, "retained") if retained else None
    number = 0
    while True:
        rows = 0
        if kept is not None:
            exact = config.retained_share * config.batch_rows
            rows = math.floor((number + 1) * exact) - math.floor(number * exact)
            rows = min(rows, config.retained_rows)
        yield Batch(
            own.fill(config.batch_rows - rows),
            kept.fill(rows) if kept is not None and rows else (),
        )
        number += 1


class _Epochs:
    """Examples in shuffled passes without end."""

    def __init__(
        self, pairs: Sequence[TokenPair], config: TrainConfig, *purpose: str | int
    ) -> None:
        self._pairs = [
            cut_pair(pair, config.row_length, f"example {i}") for i, pair in enumerate(pairs)
        ]
        self._config = config
        self._purpose = purpose
        self._epoch = 0
        self._order: list[int] = []

    def fill(self, rows: int) -> tuple[TokenPair, ...]:
        """The next examples that fit into so many rows, within an epoch."""
        packer = RowPacker(self._config.row_length, rows)
        chosen: list[TokenPair] = []
        if not self._order:
            self._order = self._next_order()
        while self._order and packer.add(len(self._pairs[self._order[-1]])):
            chosen.append(self._pairs[self._order.pop()])
        return tuple(chosen)

    def _next_order(self) -> list[int]:
        order = np.arange(len(self._pairs))
        if self._config.shuffle:
            draws = stream(self._config.seed, "order", *self._purpose, self._epoch)
            order = draws.permutation(order)
        self._epoch += 1
        return [int(i) for i in order[::-1]]


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
    own = _rows_of(pairs, row_length, 0)
    kept = _rows_of(retained, row_length, len(pairs))
    everything = [*pairs, *retained]
    if num_scored is None:
        most = max(
            sum(len(everything[i].completion) for group in row for i in group.members)
            for row in (*own, *kept)
        )
        num_scored = min(batching.row_bucket(most, smallest=32), row_length)
    padding = [] if num_rows is None else [[]] * (num_rows - len(own) - len(kept))
    rows = [*own, *padding, *kept]
    return batching.build_rows(everything, rows, row_length, len(rows), num_scored)


def _rows_of(pairs: Sequence[TokenPair], row_length: int, first: int) -> list[list[PrefixGroup]]:
    """Groups of one pair each, by row; pairs are numbered from `first`."""
    packed = batching.pack_in_order([len(pair) for pair in pairs], row_length)
    return [
        [PrefixGroup(len(pairs[i].prompt), [first + i], len(pairs[i])) for i in row]
        for row in packed
    ]


# -- a step ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What a compiled step depends on; runs that agree in it share one program.

    Attributes:
        accumulation: Parts of a step.
        weight_decay: AdamW's.
        beta1: AdamW's.
        beta2: AdamW's.
        clip: Largest global gradient norm.
        remat: See `Decoder.hidden`.
        retained_rows: Of each part, the last rows that may have retained examples; all of its rows
            where it has no more.
        retention_weight: λ.
    """

    accumulation: int
    weight_decay: float
    beta1: float
    beta2: float
    clip: float
    remat: str
    retained_rows: int = 0
    retention_weight: float = 0.0

    def optimizer(self) -> optax.GradientTransformation:
        """Clipping, then AdamW without its learning rate, which the step multiplies in."""
        chain = optax.chain(
            optax.clip_by_global_norm(self.clip),
            optax.scale_by_adam(self.beta1, self.beta2),
            optax.add_decayed_weights(self.weight_decay, mask=_decayed),
        )

        def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
            # optax mixes Python floats with int32 counters, which strict promotion refuses.
            with jax.numpy_dtype_promotion("standard"):
                return chain.update(updates, state, params)

        return optax.GradientTransformation(chain.init, update)


def _decayed(tree: Any) -> Any:
    """True for matrices, False for norms and biases."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: (
            "norm" not in jax.tree_util.keystr(path) and "bias" not in jax.tree_util.keystr(path)
        ),
        tree,
    )


def loss_sum(
    decoder: Decoder, lora: LoRA | None, rows: dict[str, Any], remat: str
) -> tuple[Array, Array]:
    """Negative log-likelihood summed over scored tokens, and their number (both float32)."""
    statistics = row_statistics(decoder, rows, chunk=losses.CHUNK, lora=lora, remat=remat)
    weights = rows["weights"].astype(jnp.float32)
    return -jnp.sum(statistics.logprob * weights), jnp.sum(weights)


def retained_loss_sum(
    decoder: Decoder,
    lora: LoRA | None,
    before: Decoder,
    rows: dict[str, Any],
    settings: StepSettings,
) -> tuple[Array, Array]:
    """As `loss_sum`, with λ · KL(before ‖ now) on the tokens of retained examples.

    Args:
        decoder: As it is now.
        lora: Adapters, or None.
        before: The student before training; no gradient flows into it.
        rows: With `retained`, [R, N] float32: 1 at tokens of retained examples, which only the last
            `settings.retained_rows` rows may have.
        settings: λ, rows and what is computed again.
    """
    last = min(settings.retained_rows, rows["tokens"].shape[0])
    first_rows = {name: x[: x.shape[0] - last] for name, x in rows.items()}
    last_rows = {name: x[x.shape[0] - last :] for name, x in rows.items()}
    total, count = jnp.float32(0), jnp.float32(0)
    if first_rows["tokens"].shape[0]:
        total, count = loss_sum(decoder, lora, first_rows, settings.remat)
    statistics = row_statistics(
        decoder,
        last_rows,
        chunk=losses.CHUNK,
        lora=lora,
        remat=settings.remat,
        reference=before,
    )
    assert statistics.forward_kl is not None
    weights = last_rows["weights"].astype(jnp.float32)
    kept = last_rows["retained"]
    divergence = settings.retention_weight * statistics.forward_kl * kept
    taught = -statistics.logprob * (weights - kept)
    return total + jnp.sum(divergence + taught), count + jnp.sum(weights)


@functools.partial(jax.jit, static_argnames=("settings",), donate_argnums=(0, 1))
def train_step(
    trainable: Any,
    optimizer_state: Any,
    frozen: Decoder | None,
    rows: dict[str, Any],
    learning_rate: Array,
    before: Decoder | None = None,
    *,
    settings: StepSettings,
) -> tuple[Any, Any, dict[str, Array]]:
    """One optimiser step.

    Args:
        trainable: The decoder, or a LoRA when `frozen` is given. Donated.
        optimizer_state: Donated.
        frozen: Base decoder of a LoRA run.
        rows: `PackedRows.device_arrays()` of the whole step, with `retained` where `before` is
            given.
        learning_rate: float32 scalar.
        before: The student before training, where examples are retained.
        settings: Static.

    Returns:
        New trainable, new optimiser state, and scalars `loss`, `grad_norm`, `scored_tokens`.
    """

    def objective(trainable: Any, part: dict[str, Any]) -> tuple[Array, Array]:
        decoder, lora = (trainable, None) if frozen is None else (frozen, trainable)
        if before is None:
            return loss_sum(decoder, lora, part, settings.remat)
        return retained_loss_sum(decoder, lora, before, part, settings)

    gradient = jax.value_and_grad(objective, has_aux=True)
    if settings.accumulation == 1:
        (total, count), grads = gradient(trainable, rows)
    else:
        parts = jax.tree.map(lambda x: x.reshape(settings.accumulation, -1, *x.shape[1:]), rows)

        def add(carry: Any, part: dict[str, Any]) -> tuple[Any, None]:
            (total, count), grads = gradient(trainable, part)
            return jax.tree.map(jnp.add, carry, (total, count, grads)), None

        start = (jnp.float32(0), jnp.float32(0), jax.tree.map(jnp.zeros_like, trainable))
        (total, count, grads), _ = jax.lax.scan(add, start, parts)
    grads = jax.tree.map(lambda g: g / jnp.maximum(count, 1).astype(g.dtype), grads)
    updates, optimizer_state = settings.optimizer().update(grads, optimizer_state, trainable)
    return (
        jax.tree.map(lambda w, u: w - (learning_rate * u).astype(w.dtype), trainable, updates),
        optimizer_state,
        {
            "loss": total / jnp.maximum(count, 1),
            "grad_norm": optax.tree.norm(grads),
            "scored_tokens": count,
        },
    )


@functools.partial(jax.jit, static_argnames=("settings",))
def _init_optimizer(trainable: Any, *, settings: StepSettings) -> Any:
    return settings.optimizer().init(trainable)


# -- the trainer -----------------------------------------------------------------------------------

_LORA_STREAM = 1  # random streams are derived from (seed, purpose)


class Trainer:
    """Optimiser steps under one learning-rate schedule over a budget of tokens.

    The rate is a function of the share of the budget that is used, not of the number of steps: it
    can be followed while nobody knows yet what later stages will bring, and methods that are given
    equal budgets get equal schedules, however their examples differ in length.

    Attributes:
        config: Hyperparameters.
        budget_tokens: Tokens that may be trained on, prompts included, padding left out.
        steps: Steps taken, those before a restart among them.
        tokens: Tokens trained on so far, likewise.
        truncated: Examples so far that lost the end of their completion to the row length.
    """

    def __init__(
        self,
        decoder: Decoder,
        config: TrainConfig,
        budget_tokens: int,
        *,
        directory: Path | None = None,
        mesh: Mesh | None = None,
        data: str = "",
    ) -> None:
        """Begin, or go on where the newest checkpoint in `directory` was written.

        Args:
            decoder: Stacked; float32 weights for full fine-tuning (bfloat16 updates would round
                away). It isn't changed, and it is the student before training where examples are
                retained.
            config: Hyperparameters.
            budget_tokens: At least 1.
            directory: Where checkpoints go; None writes none.
            mesh: Devices; None is one device.
            data: Identity of the examples, which checkpoints have to agree with.

        Raises:
            InputError: Weights that can't be trained, no budget, or checkpoints of another run.
        """
        if budget_tokens < 1:
            raise InputError(f"budget_tokens={budget_tokens}: at least 1")
        if not decoder.is_stacked:
            raise InputError("train the stacked decoder, before unstacked()")
        if config.lora is None and decoder.embedding.dtype != jnp.float32:
            raise InputError(
                f"full fine-tuning needs float32 weights, not {decoder.embedding.dtype}; load the "
                "student with dtype float32 (precision bfloat16 still computes in bfloat16)"
            )
        self.config = config
        self.budget_tokens = budget_tokens
        self.steps = self.tokens = self.truncated = 0
        self._settings = config.step_settings()
        self._mesh = mesh
        self._data = data
        self._base = decoder
        if config.lora is None:
            # train_step donates its input.
            trainable: Any = jax.tree.map(jnp.copy, decoder)
        else:
            key = jax.random.fold_in(jax.random.key(config.seed), _LORA_STREAM)
            lora = config.lora
            trainable = init_lora(decoder.config, key, lora.rank, lora.alpha, lora.targets)
        if mesh is not None:
            trainable = jax.device_put(trainable, decoder_shardings(trainable, mesh))
            if config.lora is not None or config.needs_student_before:
                self._base = jax.device_put(decoder, decoder_shardings(decoder, mesh))
        self._frozen = None if config.lora is None else self._base
        self._before = self._base if config.needs_student_before else None
        self._state: tuple[Any, Any] = (
            trainable,
            _init_optimizer(trainable, settings=self._settings),
        )
        self._checkpoints = None if directory is None else Checkpoints(directory)
        self._saved_step = 0
        if self._checkpoints is not None and self._checkpoints.latest is not None:
            restored, saved = self._checkpoints.restore(self._state)
            if saved["digest"] != self._digest():
                self._checkpoints.close()
                raise InputError(
                    f"{directory}: the checkpoints are of a run with other data or settings or "
                    "another budget; name another directory or delete them"
                )
            self._state = restored
            self.steps, self.tokens = int(saved["step"]), int(saved["tokens"])
            self.truncated = int(saved["truncated"])
            self._saved_step = self.steps
            log.info("resumed at step %d, %d of %d tokens", self.steps, self.tokens, budget_tokens)

    @property
    def decoder(self) -> Decoder:
        """As trained so far, adapters merged; use it before the next step, or copy it."""
        trainable = self._state[0]
        return trainable if self._frozen is None else merge_lora(self._base, trainable)

    @property
    def lora(self) -> LoRA | None:
        """The adapters as trained so far; None where every weight is trained."""
        return None if self._frozen is None else self._state[0]

    @property
    def progress(self) -> float:
        """Share of the budget that is used, in [0, 1]."""
        return self.tokens / self.budget_tokens

    def run(
        self,
        batches: Iterable[Batch],
        *,
        first_step: int = 0,
        until_tokens: int | None = None,
        until_steps: int | None = None,
        on_step: Callable[[StepMetrics], None] | None = None,
    ) -> None:
        """Take steps until the budget, a number of tokens or steps, or the batches end.

        Args:
            batches: From step `first_step` on; those that were trained on before a restart are
                passed over.
            first_step: Steps that the run has taken before the first batch.
            until_tokens: Tokens of the whole run; the step that reaches them is the last.
            until_steps: Steps of the whole run.
            on_step: Called after each step.

        Raises:
            InputError: As `step`.
        """
        for number, batch in enumerate(batches, start=first_step):
            if (until_steps is not None and self.steps >= until_steps) or (
                until_tokens is not None and self.tokens >= until_tokens
            ):
                return
            if number < self.steps:
                continue
            metrics = self.step(batch)
            if metrics is None:
                return
            if on_step is not None:
                on_step(metrics)

    def step(self, batch: Batch) -> StepMetrics | None:
        """Train on a batch once.

        Of a batch that would exceed the budget, the examples that still fit are used, in order.
        What a block of `config.save_every` steps gave is saved when the next one begins: so what
        the caller does after its last step is done again if a kill comes between.

        Args:
            batch: Tokenised examples; packed into rows, and padded to a number of rows that is one
                of few, so that few programs are compiled.

        Returns:
            What the step did; None where the budget has no room for any of the batch.

        Raises:
            InputError: An example without room for its completion, an empty batch, more rows of
                retained examples than `config.retained_share` allows, or a loss that isn't finite.
        """
        if not batch.examples and not batch.retained:
            raise InputError(f"step {self.steps + 1}: a batch without examples")
        kept, allowed = self._rows_taken(batch.retained), self.config.retained_rows
        if kept > allowed:
            raise InputError(
                f"step {self.steps + 1}: the {len(batch.retained)} retained examples fill {kept} "
                f"rows of {self.config.row_length} tokens, and "
                f"retained_share={self.config.retained_share} of batch_rows="
                f"{self.config.batch_rows} allows {allowed}; retain fewer, or raise one of them"
            )
        began = time.perf_counter()
        left = self.budget_tokens - self.tokens
        examples = self._fitting(batch.examples, left)
        left -= sum(map(len, examples))
        retained = self._fitting(batch.retained, left)
        if not examples and not retained:
            return None
        if self.steps and self.steps % self.config.save_every == 0:
            self.save()
        tokens = sum(map(len, (*examples, *retained)))
        rate = self.config.learning_rate_at((self.tokens + tokens / 2) / self.budget_tokens)
        values = self._update(self._pack(examples, retained), rate)
        self.steps += 1
        self.tokens += tokens
        originals = (*batch.examples[: len(examples)], *batch.retained[: len(retained)])
        self.truncated += sum(
            len(cut) < len(pair)
            for cut, pair in zip((*examples, *retained), originals, strict=True)
        )
        return StepMetrics(
            step=self.steps,
            # At the pace so far.
            steps=max(self.steps, round(self.steps / self.progress)),
            loss=values["loss"],
            grad_norm=values["grad_norm"],
            learning_rate=rate,
            scored_tokens=int(values["scored_tokens"]),
            tokens=tokens,
            seconds=time.perf_counter() - began,
        )

    def save(self) -> None:
        """Write a checkpoint, unless the newest is of this step already."""
        if self._checkpoints is None or self._saved_step == self.steps:
            return
        data = {
            "step": self.steps,
            "tokens": self.tokens,
            "truncated": self.truncated,
            "digest": self._digest(),
        }
        self._checkpoints.save(self.steps, self._state, data)
        self._saved_step = self.steps

    def close(self) -> None:
        """Wait for the checkpoint that is being written."""
        if self._checkpoints is not None:
            self._checkpoints.close()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _fitting(self, pairs: Sequence[TokenPair], left: int) -> list[TokenPair]:
        """The first pairs, cut to a row, that the budget has room for."""
        found: list[TokenPair] = []
        for number, pair in enumerate(pairs):
            where = f"step {self.steps + 1}, example {number}"
            cut = cut_pair(pair, self.config.row_length, where)
            left -= len(cut)
            if left < 0:
                break
            found.append(cut)
        return found

    def _rows_taken(self, pairs: Sequence[TokenPair]) -> int:
        """Rows that pairs fill, those that are too long for one cut."""
        length = self.config.row_length
        return len(batching.pack_in_order([min(len(pair), length) for pair in pairs], length))

    def _pack(
        self, examples: Sequence[TokenPair], retained: Sequence[TokenPair]
    ) -> dict[str, np.ndarray]:
        """Rows of the step; retained examples in the last ones."""
        length, parts = self.config.row_length, self.config.accumulation
        kept = self._rows_taken(retained)
        count = self._rows_taken(examples) + kept
        # A multiple of the accumulation's parts, since the smallest is one and others are
        # `batch_rows` times 1.5, 2, 3 and so on, rounded up to one.
        rows = -(-batching.row_bucket(count, self.config.batch_rows) // parts) * parts
        arrays = pack_batch(examples, length, rows, retained=retained).device_arrays()
        if self._before is not None:
            is_retained = np.arange(rows)[:, None] >= rows - kept
            arrays["retained"] = (arrays["weights"] * is_retained).astype(np.float32)
        return arrays

    def _update(self, rows: dict[str, Any], rate: float) -> dict[str, float]:
        if self._mesh is not None:
            rows = jax.device_put(rows, batch_sharding(self._mesh))
        *state, scalars = train_step(
            *self._state,
            self._frozen,
            rows,
            jnp.float32(rate),
            self._before,
            settings=self._settings,
        )
        self._state = state[0], state[1]
        values = {name: float(x) for name, x in jax.device_get(scalars).items()}
        if not math.isfinite(values["loss"]):
            raise InputError(
                f"the loss is {values['loss']} at step {self.steps + 1}; lower the learning rate "
                f"({self.config.learning_rate}) or look at the examples of this step"
            )
        return values

    def _digest(self) -> str:
        content: dict[str, Any] = {
            "config": dataclasses.asdict(self.config),
            "budget_tokens": self.budget_tokens,
            "data": self._data,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def train(
    decoder: Decoder,
    examples: Sequence[TokenPair],
    config: TrainConfig,
    *,
    directory: Path | None = None,
    mesh: Mesh | None = None,
    on_step: Callable[[StepMetrics], None] | None = None,
) -> TrainResult:
    """Fine-tune on the completions of `examples` for `config.epochs` passes.

    Args:
        decoder: As `Trainer`.
        examples: Tokenised; an ending token belongs to the completion.
        config: Hyperparameters.
        directory: Where checkpoints go; if it has some of this very run, training resumes there
            and ends with bitwise the weights of a run that was never stopped.
        mesh: Devices; None is one device.
        on_step: Called after each step.

    Raises:
        InputError: Bad examples; weights that can't be trained; checkpoints of another run.
    """
    if not examples:
        raise InputError("no examples to train on")
    batches = endless_batches(examples, config)
    cut = [cut_pair(pair, config.row_length, f"example {i}") for i, pair in enumerate(examples)]
    truncated = sum(len(a) < len(b) for a, b in zip(cut, examples, strict=True))
    if truncated:
        log.warning(
            "%d of %d completions were cut to fit rows of %d tokens",
            truncated,
            len(examples),
            config.row_length,
        )
    metrics: list[StepMetrics] = []

    def keep(step: StepMetrics) -> None:
        metrics.append(step)
        if on_step is not None:
            on_step(step)

    budget = config.epochs * sum(map(len, cut))
    content = [[pair.prompt, pair.completion] for pair in cut]
    data = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    with Trainer(decoder, config, budget, directory=directory, mesh=mesh, data=data) as trainer:
        trainer.run(batches, on_step=keep)
        trainer.save()
        return TrainResult(trainer.decoder, trainer.lora, tuple(metrics), trainer.tokens, truncated)
