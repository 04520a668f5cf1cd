"""What calls of a teacher take, what that costs, and how much a run may use."""

from __future__ import annotations

import dataclasses
import datetime

from pydantic import BaseModel, ConfigDict, Field

from ioa_jax.errors import IOAError


class BudgetExceeded(IOAError):
    """The next call could cost more than is left; what was recorded before it stays usable."""

    exit_code = 6


class Budget(BaseModel):
    """Hard limits of one run.

    A run's use counts each call once, replayed or paid: so a run that was cut off and goes on, or
    that finds its calls in a ledger shared with others, stops where it would have stopped alone.

    Where a server finishes a character beyond `max_tokens` of a call, its tokens are counted, and
    may exceed the limit by 3 for each call that was under way.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    max_tokens: int | None = Field(default=None, ge=0, description="Generated tokens.")
    max_cost: float | None = Field(default=None, ge=0, description="In the currency of the prices.")


class Prices(BaseModel):
    """What a teacher's tokens cost."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    prompt: float = Field(ge=0, description="Of a million prompt tokens.")
    completion: float = Field(ge=0, description="Of a million generated tokens.")
    currency: str = Field(default="USD", description="Of both.")
    as_of: datetime.date = Field(description="Day on which the price list said so.")

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Cost of a call, in `currency`."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


@dataclasses.dataclass(frozen=True)
class Usage:
    """Calls and what they took.

    Attributes:
        calls: Number of calls.
        prompt_tokens: Tokens read.
        completion_tokens: Tokens generated.
        cost: In the currency of the prices; None without prices.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None

    def __add__(self, other: Usage) -> Usage:
        costs = [cost for cost in (self.cost, other.cost) if cost is not None]
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            sum(costs) if costs else None,
        )


@dataclasses.dataclass(frozen=True)
class Spend:
    """What a run used for one purpose. Each distinct call counts once.

    Attributes:
        called: Answered by the teacher in this process.
        replayed: Found in the ledger.
    """

    called: Usage = Usage()
    replayed: Usage = Usage()

    @property
    def used(self) -> Usage:
        """Both together: what a budget limits."""
        return self.called + self.replayed


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a list of requests would take.

    Attributes:
        replayed: Calls that the ledger has.
        called: Calls to come, at the most that each can take.
    """

    replayed: Usage
    called: Usage
