"""Supervised fine-tuning under a budget of tokens: packed rows, full weights or LoRA.

`Trainer` is the one training engine: of `ioa train`, of the stages of IOA and of every method of
the suite. Examples may arrive as it goes. Beside examples that are learnt by cross-entropy, a step
may have retained ones, on which the student is kept near what it was before training.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ioa_jax.engine import batching
from ioa_jax.engine.batching import HostRows, TokenPair, cut_pair, pack_batch
from ioa_jax.engine.checkpoint import Checkpoints
from ioa_jax.engine.epochs import Batch, endless_batches
from ioa_jax.engine.optimizer import StepSettings, init_optimizer
from ioa_jax.engine.train_config import LoRAConfig, TrainConfig
from ioa_jax.engine.train_step import train_step
from ioa_jax.errors import InputError
from ioa_jax.models.decoder import Decoder
from ioa_jax.models.lora import LoRA, init_lora, merge_lora
from ioa_jax.models.mesh import batch_sharding, decoder_shardings

# What training needs, whichever file it is in.
__all__ = [
    "Batch",
    "LoRAConfig",
    "StepMetrics",
    "StepSettings",
    "TrainConfig",
    "TrainResult",
    "Trainer",
    "endless_batches",
    "pack_batch",
    "train",
    "train_step",
]

log = logging.getLogger(__name__)

_LORA_STREAM = 1  # random streams are derived from (seed, purpose)


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
        """Begin, or go on where the newest whole checkpoint in `directory` was written.

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
        self.config = config
        self.budget_tokens = budget_tokens
        self.steps = self.tokens = self.truncated = 0
        self._settings = config.step_settings()
        self._mesh = mesh
        self._data = data
        self._base = decoder
        trainable = _fresh(decoder, config)
        if mesh is not None:
            trainable = jax.device_put(trainable, decoder_shardings(trainable, mesh))
            if config.lora is not None or config.needs_student_before:
                self._base = jax.device_put(decoder, decoder_shardings(decoder, mesh))
        self._frozen = None if config.lora is None else self._base
        self._before = self._base if config.needs_student_before else None
        self._state: tuple[Any, Any] = (
            trainable,
            init_optimizer(trainable, settings=self._settings),
        )
        self._checkpoints = None if directory is None else Checkpoints(directory, self._digest())
        self._saved_step = 0
        if self._checkpoints is not None and self._checkpoints.latest is not None:
            self._resume(self._checkpoints)

    def _resume(self, checkpoints: Checkpoints) -> None:
        try:
            self._state, saved = checkpoints.restore(self._state)
        except InputError:
            checkpoints.close()
            raise
        self.steps, self.tokens = int(saved["step"]), int(saved["tokens"])
        self.truncated = int(saved["truncated"])
        self._saved_step = self.steps
        log.info("resumed at step %d, %d of %d tokens", self.steps, self.tokens, self.budget_tokens)

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
            # Passed over rather than skipped to: what draws the batches then draws the same ones.
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
        self._check_retained(batch.retained)
        began = time.perf_counter()
        left = self.budget_tokens - self.tokens
        # Examples before retained ones: at the end of a budget, learning goes before keeping.
        examples = self._fitting(batch.examples, left)
        left -= sum(map(len, examples))
        retained = self._fitting(batch.retained, left)
        if not examples and not retained:
            return None
        # Now and not when the block ended: see above.
        if self.steps and self.steps % self.config.save_every == 0:
            self.save()
        tokens = sum(map(len, (*examples, *retained)))
        # At the middle of the step: at its start a first step would have a rate of 0.
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
            # Not a shorter one from further behind: the order is a curriculum.
            if left < 0:
                break
            found.append(cut)
        return found

    def _check_retained(self, retained: Sequence[TokenPair]) -> None:
        """Refuse what would be learnt like any other example, for want of rows of its own."""
        kept, allowed = self._rows_taken(retained), self.config.retained_rows
        if kept > allowed:
            raise InputError(
                f"step {self.steps + 1}: the {len(retained)} retained examples fill {kept} "
                f"rows of {self.config.row_length} tokens, and "
                f"retained_share={self.config.retained_share} of batch_rows="
                f"{self.config.batch_rows} allows {allowed}; retain fewer, or raise one of them"
            )

    def _rows_taken(self, pairs: Sequence[TokenPair]) -> int:
        """Rows that pairs fill, those that are too long for one cut."""
        length = self.config.row_length
        return len(batching.pack_in_order([min(len(pair), length) for pair in pairs], length))

    def _pack(self, examples: Sequence[TokenPair], retained: Sequence[TokenPair]) -> HostRows:
        """Rows of the step; retained examples in the last ones."""
        length, parts = self.config.row_length, self.config.accumulation
        kept = self._rows_taken(retained)
        count = self._rows_taken(examples) + kept
        # A multiple of the accumulation's parts, since the smallest is one and others are
        # `batch_rows` times 1.5, 2, 3 and so on, rounded up to one.
        rows = -(-batching.row_bucket(count, self.config.batch_rows) // parts) * parts
        arrays = pack_batch(examples, length, rows, retained=retained).device_arrays()
        if self._before is None:
            return arrays
        is_retained = np.arange(rows)[:, None] >= rows - kept
        return {**arrays, "retained": (arrays["weights"] * is_retained).astype(np.float32)}

    def _update(self, host_rows: HostRows, rate: float) -> dict[str, float]:
        rows: Any = host_rows
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
        # Every later step would be lost too, and a checkpoint would keep it.
        if not math.isfinite(values["loss"]):
            raise InputError(
                f"the loss is {values['loss']} at step {self.steps + 1}; lower the learning rate "
                f"({self.config.learning_rate}) or look at the examples of this step"
            )
        return values

    def _digest(self) -> str:
        """Identity of the run: checkpoints of another one would go on with the wrong schedule."""
        content: dict[str, Any] = {
            "config": dataclasses.asdict(self.config),
            "budget_tokens": self.budget_tokens,
            "data": self._data,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _fresh(decoder: Decoder, config: TrainConfig) -> Decoder | LoRA:
    """What is trained, before the first step.

    Raises:
        InputError: Weights that can't be trained.
    """
    if not decoder.is_stacked:
        raise InputError("train the stacked decoder, before unstacked()")
    if config.lora is not None:
        key = jax.random.fold_in(jax.random.key(config.seed), _LORA_STREAM)
        lora = config.lora
        return init_lora(decoder.config, key, lora.rank, lora.alpha, lora.targets)
    if decoder.embedding.dtype != jnp.float32:
        raise InputError(
            f"full fine-tuning needs float32 weights, not {decoder.embedding.dtype}; load the "
            "student with dtype float32 (precision bfloat16 still computes in bfloat16)"
        )
    # train_step donates its input.
    return jax.tree.map(jnp.copy, decoder)


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
    # Of the tokens that are trained on: examples cut to the same are the same run.
    content = [[pair.prompt, pair.completion] for pair in cut]
    data = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    with Trainer(decoder, config, budget, directory=directory, mesh=mesh, data=data) as trainer:
        trainer.run(batches, on_step=keep)
        trainer.save()
        return TrainResult(trainer.decoder, trainer.lora, tuple(metrics), trainer.tokens, truncated)
