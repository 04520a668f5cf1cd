"""The cells of a run: one a method and seed, and how shares of them are dealt."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ioa_jax.errors import InputError

VERSION = 3  # of a run's files
TEACHER = "teacher"
UNDISTILLED = "undistilled"
# Taught with right answers: to problems of all modules alike, as many as the budgets allow; and to
# problems of the deficient modules without end. No method to compare with, but what power is told
# by.
UNIFORM = "uniform_right"
ORACLE = "oracle"
# In student_tokens_by_part, the tokens of no step in train.jsonl.
FURTHER = "further"
# Backends whose models aren't here to be measured.
_ELSEWHERE = ("openai:", "transformers:")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One model of a run: a method with a seed, or one that no seed changes.

    Attributes:
        method: Name; `teacher` for the reference line.
        seed: Of everything random in the method; None for the teacher and the undistilled student.
    """

    method: str
    seed: int | None = None

    @property
    def name(self) -> str:
        """Folder under cells/."""
        return self.method if self.seed is None else f"{self.method}-seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class Share:
    """The `index`-th of `count` parts of a run's cells; from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """Read `index/count`.

        Raises:
            InputError: It isn't that, or there is no such part.
        """
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise InputError(f"--cells {text!r}: write it as i/n, with i from 1 to n")
        return cls(int(index), int(count))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def cells_of(
    methods: Sequence[str], seeds: Sequence[int], needs: Mapping[str, Sequence[str]]
) -> list[Cell]:
    """Every cell of a run in an order in which each comes after those that it needs.

    Args:
        methods: In the profile's order.
        seeds: Of the run.
        needs: By method, those whose cells of the same seed have to be done before; what the run
            doesn't have doesn't count.

    Raises:
        InputError: Methods need each other.
    """
    ordered: list[str] = []
    left = list(methods)
    while left:
        ready = [m for m in left if not any(need in left for need in needs.get(m, ()))]
        if not ready:
            raise InputError(f"methods that need each other: {', '.join(left)}")
        ordered.append(ready[0])
        left.remove(ready[0])
    return [
        Cell(TEACHER),
        *(
            Cell(method, seed)
            for method in ordered
            for seed in ((None,) if method == UNDISTILLED else seeds)
        ),
    ]


def share_of(
    cells: Sequence[Cell], needs: Mapping[str, Sequence[str]], share: Share | None
) -> list[Cell]:
    """A share's cells in their order. Cells that need others are dealt together with them.

    Args:
        cells: As of `cells_of`.
        needs: As there.
        share: None for all.
    """
    if share is None:
        return list(cells)
    present = set(cells)
    groups: dict[Cell, int] = {}
    for cell in cells:
        found = {
            groups[Cell(need, cell.seed)]
            for need in needs.get(cell.method, ())
            if Cell(need, cell.seed) in present
        }
        # Those it needs come before it. Where they are of several groups, these become one.
        number = min(found, default=max(groups.values(), default=-1) + 1)
        groups = {one: number if group in found else group for one, group in groups.items()}
        groups[cell] = number
    numbers = sorted(set(groups.values()))
    mine = set(numbers[share.index - 1 :: share.count])
    return [cell for cell in cells if groups[cell] in mine]


def settings_digest(settings: Mapping[str, Any]) -> str:
    """sha256 of a run's settings, whatever file and overrides they came from."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def is_local(spec: str) -> bool:
    """Whether this project's engine runs the teacher, so that it can be measured too."""
    return not spec.startswith(_ELSEWHERE)


def tokens_by_part(steps: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Student tokens of train.jsonl, by part."""
    found: dict[str, int] = {}
    for step in steps:
        found[step["part"]] = found.get(step["part"], 0) + step["tokens"]
    return found
