"""Supervised fine-tuning on completions: packed rows, full weights or LoRA, resumable."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh

from ioa_jax.engine import batching, losses
from ioa_jax.engine.batching import PackedRows, PrefixGroup, TokenPair
from ioa_jax.engine.checkpoint import Checkpoints
from ioa_jax.engine.mesh import batch_sharding, decoder_shardings
from ioa_jax.engine.scoring import row_statistics
from ioa_jax.errors import InputError
from ioa_jax.models.decoder import REMAT_POLICIES, Decoder
from ioa_jax.models.lora import LoRA, init_lora, merge_lora

log = logging.getLogger(__name__)


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
        epochs: Passes over the data.
        batch_rows: Packed rows of one optimiser step.
        row_length: Tokens of a row; longer sequences lose the end of their completion.
        accumulation: Parts a step's rows are split into; gradients are summed, then divided by the
            step's number of scored tokens, so that the split changes nothing.
        warmup_fraction: Share of the steps with a rising learning rate.
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

    def __post_init__(self) -> None:
        for field in ("epochs", "batch_rows", "row_length", "accumulation", "save_every"):
            if getattr(self, field) < 1:
                raise InputError(f"{field}={getattr(self, field)}: at least 1")
        if self.batch_rows % self.accumulation:
            raise InputError(
                f"accumulation={self.accumulation} doesn't divide batch_rows={self.batch_rows}"
            )
        if self.remat not in REMAT_POLICIES:
            raise InputError(f"remat={self.remat!r}: choose from {sorted(REMAT_POLICIES)}")

    def step_settings(self) -> StepSettings:
        """The part that a compiled step depends on."""
        return StepSettings(
            self.accumulation, self.weight_decay, self.beta1, self.beta2, self.clip, self.remat
        )


@dataclasses.dataclass(frozen=True)
class StepMetrics:
    """One optimiser step.

    Attributes:
        step: From 1.
        steps: In all.
        loss: Mean negative log-likelihood a scored token, nats.
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
class Schedule:
    """Every row of every step of a run: a pure function of examples, configuration and seed.

    Attributes:
        pairs: The examples, cut to the row length.
        steps: For each step, the example indices of each of its rows.
        scored_bucket: Scored tokens a row that one compiled program holds.
        truncated: Examples that were cut.
    """

    pairs: tuple[TokenPair, ...]
    steps: tuple[tuple[tuple[int, ...], ...], ...]
    scored_bucket: int
    truncated: int

    def rows(self, step: int, config: TrainConfig) -> PackedRows:
        """The packed rows of a step (from 0), padded to `batch_rows`."""
        rows = [
            [PrefixGroup(len(self.pairs[i].prompt), [i], len(self.pairs[i])) for i in row]
            for row in self.steps[step]
        ]
        return batching.build_rows(
            self.pairs, rows, config.row_length, config.batch_rows, self.scored_bucket
        )

    def tokens(self, step: int) -> int:
        """Tokens of a step, padding left out."""
        return sum(len(self.pairs[i]) for row in self.steps[step] for i in row)


