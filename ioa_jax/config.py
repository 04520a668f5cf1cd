"""Settings of `ioa distill`, every field documented."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ioa_jax.adapter.settings import AdapterSettings
from ioa_jax.engine.training import LoRAConfig, TrainConfig
from ioa_jax.identifier.settings import DiagnoseSettings
from ioa_jax.models.precision import PrecisionName
from ioa_jax.organizer.zone import Reading, ZoneSettings
from ioa_jax.teachers.spend import Budget, Prices


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TeacherConfig(_Section):
    """Who teaches."""

    spec: str = Field(description="As `ioa_jax.teachers.spec.open_teacher` takes it.")
    settings: dict[str, Any] = Field(
        default_factory=dict[str, Any], description="Of the backend, such as batch_size."
    )
    prices: Prices | None = Field(default=None, description="What its tokens cost.")


class StudentConfig(_Section):
    """Who learns."""

    spec: str = Field(description="smollm2, gguf:FILE, a Hugging Face directory or hub id.")
    keep_layers: int | None = Field(
        default=None, ge=1, description="Keep as many layers, evenly spaced; null keeps all."
    )
    batch_size: int = Field(default=32, ge=1, description="Answers that are generated together.")


class BudgetConfig(_Section):
    """What the run may spend. Both limits are hard."""

    teacher_tokens: int | None = Field(
        default=None, ge=1, description="Tokens that the teacher generates; null is no limit."
    )
    teacher_cost: float | None = Field(
        default=None, ge=0, description="In the currency of the prices; null is no limit."
    )
    student_tokens: int = Field(
        default=500_000,
        ge=1,
        description="Tokens that the student is trained on, prompts included.",
    )
    count_interventions: bool = Field(
        default=True, description="The adapters of Eq. 3's population train on the same budget."
    )

    def teacher(self) -> Budget:
        """As the ledger takes it."""
        return Budget(max_tokens=self.teacher_tokens, max_cost=self.teacher_cost)


class OrganizerConfig(_Section):
    """When to teach what (Eq. 7 to 9)."""

    tau_zpd: float = Field(default=0.15, ge=0, le=1, description="τ_ZPD of Eq. 8.")
    reading: Reading = Field(default="drop", description="How Eq. 8 is read.")
    zone: bool = Field(default=True, description="Off: stages are the layers of Eq. 7 as they are.")
    tau_mastery: float = Field(default=0.9, gt=0, description="τ_mastery of Eq. 9.")
    gate: bool = Field(default=True, description="Off: every stage is followed by the next.")
    max_remedial_rounds: int = Field(default=5, ge=0, description="Before a module is parked.")
    remedial_share: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="Share of a stage's budgets that is kept for its remedial rounds; what they "
        "don't use goes to later stages.",
    )
    retention: bool = Field(
        default=True, description="Off: nothing mastered is measured again or replayed."
    )
    delta: float = Field(default=0.05, ge=0, description="δ: a fall below τ_mastery - δ counts.")
    stage_mode: Literal["pooled", "sequential"] = Field(
        default="pooled", description="How a stage trains (method 4)."
    )
    new_share: float = Field(
        default=0.5, gt=0, le=1, description="`pooled`: new material's share of a batch."
    )
    raise_factor: float = Field(
        default=3.0, ge=1, description="`pooled`: how much more often what fell is replayed."
    )
    rounds: int = Field(
        default=3, ge=1, description="How often the Identifier looks, while budget is left."
    )

    def zone_settings(self) -> ZoneSettings:
        """As the planner takes it; without the zone a bound that always holds."""
        return ZoneSettings(self.tau_zpd if self.zone else 1.0, self.reading)


class LoRASection(_Section):
    """Adapters to train instead of the weights."""

    rank: int = Field(default=16, ge=1, description="r.")
    alpha: float = Field(default=32.0, gt=0, description="Scale times r.")
    targets: str = Field(default="q|k|v|o", description="Expression over projection names.")


class TrainSection(_Section):
    """How the student trains (defaults: the paper's for the 3B class)."""

    learning_rate: float = Field(default=2e-5, gt=0, description="Peak of the cosine.")
    batch_size: int = Field(default=128, ge=1, description="Examples of an optimiser step.")
    epochs: int = Field(
        default=3,
        ge=1,
        description="Passes over a stage's own lessons; in `pooled` mode at most as many.",
    )
    batch_rows: int = Field(
        default=8, ge=1, description="Smallest number of packed rows of a step."
    )
    row_length: int = Field(default=2048, ge=2, description="Tokens of a row; longer is cut.")
    accumulation: int = Field(default=1, ge=1, description="Parts that a step is split into.")
    warmup_fraction: float = Field(default=0.03, ge=0, le=1, description="Of the budget.")
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW's, on matrices.")
    clip: float = Field(default=1.0, gt=0, description="Largest global gradient norm.")
    remat: str = Field(default="full", description="What the backward pass computes again.")
    save_every: int = Field(default=50, ge=1, description="Steps between checkpoints.")
    lora: LoRASection | None = Field(default=None, description="null trains every weight.")

    def train_config(self, seed: int) -> TrainConfig:
        """The engine's view."""
        fields = self.model_dump(exclude={"batch_size", "lora"})
        lora = None if self.lora is None else LoRAConfig(**self.lora.model_dump())
        return TrainConfig(**fields, lora=lora, seed=seed)


class LicenceConfig(_Section):
    """What the model card says; the project can't know it."""

    student: str = Field(default="not stated", description="Licence of the student's weights.")
    teacher: str = Field(default="not stated", description="Terms on the teacher's output.")
    seeds: str = Field(default="not stated", description="Licence of the seeds.")


class MethodConfig(_Section):
    """The method's own settings: what `distill` takes besides models, seeds and budgets."""

    diagnose: DiagnoseSettings = Field(default_factory=DiagnoseSettings)
    organizer: OrganizerConfig = Field(default_factory=OrganizerConfig)
    adapter: AdapterSettings = Field(default_factory=AdapterSettings)
    train: TrainSection = Field(default_factory=TrainSection)
    budget: BudgetConfig = Field(default_factory=BudgetConfig)
    seed: int = Field(default=0, ge=0, description="Of everything random.")


class DistillConfig(MethodConfig):
    """A run of `ioa distill`."""

    teacher: TeacherConfig
    student: StudentConfig
    seeds: Path = Field(description="JSONL file of seed tasks.")
    precision: PrecisionName = Field(default="bfloat16", description="Operands of products.")
    benchmarks: tuple[Path, ...] = Field(
        default=(),
        description="JSONL files whose texts no lesson may overlap with: your own test sets.",
    )
    ledger: Path | None = Field(
        default=None, description="Folder of teacher calls, shared between runs; null: in the run."
    )
    licences: LicenceConfig = Field(default_factory=LicenceConfig)

    def digest(self) -> str:
        """sha256 of the settings, whatever file and overrides they came from."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
