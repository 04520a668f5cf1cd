"""The embedded world: problems as a pure function of (module, difficulty, seed, split).

Every problem has an exact checker. Its split hangs on a hash of its parameters, so that none that a
model was trained on, in whatever wording, is among the seeds or in the test.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from typing import Any, Literal

import numpy as np

from ioa_jax.adapter.answer import render_answer
from ioa_jax.adapter.schema import AdapterFlags, CognitiveLoad, Example, Metadata, Solution
from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from ioa_jax.seeds import SeedItem
from ioa_jax.streams import stream
from suite.micro.code import CODE_MODULES
from suite.micro.draft import Domain, Draft, Module, pick
from suite.micro.instructions import INSTRUCTION_MODULES
from suite.micro.maths import MATH_MODULES

# `train` is what teacher and students are trained on, `probe` what users' seeds are drawn from (and
# what the recipe watches), `test` the benchmark.
Split = Literal["train", "probe", "test"]

# Of a new world: another generator or another split gives other figures.
VERSION = 1
DIFFICULTIES = (1, 2, 3, 4, 5)

MODULES: dict[str, Module] = {
    module.id: module for module in (*MATH_MODULES, *CODE_MODULES, *INSTRUCTION_MODULES)
}

_CONCRETE_SHARE = 0.3
_MOST_DRAWS = 1000


@dataclasses.dataclass(frozen=True)
class Problem:
    """A problem of the world in one wording.

    Attributes:
        module: Id.
        difficulty: 1 to 5.
        split: Where its parameters belong.
        prompt: What is asked.
        concrete: Whether the wording begins with something from everyday life.
        draft: All else.
    """

    module: str
    difficulty: int
    split: Split
    prompt: str
    concrete: bool
    draft: Draft

    @property
    def domain(self) -> str:
        return MODULES[self.module].domain

    @property
    def id(self) -> str:
        """Depends on the module and the prompt alone."""
        digest = hashlib.sha256(f"{self.module}\n{self.prompt}".encode()).hexdigest()
        return f"{self.module}-{digest[:10]}"

    @property
    def reference(self) -> str:
        """The right answer, worked, in the form that lessons have with one step a line."""
        return self.worked(self.draft.steps)

    def worked(self, steps: tuple[str, ...]) -> str:
        """The right answer after other steps than the solution's own."""
        draft = self.draft
        example = Example(
            module=self.module,
            prereq=(),
            difficulty_tag="introductory",
            problem=self.prompt,
            solution=Solution(
                steps=steps, final_answer=draft.answer, verification=draft.verification
            ),
            adapter_flags=AdapterFlags(
                concretization=False,
                decomposition=False,
                cognitive_load=CognitiveLoad(scale="any", notes=""),
                format_template="none",
                simplified_language=False,
            ),
            metadata=Metadata(stage_id="0", seed_style_ref=""),
        )
        return render_answer(example, draft.check["kind"], "lines")

    def seed_item(self) -> SeedItem:
        """As a user's seed, without the module, which the Identifier has to find."""
        return SeedItem(self.id, self.prompt, self.reference, dict(self.draft.check), self.domain)

    def item(self) -> Item:
        """What the grader of its check takes; `data` names module and difficulty too."""
        item = self.seed_item().item()
        data: dict[str, Any] = {
            **item.data,
            "check": self.draft.check["kind"],
            "module": self.module,
            "difficulty": self.difficulty,
            "worked": self.reference,
        }
        return dataclasses.replace(item, data=data)


def split_of(module: str, key: tuple[str | int, ...]) -> Split:
    """Where a problem belongs, by a hash of its parameters: 70 % train, 15 % each of the others."""
    text = json.dumps([module, *key])
    place = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little") % 20
    return "train" if place < 14 else "probe" if place < 17 else "test"