def make_schedule(examples: Sequence[TokenPair], config: TrainConfig) -> Schedule:
    """Cut, order and pack the examples of a run.

    Raises:
        InputError: No examples, or a prompt that leaves no room for its completion.
    """
    if not examples:
        raise InputError("no examples to train on")
    pairs: list[TokenPair] = []
    truncated = 0
    for i, pair in enumerate(examples):
        room = config.row_length - len(pair.prompt)
        if room < 1 or not pair.prompt or not pair.completion:
            raise InputError(
                f"example {i}: prompt of {len(pair.prompt)} and completion of "
                f"{len(pair.completion)} tokens; both need at least one, and row_length="
                f"{config.row_length} has to hold the prompt and part of the completion"
            )
        truncated += len(pair.completion) > room
        pairs.append(TokenPair(pair.prompt, pair.completion[:room]))
    steps: list[tuple[tuple[int, ...], ...]] = []
    for epoch in range(config.epochs):
        order = np.arange(len(pairs))
        if config.shuffle:
            order = np.random.default_rng((config.seed, epoch)).permutation(order)
        packed = batching.pack_in_order([len(pairs[i]) for i in order], config.row_length)
        rows = [tuple(int(order[i]) for i in row) for row in packed]
        steps += [
            tuple(rows[start : start + config.batch_rows])
            for start in range(0, len(rows), config.batch_rows)
        ]
    most = max(sum(len(pairs[i].completion) for i in row) for step in steps for row in step)
    bucket = min(batching.row_bucket(most, smallest=32), config.row_length)
    return Schedule(tuple(pairs), tuple(steps), bucket, truncated)


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What a compiled step depends on; runs that agree in it share one program."""

    accumulation: int
    weight_decay: float
    beta1: float
    beta2: float
    clip: float
    remat: str

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


def learning_rates(config: TrainConfig, steps: int) -> np.ndarray:
    """Learning rate of each step: linear warm-up from 0, then a cosine; [steps] float32."""
    warmup = min(math.ceil(config.warmup_fraction * steps), steps - 1)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        config.learning_rate,
        warmup,
        steps,
        config.learning_rate * config.final_fraction,
    )
    # Step i is taken at i + 1: neither the first nor the last step is wasted at a rate of 0 when
    # there is a warm-up.
    with jax.numpy_dtype_promotion("standard"):
        return np.asarray([schedule(step + 1 if step < warmup else step) for step in range(steps)])


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


@functools.partial(jax.jit, static_argnames=("settings",), donate_argnums=(0, 1))
def train_step(
    trainable: Any,
    optimizer_state: Any,
    frozen: Decoder | None,
    rows: dict[str, Any],
    learning_rate: Array,
    *,
    settings: StepSettings,
) -> tuple[Any, Any, dict[str, Array]]:
    """One optimiser step.

    Args:
        trainable: The decoder, or a LoRA when `frozen` is given. Donated.
        optimizer_state: Donated.
        frozen: Base decoder of a LoRA run.
        rows: `PackedRows.device_arrays()` of the whole step.
        learning_rate: float32 scalar.
        settings: Static.

    Returns:
        New trainable, new optimiser state, and scalars `loss`, `grad_norm`, `scored_tokens`.
    """

    def objective(trainable: Any, part: dict[str, Any]) -> tuple[Array, Array]:
        decoder, lora = (trainable, None) if frozen is None else (frozen, trainable)
        return loss_sum(decoder, lora, part, settings.remat)

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


class Training:
    """Weights in training: what a step changes, and what it leaves as it is.

    Attributes:
        state: (trainable, optimiser state): the decoder, or a LoRA beside a frozen decoder.
    """

    def __init__(self, decoder: Decoder, config: TrainConfig, mesh: Mesh | None = None) -> None:
        """Copy what is trained, so that the caller keeps their decoder.

        Args:
            decoder: Stacked; float32 weights for full fine-tuning (bfloat16 updates would round
                away).
            config: Hyperparameters.
            mesh: Devices; None is one device.

        Raises:
            InputError: Weights that can't be trained.
        """
        if not decoder.is_stacked:
            raise InputError("train the stacked decoder, before unstacked()")
        if config.lora is None and decoder.embedding.dtype != jnp.float32:
            raise InputError(
                f"full fine-tuning needs float32 weights, not {decoder.embedding.dtype}; load the "
                "student with dtype float32 (precision bfloat16 still computes in bfloat16)"
            )
        self._settings = config.step_settings()
        self._learning_rate = config.learning_rate
        self._mesh = mesh
        self._base = decoder
        if config.lora is None:
            # train_step donates its input.
            trainable: Any = jax.tree.map(jnp.copy, decoder)
            self._frozen = None
        else:
            key = jax.random.fold_in(jax.random.key(config.seed), _LORA_STREAM)
            lora = config.lora
            trainable = init_lora(decoder.config, key, lora.rank, lora.alpha, lora.targets)
            self._frozen = decoder
        if mesh is not None:
            trainable = jax.device_put(trainable, decoder_shardings(trainable, mesh))
            if self._frozen is not None:
                self._frozen = jax.device_put(self._frozen, decoder_shardings(decoder, mesh))
        self.state: tuple[Any, Any] = trainable, _init_optimizer(trainable, settings=self._settings)

    def step(self, packed: PackedRows, learning_rate: float, number: int) -> dict[str, float]:
        """One optimiser step.

        Args:
            packed: Rows of the step.
            learning_rate: Of the step.
            number: Of the step, from 1, for the error.

        Returns:
            `loss`, `grad_norm` and `scored_tokens`.

        Raises:
            InputError: The loss isn't finite.
        """
        rows: dict[str, Any] = packed.device_arrays()
        if self._mesh is not None:
            rows = jax.device_put(rows, batch_sharding(self._mesh))
        trainable, optimizer_state, scalars = train_step(
            *self.state, self._frozen, rows, jnp.float32(learning_rate), settings=self._settings
        )
        self.state = trainable, optimizer_state
        values = {name: float(x) for name, x in jax.device_get(scalars).items()}
        if not math.isfinite(values["loss"]):
            raise InputError(
                f"the loss is {values['loss']} at step {number}; lower the learning rate "
                f"({self._learning_rate}) or look at the examples of this step"
            )
        return values

    def models(self) -> tuple[Decoder, LoRA | None]:
        """The decoder, with adapters merged where they are trained; and the adapters or None.

        Of full fine-tuning, the decoder's arrays are given away by the next step.
        """
        trainable = self.state[0]
        if self._frozen is None:
            return trainable, None
        return merge_lora(self._base, trainable), trainable


@functools.partial(jax.jit, static_argnames=("settings",))
def _init_optimizer(trainable: Any, *, settings: StepSettings) -> Any:
    return settings.optimizer().init(trainable)


def train(
    decoder: Decoder,
    examples: Sequence[TokenPair],
    config: TrainConfig,
    *,
    directory: Path | None = None,
    mesh: Mesh | None = None,
    on_step: Callable[[StepMetrics], None] | None = None,
) -> TrainResult:
    """Fine-tune on the completions of `examples`.

    Args:
        decoder: Float32 weights for full fine-tuning (bfloat16 updates would round away). It isn't
            changed.
        examples: Tokenised; an ending token belongs to the completion.
        config: Hyperparameters.
        directory: Where checkpoints go; if it has some of this very run, training resumes there
            and ends with bitwise the weights of a run that was never stopped.
        mesh: Devices; None is one device.
        on_step: Called after each step.

    Raises:
        InputError: Bad examples; weights that can't be trained; checkpoints of another run.
    """
    training = Training(decoder, config, mesh)
    schedule = make_schedule(examples, config)
    if schedule.truncated:
        log.warning(
            "%d of %d completions were cut to fit rows of %d tokens",
            schedule.truncated,
            len(examples),
            config.row_length,
        )
    steps = len(schedule.steps)
    rates = learning_rates(config, steps)
    digest = _run_digest(schedule, config)
    metrics: list[StepMetrics] = []
    first = 0
    checkpoints = None if directory is None else Checkpoints(directory)
    try:
        if checkpoints is not None and checkpoints.latest is not None:
            training.state, data = checkpoints.restore(training.state)
            if data["digest"] != digest:
                raise InputError(
                    f"{directory}: the checkpoints are of a run with other data or settings; "
                    "name another directory or delete them"
                )
            first = int(data["step"])
            log.info("resumed at step %d of %d", first, steps)
        for step in range(first, steps):
            began = time.perf_counter()
            values = training.step(schedule.rows(step, config), float(rates[step]), step + 1)
            record = StepMetrics(
                step=step + 1,
                steps=steps,
                loss=values["loss"],
                grad_norm=values["grad_norm"],
                learning_rate=float(rates[step]),
                scored_tokens=int(values["scored_tokens"]),
                tokens=schedule.tokens(step),
                seconds=time.perf_counter() - began,
            )
            metrics.append(record)
            if on_step is not None:
                on_step(record)
            if checkpoints is not None and (
                (step + 1) % config.save_every == 0 or step + 1 == steps
            ):
                data = {"step": step + 1, "digest": digest}
                checkpoints.save(step + 1, training.state, data)
    finally:
        if checkpoints is not None:
            checkpoints.close()
    tokens = sum(schedule.tokens(step) for step in range(steps))
    trained, lora = training.models()
    return TrainResult(trained, lora, tuple(metrics), tokens, schedule.truncated)


_LORA_STREAM = 1  # random streams are derived from (seed, purpose)


def _run_digest(schedule: Schedule, config: TrainConfig) -> str:
    """Identity of a run: its data in order and its settings."""
    content = {
        "config": dataclasses.asdict(config),
        "pairs": [[pair.prompt, pair.completion] for pair in schedule.pairs],
        "steps": schedule.steps,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
