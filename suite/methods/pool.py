"""Controls over what the cell of `ioa` with the same seed wrote, in another order.

Paper: He et al., 2026 (arXiv 2602.12172); controls that its reviewers asked for.
Loop: the pool is every lesson of that cell and the references that it trains on beside them; what
it retains is retained here too. Nothing is asked of the teacher. Shuffled, the pool is trained on
as any data are. Ordered by difficulty, it is cut into parts of equal tokens; each in turn has an
equal share of the student's budget, under one schedule.
Departures: a lesson is as easy as its module was for the student before (P_S), then as its
difficulty says; the paper has no such controls to depart from. Teacher tokens are those of the
pool's cell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal

from ioa_jax.adapter.schema import LEVELS
from ioa_jax.engine.batching import TokenPair
from ioa_jax.engine.training import Batch, TrainConfig, endless_batches
from ioa_jax.files import read_json, read_value
from ioa_jax.identifier.diagnosis import Diagnosis
from ioa_jax.jsonl import read_objects
from suite.methods.base import MethodContext, MethodResult, as_chat, fine_tune, fits, token_count
from suite.methods.retained import needed_cell, read_retention

Order = Literal["shuffled", "easy_to_hard", "hard_to_easy"]
POOL = "ioa"
PARTS = 8


@dataclasses.dataclass(frozen=True)
class Taught:
    """An example of the pool.

    Attributes:
        pair: Tokenised.
        performance: P_S of its module before.
        level: Difficulty from 0, the easiest.
    """

    pair: TokenPair
    performance: float
    level: int


class PoolControl:
    """The pool of `ioa`, in an order."""

    needs: tuple[str, ...] = (POOL,)

    def __init__(self, summary: str, order: Order) -> None:
        """Both as they say."""
        self.summary = summary
        self._order: Order = order

    def run(self, context: MethodContext) -> MethodResult:
        context = dataclasses.replace(context, retention=read_retention(context, POOL))
        pool = read_pool(context)
        pairs = [one.pair for one in pool]
        supply = None
        if self._order != "shuffled":
            easy_first = sorted(pool, key=lambda one: (-one.performance, one.level))
            ordered = easy_first if self._order == "easy_to_hard" else easy_first[::-1]
            supply = parts_in_turn(
                [one.pair for one in ordered],
                context.train_config(),
                context.budgets.student_tokens,
                context.retention.pairs,
            )
        student = fine_tune(context, pairs, supply=supply)
        return MethodResult(student, {"examples": len(pool)}, teacher_of=POOL)


def read_pool(context: MethodContext) -> list[Taught]:
    """What the cell of `ioa` trained on, but for what it retained.

    Raises:
        InputError: The run has no `ioa`, or its cell isn't complete.
    """
    folder = needed_cell(context, POOL) / "distill"
    diagnosis = read_value(folder / "diagnosis.json", Diagnosis)
    performance = diagnosis.student_performance()
    pool = [
        Taught(
            context.student.answer_pair(as_chat(lesson["prompt"]), lesson["answer"]),
            performance[lesson["module"]],
            LEVELS.index(lesson["example"]["difficulty_tag"]),
        )
        for _, lesson in read_objects(folder / "lessons.jsonl")
    ]
    if read_json(folder / "record.json")["config"]["organizer"]["references"]:
        seeds = diagnosis.select(context.seeds, "seed")
        pool += [
            Taught(
                context.student.answer_pair(seed.messages, seed.reference),
                performance[module],
                LEVELS.index("intermediate"),
            )
            for module in diagnosis.targets.modules
            for seed in seeds[module]
        ]
    return [one for one in pool if fits(context, one.pair)]


def parts_in_turn(
    ordered: Sequence[TokenPair],
    config: TrainConfig,
    budget_tokens: int,
    retained: Sequence[TokenPair] = (),
) -> Iterator[Batch]:
    """Batches of one part after the other, each for its share of the budget; the last goes on.

    Args:
        ordered: The pool, in its order.
        config: Of the training.
        budget_tokens: Of the whole.
        retained: In every part.
    """
    parts: list[list[TokenPair]] = [[] for _ in range(PARTS)]
    total, before = token_count(ordered), 0
    for pair in ordered:
        parts[min(PARTS * before // total, PARTS - 1)].append(pair)
        before += len(pair)
    filled = [part for part in parts if part]
    used = 0
    for number, part in enumerate(filled, start=1):
        for batch in endless_batches(part, config, f"part {number}", retained=retained):
            yield batch
            used += token_count((*batch.examples, *batch.retained))
            if number < len(filled) and used >= budget_tokens * number / len(filled):
                break
