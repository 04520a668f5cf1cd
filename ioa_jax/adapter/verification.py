"""What is to be verified, how, and what came of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ioa_jax.adapter.schema import Example, RejectReason
from ioa_jax.graders.base import Grader
from ioa_jax.sandbox import Sandbox
from ioa_jax.seeds import SeedItem

Undecided = Literal["solve", "accept", "reject"]


class VerificationSettings(BaseModel):
    """How examples are verified."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    on: bool = Field(default=True, description="False takes examples as the teacher wrote them.")
    undecided: Undecided = Field(
        default="solve",
        description=(
            "What becomes of an example that nothing but the teacher can decide: `solve` has it "
            "solved again, `accept` takes it as it is written, `reject` doesn't [ours]."
        ),
    )
    num_solutions: int = Field(
        default=1,
        ge=1,
        description="Independent solutions, of which more than half have to agree; of programs "
        "the example's own counts as one [ours].",
    )
    temperature: float = Field(default=0.0, ge=0, description="Of the solutions; 0 is greedy.")
    max_tokens: int = Field(default=512, ge=1, description="Of a solution.")

    @model_validator(mode="after")
    def _solutions_differ(self) -> VerificationSettings:
        if self.num_solutions > 1 and self.temperature == 0:
            raise ValueError("num_solutions > 1 needs a temperature > 0: greedy ones are all equal")
        return self


@dataclasses.dataclass(frozen=True)
class Checkers:
    """What examples are checked with; the caller's, which stay open.

    Attributes:
        graders: By the kind of check (`ioa_jax.graders.registry`), as the seeds need them.
        sandbox: For seeds whose check is `code`.
    """

    graders: Mapping[str, Grader]
    sandbox: Sandbox | None = None


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An example to be verified.

    Attributes:
        seed: Its seed, whose check decides the rule.
        example: What the teacher wrote.
        call_seeds: One an independent solution.
        answer: The solution as it was written, where that was as text.
    """

    seed: SeedItem
    example: Example
    call_seeds: tuple[int, ...]
    answer: str | None = None


@dataclasses.dataclass(frozen=True)
class Verification:
    """What came of a candidate.

    Attributes:
        reason: Why it isn't right; None if it is, or was accepted without being verified.
        verified_by: How it was found out, with the library's version.
        detail: In words; empty where there is nothing to say.
        tests: Of a program whose tests were rewritten with the values that were found, else None.
    """

    reason: RejectReason | None
    verified_by: str
    detail: str = ""
    tests: str | None = None


@dataclasses.dataclass(frozen=True)
class Verified:
    """What came of a batch of candidates.

    Attributes:
        found: One a candidate, None where the budget ended before it was known.
        exhausted: It did.
        tokens: That the teacher's solutions took.
    """

    found: tuple[Verification | None, ...]
    exhausted: bool = False
    tokens: int = 0