def draw(
    rng: np.random.Generator,
    module: str,
    difficulty: int,
    split: Split,
    like: Draft | None = None,
) -> Draft:
    """The next problem from a stream that belongs to the split.

    Args:
        rng: The stream.
        module: Id.
        difficulty: 1 to 5.
        split: Where the problem has to belong.
        like: A problem of the module whose check the answers have to pass too, where checks don't
            belong to one problem alone.

    Raises:
        InputError: No such module or difficulty, or the module has none of this difficulty in the
            split.
    """
    if module not in MODULES or difficulty not in DIFFICULTIES:
        raise InputError(f"module {module!r} of difficulty {difficulty}: the world has none")
    redraw = MODULES[module].redraw
    for _ in range(_MOST_DRAWS):
        if like is not None and redraw is not None:
            draft = redraw(rng, difficulty, like)
        else:
            draft = MODULES[module].draw(rng, difficulty)
        if split_of(module, draft.key) == split:
            return draft
    raise InputError(f"module {module!r} has no problem of difficulty {difficulty} in {split!r}")


def make_problem(module: str, difficulty: int, seed: int, split: Split) -> Problem:
    """A problem; the same for the same arguments.

    Raises:
        InputError: As `draw`.
    """
    rng = stream(seed, "micro", VERSION, module, difficulty, split)
    draft = draw(rng, module, difficulty, split)
    concrete = bool(rng.random() < _CONCRETE_SHARE)
    return word(rng, module, difficulty, split, draft, concrete)


def word(
    rng: np.random.Generator,
    module: str,
    difficulty: int,
    split: Split,
    draft: Draft,
    concrete: bool,
) -> Problem:
    """A draft in one of its wordings."""
    prompt = pick(rng, draft.concrete if concrete else draft.wordings)
    return Problem(module, difficulty, split, prompt, concrete, draft)


def distinct_problems(module: str, count: int, split: Split, seed: int = 0) -> tuple[Problem, ...]:
    """Problems of a module, no two with one prompt, the difficulties in turn.

    Fewer than `count` where the module has fewer in the split.
    """
    found: dict[str, Problem] = {}
    for number in range(20 * count):
        if len(found) == count:
            break
        problem = make_problem(module, DIFFICULTIES[number % 5], seed + number // 5, split)
        found.setdefault(problem.prompt, problem)
    return tuple(found.values())


def modules_of(domain: Domain) -> tuple[Module, ...]:
    """The modules of a domain, in the world's order."""
    return tuple(module for module in MODULES.values() if module.domain == domain)


@functools.cache
def benchmark_problems(domain: Domain, per_module: int) -> tuple[Problem, ...]:
    """The benchmark's problems of a domain, one module after the other in turn.

    So that a prefix of them, as of a limited run, has every module.
    """
    by_module = [distinct_problems(module.id, per_module, "test") for module in modules_of(domain)]
    return tuple(
        problems[place]
        for place in range(per_module)
        for problems in by_module
        if place < len(problems)
    )


def micro_seeds(count: int, seed: int = 0) -> tuple[SeedItem, ...]:
    """Seeds as a user would have them: every module and difficulty equally often by chance.

    They are of the split `probe`, which neither teacher nor students have seen.

    Args:
        count: How many, with different prompts.
        seed: Another one gives other seeds.

    Raises:
        InputError: The world has fewer problems.
    """
    found: dict[str, SeedItem] = {}
    names = list(MODULES)
    rng = stream(seed, "micro", VERSION, "seeds")
    for _ in range(100 * count):
        if len(found) == count:
            return tuple(found.values())
        module, difficulty = pick(rng, names), pick(rng, DIFFICULTIES)
        problem = make_problem(module, difficulty, int(rng.integers(2**31)), "probe")
        found.setdefault(problem.prompt, problem.seed_item())
    raise InputError(f"count={count}: the world has about {len(found)} seeds")


def true_edges() -> frozenset[tuple[str, str]]:
    """(prerequisite, dependent) of every two modules: for the report's "recovered edges" alone."""
    return frozenset((need, module.id) for module in MODULES.values() for need in module.needs)
