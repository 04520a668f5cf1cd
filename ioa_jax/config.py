"""Settings of `ioa distill`, every field documented."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ioa_jax.adapter.settings import AdapterSettings
from ioa_jax.engine.training import LoRAConfig, TrainConfig
from ioa_jax.identifier.settings import DiagnoseSettings
from ioa_jax.models.precision import PrecisionName
from ioa_jax.organizer.mastery import GateName, GateSettings
from ioa_jax.organizer.zone import Reading, ZoneSettings
from ioa_jax.teachers.spend import Budget, Prices


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# Of each stage in `pooled`: when it is first trained, after the first pass, and at the end.
POOLED_GATES = 3


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


class RetentionConfig(_Section):
    """How what the student can do already is kept [ours: the paper leaves forgetting open]."""

    kind: Literal["self_distillation", "replay", "off"] = Field(
        default="self_distillation",
        description="Of every module that isn't taught: self_distillation, the student as it was "
        "answers its seeds' prompts and further problems, and training keeps it near those answers "
        "by λ · KL(before ‖ now); replay, it is trained on its seeds' references; off, nothing.",
    )
    weight: float = Field(default=4.0, ge=0, description="λ.")
    share: float = Field(
        default=0.65,
        ge=0,
        lt=1,
        description="Retained examples' share of the training rows, times the share of the "
        "modules that aren't taught.",
    )
    teacher_share: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="Share of the teacher's tokens for further problems of these modules, without "
        "answers; none where these tokens have no limit.",
    )
    variants: int = Field(
        default=8,
        ge=0,
        description="Further prompts of each seed for self_distillation, which cost nothing: with "
        "other numbers, and words of the module's other prompts. They need no right answer.",
    )


class OrganizerConfig(_Section):
    """When to teach what (Eq. 7 to 9)."""

    stage_mode: Literal["pooled", "sequential"] = Field(
        default="pooled",
        description="pooled [ours]: most examples are written before training, a short first pass "
        "goes through the stages, each with what came before, the gates decide what the kept "
        "tokens are for, and a consolidation over everything has the rest, under one schedule; "
        "sequential: the paper read literally, each stage alone, in epochs, until its gate is "
        "passed.",
    )
    tau_zpd: float = Field(default=0.15, ge=0, le=1, description="τ_ZPD of Eq. 8.")
    reading: Reading = Field(default="drop", description="How Eq. 8 is read.")
    zone: bool = Field(default=True, description="Off: stages are the layers of Eq. 7 as they are.")
    max_stage_modules: int | None = Field(
        default=4, ge=1, description="Modules of a stage [ours]; null is no limit."
    )
    tau_mastery: float = Field(default=0.9, gt=0, description="τ_mastery of Eq. 9.")
    gate: GateName = Field(
        default="posterior",
        description="When a module passes: posterior [ours], r(k) ≥ τ_mastery is at least as "
        "likely as not, given the probes; literal, r(k) as measured; off, always.",
    )
    prior: tuple[float, float] = Field(
        default=(1.0, 1.0),
        description="a and b of the gate's Beta prior; (1, 1) is uniform [ours].",
    )
    first_pass_share: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="`pooled`: share of the student's tokens for the pass through the stages, in "
        "proportion to each stage's examples; 0 trains on everything at once [ours].",
    )
    late_share: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="`pooled`: share of the examples' tokens that is kept for what fails its gate "
        "[ours].",
    )
    max_remedial_rounds: int = Field(
        default=5, ge=0, description="`sequential`: before a module is parked [ours]."
    )
    remedial_share: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="`sequential`: share of a stage's teacher tokens that is kept for its remedial "
        "rounds; what they don't use goes to later stages [ours].",
    )
    references: bool = Field(
        default=True,
        description="Train on the references of the taught modules' seeds too, which cost nothing "
        "[ours].",
    )
    retention: RetentionConfig = Field(
        default_factory=RetentionConfig,
        description="How what the student can do already is kept [ours: the paper leaves "
        "forgetting open].",
    )
    average: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(1.0,),
        min_length=1,
        description="s of the final weights, before + s · (after - before); of several the one "
        "that is best on the probes [ours].",
    )
    keep: Literal["best", "last"] = Field(
        default="best",
        description="best: a student that ends below where it began on the probes is given back "
        "as it was [ours].",
    )

    def zone_settings(self) -> ZoneSettings:
        """As the planner takes it; without the zone a bound that always holds."""
        return ZoneSettings(
            self.tau_zpd if self.zone else 1.0, self.reading, self.max_stage_modules
        )

    def gate_settings(self) -> GateSettings:
        """As the gates take it; `pooled` judges after a stage, the first pass and at the end."""
        rounds = self.max_remedial_rounds if self.stage_mode == "sequential" else POOLED_GATES - 1
        return GateSettings(self.tau_mastery, rounds, self.gate, self.prior)


class LoRASection(_Section):
    """Adapters to train instead of the weights."""

    rank: int = Field(default=16, ge=1, description="r.")
    alpha: float = Field(default=32.0, gt=0, description="Scale times r.")
    targets: str = Field(default="q|k|v|o", description="Expression over projection names.")


class TrainSection(_Section):
    """How the student trains (defaults: the paper's for the 3B class)."""

    learning_rate: float = Field(default=2e-5, gt=0, description="Peak of the cosine.")
    epochs: int = Field(
        default=3, ge=1, description="`sequential`: passes over a stage's own examples."
    )
    batch_rows: int = Field(default=8, ge=1, description="Packed sequences of an optimiser step.")
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
        fields = self.model_dump(exclude={"lora"})
        lora = None if self.lora is None else LoRAConfig(**self.lora.model_dump())
        return TrainConfig(**fields, lora=lora, seed=seed)


class LicenceConfig(_Section):
    """What the model card says; the project can't know it."""

    student: str = Field(default="not stated", description="Licence of the student's weights.")
    teacher: str = Field(default="not stated", description="Terms on the teacher's output.")
    seeds: str = Field(default="not stated", description="Licence of the seeds.")


class MethodConfig(_Section):
    """The method's own settings: what `distill` takes besides models, seeds and budgets."""

    diagnose: DiagnoseSettings = Field(
        default_factory=DiagnoseSettings, description="What the student lacks (Eq. 2 to 6)."
    )
    organizer: OrganizerConfig = Field(
        default_factory=OrganizerConfig, description="When to teach what (Eq. 7 to 9)."
    )
    adapter: AdapterSettings = Field(
        default_factory=AdapterSettings, description="How examples are written (Eq. 1)."
    )
    train: TrainSection = Field(
        default_factory=TrainSection,
        description="How the student trains (defaults: the paper's for the 3B class).",
    )
    budget: BudgetConfig = Field(
        default_factory=BudgetConfig,
        description="What the run may spend; both limits are hard [ours].",
    )
    seed: int = Field(default=0, ge=0, description="Of everything random.")

    @model_validator(mode="after")
    def _probes_can_be_verified(self) -> MethodConfig:
        # Known only after the diagnosis was paid for, else.
        pooled = self.organizer.stage_mode == "pooled"
        if pooled and self.diagnose.gate_probe_share > 0 and not self.adapter.verification.on:
            raise ValueError(
                "adapter.verification.on=false: probes that the teacher writes have to be "
                "verified; set diagnose.gate_probe_share=0 too, and it writes none"
            )
        return self


class DistillConfig(MethodConfig):
    """A run of `ioa distill`."""

    teacher: TeacherConfig = Field(description="Who teaches.")
    student: StudentConfig = Field(description="Who learns.")
    seeds: Path = Field(description="JSONL file of seed tasks.")
    precision: PrecisionName = Field(default="bfloat16", description="Operands of products.")
    benchmarks: tuple[Path, ...] = Field(
        default=(),
        description="JSONL files whose texts no lesson may overlap with: your own test sets.",
    )
    ledger: Path | None = Field(
        default=None, description="Folder of teacher calls, shared between runs; null: in the run."
    )
    baseline: bool = Field(
        default=True,
        description="Train a second student on the seeds' references alone, with the same tokens, "
        "and report it.",
    )
    licences: LicenceConfig = Field(
        default_factory=LicenceConfig,
        description="What the model card says; the project can't know it.",
    )

    def digest(self) -> str:
        """sha256 of the settings, whatever file and overrides they came from."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
