"""How the Adapter works (method 3)."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ioa_jax.adapter.dimensions import DimensionSettings, Template, operands
from ioa_jax.adapter.duplicates import DUPLICATE_SIMILARITY
from ioa_jax.adapter.render import AnswerForm, Pack
from ioa_jax.adapter.schema import LEVELS, Level, StageKind
from ioa_jax.adapter.verify import VerificationSettings
from ioa_jax.seeds import SeedItem


class NllZone(BaseModel):
    """The student's zone: how surprising an answer may be to it [ours]."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    low: float = Field(
        default=0.05, ge=0, description="Nats per token; below, the student knows it already."
    )
    high: float = Field(default=3.0, gt=0, description="Nats per token; above, it is too far off.")

    @model_validator(mode="after")
    def _in_order(self) -> NllZone:
        if self.low >= self.high:
            raise ValueError(f"low={self.low} has to be less than high={self.high}")
        return self


class AdapterSettings(BaseModel):
    """Of all stages."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    pack: Pack = Field(
        default="paper",
        description="Prompts: `paper` for large instruct models, `micro` for a short context.",
    )
    form: AnswerForm = Field(
        default="json",
        description=(
            "What the teacher answers in: `json`, whose schema or form it is shown; `text` with "
            "labels, for a small teacher that writes poor JSON (of the pack `micro`); `none`, JSON "
            "without being shown it, for a teacher that was trained on it."
        ),
    )
    examples_per_seed: int = Field(default=10, ge=1, description="J of Eq. 1.")
    examples_per_call: int = Field(
        default=1, ge=1, description="Of these, how many one call of the teacher is to write."
    )
    rewrites: int = Field(
        default=1,
        ge=1,
        description="Calls for the same examples, of which the best are kept (see `zone`).",
    )
    max_retries: int = Field(
        default=2, ge=0, description="Regenerations of what was rejected, at most."
    )
    temperature: float = Field(default=0.7, ge=0, description="Of the teacher.")
    max_tokens: int = Field(default=1024, ge=1, description="Of one answer of the teacher.")
    calls_per_round: int = Field(
        default=128,
        ge=1,
        description=(
            "Calls that go to the teacher in one batch. What a batch brought is verified before "
            "the next, so a budget that ends loses one batch at most."
        ),
    )
    dimensions: DimensionSettings = Field(
        default=DimensionSettings(), description="What is asked of the teacher's style."
    )
    steps: bool = Field(default=True, description="The student learns to write the steps too.")
    verification: VerificationSettings = Field(
        default=VerificationSettings(), description="How examples are checked."
    )
    zone: NllZone | None = Field(
        default=None,
        description=(
            "Of the rewrites that verify, keep those inside that surprise the student least; None "
            "keeps the first."
        ),
    )
    size_caps: dict[Level, int | None] = Field(
        default={"introductory": 20, "intermediate": 100, "advanced": None},
        description=(
            "Largest number in a problem, by level, for maths with `cognitive_load` on; none where "
            "it is None. Numbers as large as the seed's are allowed."
        ),
    )
    step_caps: dict[Level, int | None] = Field(
        default={"introductory": 8, "intermediate": 12, "advanced": None},
        description="Most steps, by level, with `cognitive_load` on; none where it is None.",
    )
    remedial_scale: float = Field(
        default=0.5, gt=0, le=1, description="Factor of the largest number in remedial material."
    )
    check_module: bool = Field(
        default=True,
        description=(
            "Reject an example that names another module than asked for. Off where the modules' "
            "names say nothing, as those of random ones: a teacher may name what it recognises."
        ),
    )
    duplicate_similarity: float = Field(
        default=DUPLICATE_SIMILARITY,
        gt=0,
        lt=1,
        description="From which Jaccard similarity on problems are near duplicates.",
    )

    @model_validator(mode="after")
    def _pack_has_form(self) -> AdapterSettings:
        if self.form == "text" and self.pack != "micro":
            raise ValueError(f"form 'text' is of the pack 'micro', and the pack is {self.pack!r}")
        return self

    @model_validator(mode="after")
    def _caps_of_all_levels(self) -> AdapterSettings:
        for name, caps in (("size_caps", self.size_caps), ("step_caps", self.step_caps)):
            for level in LEVELS:
                if level not in caps:
                    raise ValueError(f"{name} has no {level!r}")
                cap = caps[level]
                if cap is not None and cap < 1:
                    raise ValueError(f"{name}: {level!r}: {cap}: at least 1")
        return self

    @property
    def answer_template(self) -> Template:
        """How steps are written for the student: as they come where no format is asked for."""
        return self.dimensions.template if self.dimensions.format else "lines"

    def size_cap(self, seed: SeedItem, level: Level, kind: StageKind) -> int | None:
        """Largest number that a problem may have; None for no limit.

        The level's cap or the largest number of the seed's task, whichever is larger; for remedial
        material times `remedial_scale`, rounded up.
        """
        cap = self.size_caps[level]
        if cap is None or not self.dimensions.cognitive_load or seed.domain != "math":
            return None
        largest = max([float(cap), *operands(seed.prompt)])
        return math.ceil(largest * self.remedial_scale if kind == "remedial" else largest)

    def step_cap(self, level: Level) -> int | None:
        """Most steps that a solution may have; None for no limit."""
        return self.step_caps[level] if self.dimensions.cognitive_load else None
