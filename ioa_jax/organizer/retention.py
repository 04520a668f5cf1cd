"""What the student could do before stays: what is retained, and what was forgotten (method 2.4).

All of it is [ours]: the paper leaves forgetting open. With `self_distillation` the student as it
was answers problems of every module that isn't taught, and training keeps it near those answers'
distributions: λ · KL(before ‖ now), since what is forgotten goes with that divergence (arXiv
2509.04259). With `replay` it is trained on these modules' references.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from ioa_jax.errors import InputError
from ioa_jax.values import Value


@dataclasses.dataclass(frozen=True)
class RetainedExample(Value):
    """A problem of a module that isn't taught, with the answer that is retained.

    Attributes:
        module: Id.
        prompt: The problem.
        answer: The student's own, as it was before training; with `replay` the reference.
        written: Whether the teacher wrote the problem; else it is a seed's.
    """

    module: str
    prompt: str
    answer: str
    written: bool = False


@dataclasses.dataclass(frozen=True)
class Retained(Value):
    """What a run retains.

    Attributes:
        modules: Every module that isn't taught, sorted.
        examples: Of these.
        unanswered: Problems that the student gave no whole answer to.
    """

    modules: tuple[str, ...] = ()
    examples: tuple[RetainedExample, ...] = ()
    unanswered: int = 0


_NUMBER = re.compile(r"\d+")


def prompt_variants(prompts: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """Prompts like those of a module: other numbers, and words from one another.

    Two prompts with as many words are crossed word by word, and each number becomes another one of
    as many digits. What comes out may make less sense than a real task: the student is only kept
    near its own answer to it, and nobody needs to know a right one.

    Args:
        prompts: Of one module.
        count: Variants of each, at most.
        rng: Draws.

    Returns:
        New texts, none twice and none of the prompts.
    """
    seen = set(prompts)
    by_length: dict[int, list[list[str]]] = {}
    for prompt in prompts:
        words = prompt.split(" ")
        by_length.setdefault(len(words), []).append(words)
    found: list[str] = []
    for prompt in prompts:
        words = prompt.split(" ")
        others = by_length[len(words)]
        for _ in range(count):
            other = others[int(rng.integers(len(others)))]
            takes = rng.random(len(words)) < CROSSED
            mixed = " ".join(
                b if take else a for a, b, take in zip(words, other, takes, strict=True)
            )
            text = _NUMBER.sub(lambda match: _other_number(match[0], rng), mixed)
            if text not in seen:
                seen.add(text)
                found.append(text)
    return found


# Share of words that come from the other prompt.
CROSSED = 0.3


def _other_number(text: str, rng: np.random.Generator) -> str:
    digits = len(text)
    if digits > 15 or (digits > 1 and text[0] == "0"):
        return text
    return str(rng.integers(10 ** (digits - 1) if digits > 1 else 0, 10**digits))


@dataclasses.dataclass(frozen=True)
class ForgettingMatrix(Value):
    """r(k) after each stage.

    Attributes:
        modules: Ids, the columns.
        stages: Stage numbers, the rows; 0 is before the first.
        ratios: [stages, modules]; None where a module wasn't measured.
    """

    modules: tuple[str, ...]
    stages: tuple[int, ...] = ()
    ratios: tuple[tuple[float | None, ...], ...] = ()

    def __post_init__(self) -> None:
        if len(self.stages) != len(self.ratios):
            raise InputError(
                f"forgetting matrix: {len(self.stages)} stages and {len(self.ratios)} rows"
            )
        for stage, row in zip(self.stages, self.ratios, strict=True):
            if len(row) != len(self.modules):
                raise InputError(
                    f"forgetting matrix: stage {stage} has {len(row)} values for "
                    f"{len(self.modules)} modules"
                )

    def with_stage(self, stage: int, ratios: Mapping[str, float]) -> ForgettingMatrix:
        """The matrix with one more row.

        Args:
            stage: Number of the stage that was just taught; larger than those before.
            ratios: r(k) by module id, of the modules that were measured.

        Raises:
            InputError: The stage isn't later than the last, or a module has no column.
        """
        if self.stages and stage <= self.stages[-1]:
            raise InputError(f"forgetting matrix: stage {stage} after stage {self.stages[-1]}")
        unknown = sorted(ratios.keys() - set(self.modules))
        if unknown:
            raise InputError(f"forgetting matrix: no column for {unknown}")
        row = tuple(ratios.get(module) for module in self.modules)
        return ForgettingMatrix(self.modules, (*self.stages, stage), (*self.ratios, row))

    def forgetting(self) -> dict[str, float]:
        """How far each module is under its best, at its last measurement.

        Returns:
            `max_{i<n} r_i(k) - r_n(k)` by module id, over the stages i at which k was measured, n
            the last of them; negative where the last is the best. Modules measured less than twice
            are left out. The measure is that of Chaudhry et al. 2018 (arXiv 1801.10112, Eq. 3).
        """
        found: dict[str, float] = {}
        for column, module in enumerate(self.modules):
            values = [row[column] for row in self.ratios]
            *earlier, last = [None, *(value for value in values if value is not None)]
            best = [value for value in earlier if value is not None]
            if last is not None and best:
                found[module] = max(best) - last
        return found
