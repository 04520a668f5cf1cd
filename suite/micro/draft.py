"""What a module's generator makes, and what the generators share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import numpy as np

Domain = Literal["math", "code", "instruction"]
Item = TypeVar("Item")

NAMES = ("Ann", "Ben", "Eva", "Leo", "Mia", "Sam")
THINGS = ("apples", "books", "cards", "coins", "eggs", "pens")


@dataclasses.dataclass(frozen=True)
class Draft:
    """A problem before a wording is chosen.

    Attributes:
        key: The parameters. The split that a problem belongs to hangs on them alone, so that one
            problem in two wordings is never in two splits.
        wordings: Ways to ask it, the plainest first.
        concrete: Ways to ask it that begin with something from everyday life.
        steps: The worked solution, without the final answer.
        answer: The final answer alone: a number, a program or a text.
        check: How answers are checked, as a seed's `check` (`ioa_jax.seeds`).
        verification: How the answer can be checked, as the Adapter's examples have it.
    """

    key: tuple[str | int, ...]
    wordings: tuple[str, ...]
    concrete: tuple[str, ...]
    steps: tuple[str, ...]
    answer: str
    check: dict[str, Any]
    verification: str


Redraw = Callable[[np.random.Generator, int, Draft], Draft]


@dataclasses.dataclass(frozen=True)
class Module:
    """A knowledge module of the world.

    Attributes:
        id: `category/module`.
        domain: Its task is `micro-math`, `micro-code` or `micro-instruct`.
        needs: Ids of the modules whose skill its solutions use: the true graph.
        draw: Makes a problem of difficulty 1 to 5.
        redraw: Makes one whose answers pass the check of a given one too, as the Adapter asks for
            instructions; None where each problem's check is its own.
    """

    id: str
    domain: Domain
    needs: tuple[str, ...]
    draw: Callable[[np.random.Generator, int], Draft]
    redraw: Redraw | None = None


def pick(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    """One of the items."""
    return items[int(rng.integers(len(items)))]


def between(rng: np.random.Generator, low: int, high: int) -> int:
    """A whole number from `low` to `high`, both included."""
    return int(rng.integers(low, high + 1))
