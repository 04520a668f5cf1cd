"""Options of a diagnosis, with the paper's thresholds as defaults (method 5)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ioa_jax.engine.training import LoRAConfig, TrainConfig
from ioa_jax.identifier.dependency import DependencySettings
from ioa_jax.identifier.gap import MIN_SHARE_RIGHT, TAU_GAP, BootstrapSettings
from ioa_jax.identifier.interventions import InterventionSettings
from ioa_jax.identifier.measure import ScorerName
from ioa_jax.identifier.rendering import Pack

DecomposerName = Literal["teacher", "metadata", "embedding", "random"]
AssignmentName = Literal["auto", "score", "choice", "name"]
EstimatorName = Literal["interventions", "snapshots", "teacher_prior"]
EstimatorChoice = Literal["auto", "interventions", "snapshots", "teacher_prior"]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DecomposeSettings(_Options):
    """Of method 1.1."""

    decomposer: DecomposerName = Field(
        default="teacher",
        description="Who finds the modules: the teacher; metadata, fields of the seeds; embedding, "
        "clusters of the teacher's hidden states; random, a control.",
    )
    fallback: Literal["metadata", "embedding", "random"] | None = Field(
        default=None,
        description="Decomposer where the teacher's JSON stays invalid; None stops the run.",
    )
    use_given: bool = Field(
        default=True,
        description="Seeds that name their module keep it (teacher and embedding).",
    )
    pack: Pack = Field(
        default="paper",
        description="Prompts: paper for large instruction-tuned models, micro for small ones.",
    )
    assignment: AssignmentName = Field(
        default="auto",
        description="How the teacher says which module is a seed's: score, by the likelihood of "
        "every module's name; choice, out of a list of them; name, by writing a name, proposed or "
        "not, for one that was taught the names; auto, score where the teacher can, else choice.",
    )
    batch_size: int = Field(default=8, ge=1, description="Seeds that one proposal reads.")
    max_batches: int = Field(
        default=16,
        ge=0,
        description="Proposals that are asked for; 0 needs the assignment name: the modules are "
        "those that seeds are named to be of, and no prerequisite is named.",
    )
    seed_characters: int = Field(
        default=1500, ge=1, description="A longer seed is cut where proposals read it."
    )
    max_tokens: int = Field(default=1024, ge=1, description="Of a proposal.")
    temperature: float = Field(default=0.7, ge=0, description="Of proposals.")
    max_retries: int = Field(default=2, ge=0, description="Further attempts of an answer.")
    repair: bool = Field(default=True, description="Repair small faults of JSON.")
    min_valid_batches: float = Field(
        default=0.5, gt=0, le=1, description="Share of the proposals that have to be valid."
    )
    min_votes: int = Field(
        default=1,
        ge=1,
        description="Proposals that a module has to be in, or seeds that are named to be of it.",
    )
    category_field: str = Field(default="subject", description="Of metadata.")
    module_field: str = Field(default="topic", description="Of metadata.")
    difficulty_field: str | None = Field(
        default=None, description="Of metadata; None: every module has difficulty 1."
    )
    num_modules: int = Field(default=10, ge=1, description="Of embedding and random.")
    min_seeds: int = Field(
        default=2, ge=1, description="A module with fewer synthesis seeds is merged [ours]."
    )
    min_probes: int = Field(
        default=2,
        ge=1,
        description="A module with fewer probes is merged; it has as many where that is at most "
        "half of its items, whatever probe_fraction says.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> DecomposeSettings:
        if self.decomposer == "teacher" and not self.max_batches and self.assignment != "name":
            raise ValueError(
                f"max_batches=0 with assignment={self.assignment}: without proposals the modules "
                "can only be named, set assignment to name"
            )
        return self


class MeasureSettings(_Options):
    """Of method 1.2."""

    scorer: ScorerName = Field(
        default="accuracy",
        description="What gaps are made of: accuracy, greedy answers checked; logprob, the "
        "probability of the reference answers.",
    )
    report_logprob: bool = Field(
        default=True,
        description="Measure by logprob beside accuracy, where the teacher can score.",
    )
    max_tokens: int = Field(default=512, ge=1, description="Of an answer.")
    teacher_probes: int | None = Field(
        default=None,
        ge=1,
        description="Probes of each module that the teacher answers, drawn by chance; None: all. "
        "The student answers all.",
    )
    threads: int = Field(default=4, ge=1, description="Answers that are graded at a time.")
    allow_weak_sandbox: bool = Field(
        default=False, description="Run programs where they can't be isolated fully."
    )


class DependencyOptions(_Options):
    """Of method 1.5. `interventions` and `snapshots` need a teacher that can score."""

    estimator: EstimatorChoice = Field(
        default="auto",
        description="Where the population of Eq. 3 comes from: interventions, one adapter a "
        "module; snapshots, one adapter on all modules; teacher_prior, no population: what the "
        "teacher named, at no student tokens; auto [ours], interventions where the student's "
        "budget is at least interventions_from and the teacher can score, else teacher_prior.",
    )
    interventions_from: int = Field(
        default=20_000_000,
        ge=0,
        description="Student tokens of the whole run from which auto chooses interventions. With "
        "the settings below these take up to 12,288 tokens a module, so that with 40 modules they "
        "are at most 2.5 % of such a budget [ours].",
    )
    tau_high: float = Field(default=0.9, description="τ_high of Eq. 3.")
    tau_low: float = Field(default=0.7, description="τ_low of Eq. 3.")
    tau_dep: float = Field(default=0.3, ge=0, le=1, description="τ_dep of Eq. 3.")
    epsilon: float = Field(default=1e-8, gt=0, description="ε of Eq. 3.")
    min_states: int = Field(default=2, ge=1, description="States on each side of Eq. 3 [ours].")
    min_probes: int = Field(
        default=5,
        ge=1,
        description="Probes of both modules without which Eq. 3 isn't estimated, and a dependency "
        "is what the teacher named [ours].",
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="Of the adapters.")
    lora_rank: int = Field(default=8, ge=1, description="r of the adapters.")
    lora_alpha: float = Field(default=16.0, gt=0, description="Scale of the adapters times r.")
    lora_targets: str = Field(default="q|k|v|o", description="Projections with adapters.")
    batch_rows: int = Field(default=2, ge=1, description="Rows of one step of an adapter.")
    row_length: int = Field(
        default=512, ge=2, description="Tokens of a row; seeds with longer prompts are left out."
    )
    steps: int = Field(default=12, ge=1, description="Steps of each adapter.")
    snapshots: int = Field(default=3, ge=1, description="States of each adapter.")
    modules_at_once: int = Field(default=8, ge=1, description="Adapters trained together.")
    warm_up_steps: int = Field(default=48, ge=1, description="Steps of the estimator snapshots.")
    warm_up_snapshots: int = Field(default=12, ge=1, description="States of that estimator.")

    @model_validator(mode="after")
    def _consistent(self) -> DependencyOptions:
        if self.tau_low > self.tau_high:
            raise ValueError(f"tau_low={self.tau_low} is above tau_high={self.tau_high}")
        if self.snapshots > self.steps or self.warm_up_snapshots > self.warm_up_steps:
            raise ValueError("more snapshots than steps")
        return self

    def conditionals(self) -> DependencySettings:
        """Of Eq. 3."""
        return DependencySettings(
            self.tau_high,
            self.tau_low,
            self.tau_dep,
            self.epsilon,
            self.min_states,
            self.min_probes,
        )

    def choose(self, can_score: bool, student_tokens: int | None) -> tuple[EstimatorName, str]:
        """The estimator, and why it is this one [ours].

        Args:
            can_score: Whether the teacher gives log-probabilities of texts.
            student_tokens: The run's budget; None where it isn't known.
        """
        if self.estimator != "auto":
            return self.estimator, "the settings name it"
        if not can_score:
            return "teacher_prior", "the teacher gives no log-probabilities of texts"
        if student_tokens is None:
            return "teacher_prior", "the student's budget isn't known, and this costs none of it"
        budget = f"the student's budget of {student_tokens:,} tokens is"
        if student_tokens < self.interventions_from:
            return (
                "teacher_prior",
                f"{budget} under interventions_from={self.interventions_from:,}",
            )
        return (
            "interventions",
            f"{budget} at least interventions_from={self.interventions_from:,}",
        )

    def training(self, estimator: EstimatorName, seed: int) -> InterventionSettings:
        """Of the adapters of an estimator."""
        mixed = estimator == "snapshots"
        return InterventionSettings(
            train=TrainConfig(
                learning_rate=self.learning_rate,
                batch_rows=self.batch_rows,
                row_length=self.row_length,
                seed=seed,
                lora=LoRAConfig(self.lora_rank, self.lora_alpha, self.lora_targets),
            ),
            steps=self.warm_up_steps if mixed else self.steps,
            snapshots=self.warm_up_snapshots if mixed else self.snapshots,
            modules_at_once=self.modules_at_once,
        )


class DiagnoseSettings(_Options):
    """Of a diagnosis (method 1)."""

    decompose: DecomposeSettings = Field(
        default_factory=DecomposeSettings, description="How modules are found."
    )
    measure: MeasureSettings = Field(
        default_factory=MeasureSettings, description="How teacher and student are measured."
    )
    dependencies: DependencyOptions = Field(
        default_factory=DependencyOptions, description="How dependencies are estimated."
    )
    probe_fraction: float = Field(
        default=0.2, gt=0, lt=1, description="Share of the seeds that are held out as probes."
    )
    tau_gap: float = Field(
        default=TAU_GAP,
        description="τ_gap of Eq. 6: by default a student under .72 of its teacher lacks a module "
        "[ours; the paper has .3].",
    )
    confident_gap: bool = Field(
        default=False, description="The gap's interval has to lie above τ_gap too [ours]."
    )
    min_teacher_performance: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description=f"P_T under which a module is excluded: it isn't taught. None: "
        f"{MIN_SHARE_RIGHT} where the teacher's answers are right or wrong, since most lessons of "
        "such a module would be thrown away, and 0 where they are graded in between (ROUGE, "
        "log-probabilities), which has no such scale [ours].",
    )
    alpha: float = Field(default=0.7, ge=0, le=1, description="The gap's weight in Eq. 4.")
    target_fraction: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="m of Eq. 5 over |K|; None: every deficient module is a target [ours].",
    )
    min_gate_probes: int = Field(
        default=40,
        ge=1,
        description="Probes of a module that a gate measures on: with 8 a student with a true r of "
        ".95 passes a stage of ten modules once in sixty times. Where seeds give fewer, the "
        "teacher writes and verifies the others [ours].",
    )
    gate_probe_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Share of the teacher's tokens that writing those may take [ours].",
    )
    resamples: int = Field(default=1000, ge=1, description="Draws of the intervals.")
    level: float = Field(default=0.95, gt=0, lt=1, description="Of the intervals.")

    def bootstrap(self, seed: int) -> BootstrapSettings:
        """Number of draws, level and seed of the intervals."""
        return BootstrapSettings(self.resamples, self.level, seed)
