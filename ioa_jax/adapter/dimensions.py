"""The five dimensions of the Adapter (method 3): what is asked for, and what came of it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Template = Literal["labelled", "numbered", "lines"]


class DimensionSettings(BaseModel):
    """Which dimensions are asked of the teacher. With all off, nothing is adapted."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    concretization: bool = Field(default=True, description="An everyday analogy before symbols.")
    decomposition: bool = Field(default=True, description="Small explicit steps.")
    cognitive_load: bool = Field(default=True, description="Small numbers and few operands first.")
    format: bool = Field(default=True, description="Steps by one fixed template.")
    language: bool = Field(default=True, description="Short sentences, plain words.")
    template: Template = Field(
        default="numbered",
        description=(
            "Template of the steps: `labelled` begins each with Extract, Relate, Set up, Solve or "
            "Verify, in this order; `numbered` counts them; `lines` has one a line."
        ),
    )


# Nothing is adapted: the control that shows what the dimensions add.
PLAIN = DimensionSettings(
    concretization=False, decomposition=False, cognitive_load=False, format=False, language=False
)
