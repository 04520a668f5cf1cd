"""Hyperparameters of a training run, and the learning rate that follows from them."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Literal

from ioa_jax.engine.optimizer import StepSettings
from ioa_jax.errors import InputError
from ioa_jax.models.decoder import REMAT_POLICIES

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

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise InputError(f"rank={self.rank}: at least 1")
        if not 0 < self.alpha < math.inf:
            raise InputError(f"alpha={self.alpha}: a number above 0")
        try:
            re.compile(self.targets)
        except re.error as error:
            raise InputError(f"targets={self.targets!r}: no regular expression: {error}") from None


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
        for field, most in (
            ("warmup_fraction", 1),
            ("final_fraction", 1),
            ("beta1", 1),
            ("beta2", 1),
            ("weight_decay", 1e3),
            ("retention_weight", 1e6),
        ):
            if not 0 <= getattr(self, field) <= most:
                raise InputError(f"{field}={getattr(self, field)}: from 0 to {most:g}")
        if not 0 < self.clip < math.inf:
            raise InputError(f"clip={self.clip}: a number above 0")
        if self.seed < 0:
            raise InputError(f"seed={self.seed}: at least 0")
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
        # Of several rows, one at least is left for what is to be learnt.
        most = self.batch_rows - 1 if self.batch_rows > 1 else 1
        return min(math.ceil(self.retained_share * self.batch_rows), most)

    @property
    def needs_student_before(self) -> bool:
        """Whether a step looks at what the student was before training."""
        return self.retained_rows > 0 and self.retention == "divergence"

    def step_settings(self) -> StepSettings:
        """The part that a compiled step depends on."""
        # Settings that a step doesn't use are at one value, so that runs share its program.
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
