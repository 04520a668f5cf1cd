"""How the Adapter works (method 3)."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ioa_jax.adapter.dimensions import DimensionSettings, Template, operands
from ioa_jax.adapter.duplicates import DUPLICATE_SIMILARITY
from ioa_jax.adapter.render import AnswerForm, Pack
from ioa_jax.adapter.schema import LEVELS, Level, StageKind
from ioa_jax.adapter.stage import check_shares
from ioa_jax.adapter.units import LevelOrder
from ioa_jax.adapter.verification import VerificationSettings
from ioa_jax.errors import InputError
from ioa_jax.seeds import SeedItem

Protocol = Literal["lean", "few_shot", "schema"]


class NllZone(BaseModel):
    """The student's zone: how surprising an answer may be to it [ours]."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
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

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    protocol: Protocol = Field(
        default="lean",
        description=(
            "What the teacher writes. `lean`: what it alone knows; in the pack `paper` problem, "
            "solution and tests as plain text, in `micro` a problem and then, in a second call, "
            "its answer. `few_shot`: the same as plain text, by going on after three seeds of the "
            "module, for teachers that don't follow instructions. Both are [ours]. `schema`: the "
            "whole record as JSON."
        ),
    )
    pack: Pack = Field(
        default="paper",
        description="Prompts: `paper` for large instruct models, `micro` for a short context.",
    )
    form: AnswerForm = Field(
        default="json",
        description=(
            "Of `schema`: `json` shows the teacher the schema or a seed written in it; `none` "
            "doesn't, for a teacher that was trained on it."
        ),
    )
    examples_per_seed: int = Field(default=10, ge=1, description="J of Eq. 1.")
    examples_per_call: int = Field(
        default=1,
        ge=1,
        description="Of these, how many one call is to write; more than one in `schema` alone.",
    )
    rewrites: int = Field(
        default=1,
        ge=1,
        description="Calls for the same examples, of which the best are kept (see `zone`) [ours].",
    )
    max_retries: int = Field(
        default=2, ge=0, description="Regenerations of what was rejected, at most."
    )
    temperature: float = Field(default=0.7, ge=0, description="Of the teacher.")
    answer_temperature: float = Field(
        default=0.0, ge=0, description="Of the second call of `lean` in `micro`; 0 is greedy."
    )
    max_tokens: int = Field(default=1024, ge=1, description="Of one answer of the teacher.")
    max_problem_tokens: int = Field(
        default=256, ge=1, description="Of a problem that is asked for alone."
    )
    calls_per_round: int = Field(
        default=256,
        ge=1,
        description=(
            "Calls that go to the teacher in one batch. What a batch brought is verified before "
            "the next, so a budget that ends loses one batch at most."
        ),
    )
    lesson_tokens: int = Field(
        default=200,
        ge=1,
        description=(
            "What a lesson is thought to take of a request's tokens before the first was written; "
            "then the mean so far holds."
        ),
    )
    give_up_after: int = Field(
        default=3,
        ge=1,
        description="Batches in a row without a lesson of a module, after which it is excluded "
        "[ours].",
    )
    levels: dict[Level, float] = Field(
        default={"introductory": 0.25, "intermediate": 0.5, "advanced": 0.25},
        description=(
            "Shares of the difficulties. In `lean` and `few_shot` they are relative to the seed's: "
            "introductory is a notch easier, advanced a notch harder [ours]."
        ),
    )
    level_order: LevelOrder = Field(
        default="shares",
        description=(
            "`shares` [ours]: the lessons so far cover the range at any time. `easy_first`: every "
            "seed's easiest level before any seed's next one, regardless of the shares."
        ),
    )
    dimensions: DimensionSettings = Field(
        default=DimensionSettings(), description="What is asked of the teacher's style."
    )
    styled_share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Share of the examples for which `concretization` and `language` are asked "
        "[ours; the paper asks for all].",
    )
    decompose_below: float = Field(
        default=0.0,
        ge=0,
        description=(
            "In `lean`, a student with an r(k) up to this is shown smaller steps than the "
            "references have; others at most as many [ours]."
        ),
    )
    form_by_student: bool = Field(
        default=True,
        description=(
            "Answers have the form that the student finds likeliest (`choose_forms`) [ours]; off, "
            "that of `dimensions.template`."
        ),
    )
    steps: bool = Field(default=True, description="The student learns to write the steps too.")
    verification: VerificationSettings = Field(
        default=VerificationSettings(), description="How examples are checked."
    )
    zone: NllZone | None = Field(
        default=None,
        description=(
            "Of the rewrites that verify, keep those inside that surprise the student least; None "
            "keeps the first [ours]."
        ),
    )
    size_caps: dict[Level, int | None] = Field(
        default={"introductory": 20, "intermediate": 100, "advanced": None},
        description=(
            "Of `schema`: largest number in a problem, by level, for maths with `cognitive_load` "
            "on; none where it is None. Numbers as large as the seed's are allowed [ours]."
        ),
    )
    step_caps: dict[Level, int | None] = Field(
        default={"introductory": 8, "intermediate": 12, "advanced": None},
        description=(
            "Of `schema`: most steps, by level, with `cognitive_load` on; none where it is None "
            "[ours]."
        ),
    )
    remedial_scale: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Of `schema`: factor of the largest number in remedial material [ours].",
    )
    duplicate_similarity: float = Field(
        default=DUPLICATE_SIMILARITY,
        gt=0,
        lt=1,
        description="From which Jaccard similarity on problems are near duplicates [ours].",
    )

    @model_validator(mode="after")
    def _calls_can_be_made(self) -> AdapterSettings:
        if self.protocol != "schema" and self.examples_per_call > 1:
            raise ValueError(
                f"examples_per_call={self.examples_per_call}: the protocol {self.protocol!r} has "
                "one example a call"
            )
        try:
            check_shares(self.levels, "levels")
        except InputError as error:
            raise ValueError(str(error)) from None
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
    def two_calls(self) -> bool:
        """A problem alone and then its answer."""
        return self.protocol == "lean" and self.pack == "micro"

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
        if cap is None or not self.dimensions.cognitive_load or seed.kind not in ("math", "number"):
            return None
        largest = max([float(cap), *operands(seed.prompt)])
        return math.ceil(largest * self.remedial_scale if kind == "remedial" else largest)

    def step_cap(self, level: Level) -> int | None:
        """Most steps that a solution may have; None for no limit."""
        return self.step_caps[level] if self.dimensions.cognitive_load else None
