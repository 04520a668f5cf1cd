"""Training under a budget of tokens, on examples that arrive as it goes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from ioa_jax.engine import batching
from ioa_jax.engine.batching import PackedRows, PrefixGroup, TokenPair
from ioa_jax.engine.checkpoint import Checkpoints
from ioa_jax.engine.training import StepMetrics, TrainConfig, Training
from ioa_jax.errors import InputError
from ioa_jax.models.decoder import Decoder


class Trainer:
    """Optimiser steps under one learning-rate schedule over a budget of tokens.

    The rate is a function of the share of the budget that is used, not of the number of steps: it
    can be followed while nobody knows yet what later stages will bring, and methods that are given
    equal budgets get equal schedules, however their examples differ in length.

    Attributes:
        config: Hyperparameters; `epochs` and `shuffle` don't matter, since the caller makes the
            batches.
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
    ) -> None:
        """Begin, or go on where the newest checkpoint in `directory` was written.

        Args:
            decoder: As `Training`; it isn't changed.
            config: Hyperparameters.
            budget_tokens: At least 1.
            directory: Where checkpoints go; None writes none.
            mesh: Devices; None is one device.

        Raises:
            InputError: Weights that can't be trained, no budget, or checkpoints of another run.
        """
        if budget_tokens < 1:
            raise InputError(f"budget_tokens={budget_tokens}: at least 1")
        self.config = config
        self.budget_tokens = budget_tokens
        self.steps = self.tokens = self.truncated = 0
        self._training = Training(decoder, config, mesh)
        self._checkpoints = None if directory is None else Checkpoints(directory)
        self._saved_step = 0
        if self._checkpoints is not None and self._checkpoints.latest is not None:
            self._training.state, data = self._checkpoints.restore(self._training.state)
            if data["digest"] != self._digest():
                self._checkpoints.close()
                raise InputError(
                    f"{directory}: the checkpoints are of a run with other settings or another "
                    "budget; name another directory or delete them"
                )
            self.steps, self.tokens = int(data["step"]), int(data["tokens"])
            self.truncated = int(data["truncated"])
            self._saved_step = self.steps

    @property
    def decoder(self) -> Decoder:
        """As trained so far, adapters merged; use it before the next step, or copy it."""
        return self._training.models()[0]

    @property
    def progress(self) -> float:
        """Share of the budget that is used, in [0, 1]."""
        return self.tokens / self.budget_tokens

    def step(self, batch: Sequence[TokenPair]) -> StepMetrics | None:
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
            InputError: An example without room for its completion, an empty batch, or a loss that
                isn't finite.
        """
        if not batch:
            raise InputError(f"step {self.steps + 1}: a batch without examples")
        began = time.perf_counter()
        pairs: list[TokenPair] = []
        left = self.budget_tokens - self.tokens
        truncated = 0
        for number, pair in enumerate(batch):
            cut = self._cut(number, pair)
            if len(cut) > left:
                break
            left -= len(cut)
            truncated += len(cut) < len(pair)
            pairs.append(cut)
        if not pairs:
            return None
        if self.steps and self.steps % self.config.save_every == 0:
            self.save()
        tokens = sum(len(pair) for pair in pairs)
        rate = self.learning_rate((self.tokens + tokens / 2) / self.budget_tokens)
        values = self._training.step(self._pack(pairs), rate, self.steps + 1)
        self.steps += 1
        self.tokens += tokens
        self.truncated += truncated
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

    def learning_rate(self, progress: float) -> float:
        """Linear warm-up, then a cosine.

        Args:
            progress: Share of the budget at the middle of a step, in [0, 1].
        """
        config = self.config
        if progress < config.warmup_fraction:
            return config.learning_rate * progress / config.warmup_fraction
        done = (progress - config.warmup_fraction) / max(1 - config.warmup_fraction, 1e-9)
        cosine = (1 + math.cos(math.pi * min(done, 1.0))) / 2
        final = config.final_fraction
        return config.learning_rate * (final + (1 - final) * cosine)

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
        self._checkpoints.save(self.steps, self._training.state, data)
        self._saved_step = self.steps

    def close(self) -> None:
        """Wait for the checkpoint that is being written."""
        if self._checkpoints is not None:
            self._checkpoints.close()

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _cut(self, number: int, pair: TokenPair) -> TokenPair:
        room = self.config.row_length - len(pair.prompt)
        if room < 1 or not pair.prompt or not pair.completion:
            raise InputError(
                f"step {self.steps + 1}, example {number}: prompt of {len(pair.prompt)} and "
                f"completion of {len(pair.completion)} tokens; both need at least one, and "
                f"row_length={self.config.row_length} has to hold the prompt and part of the "
                "completion"
            )
        return TokenPair(pair.prompt, pair.completion[:room])

    def _pack(self, pairs: Sequence[TokenPair]) -> PackedRows:
        length = self.config.row_length
        packed = batching.pack_in_order([len(pair) for pair in pairs], length)
        rows = [[PrefixGroup(len(pairs[i].prompt), [i], len(pairs[i])) for i in r] for r in packed]
        scored = max(sum(len(pairs[i].completion) for i in row) for row in packed)
        return batching.build_rows(
            pairs,
            rows,
            length,
            # A multiple of the accumulation's parts, since the smallest is one and others are
            # `batch_rows` times 1.5, 2, 3 and so on, rounded up to one.
            -(-batching.row_bucket(len(rows), self.config.batch_rows) // self.config.accumulation)
            * self.config.accumulation,
            min(batching.row_bucket(scored, smallest=32), length),
        )

    def _digest(self) -> str:
        content: dict[str, Any] = {
            "config": dataclasses.asdict(self.config),
            "budget_tokens": self.budget_tokens,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
