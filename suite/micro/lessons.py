"""What the teacher learns to do, as prompts that the method and the baselines send, and answers.

Every prompt is made by the function that makes it when the method runs, from the pack `micro`, with
everything that varies in it varied. The answers are the world's own, right by construction.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from ioa_jax.adapter.dimensions import PLAIN, DimensionSettings, Template, operands
from ioa_jax.adapter.render import SynthesisSpec, render_solve, render_synthesis
from ioa_jax.adapter.schema import (
    AdapterFlags,
    CognitiveLoad,
    Example,
    Level,
    Metadata,
    Solution,
    write_examples,
)
from ioa_jax.adapter.settings import AdapterSettings
from ioa_jax.identifier.rendering import render_module_choice, render_module_name, render_proposal
from suite.methods.prompting import render
from suite.micro.draft import between, pick
from suite.micro.instructions import WORDS
from suite.micro.world import DIFFICULTIES, MODULES, Problem, Split, draw, make_problem, word

LEVELS: dict[Level, tuple[int, ...]] = {
    "introductory": (1, 2),
    "intermediate": (3,),
    "advanced": (4, 5),
}

# Names of the prompts of the baselines' pack that ask for another problem of the same module, and
# of those that ask for a harder one.
SIMILAR = ("similar",)
HARDER = ("deepen",)

# The Adapter's own, by level.
_SIZE_CAPS = AdapterSettings().size_caps
_STEP_CAPS = AdapterSettings().step_caps
# The dimensions of the profile `micro`.
_LESSONS = DimensionSettings(template="lines")

Picked = TypeVar("Picked")


@dataclasses.dataclass(frozen=True)
class Task:
    """A chat and the answer that the teacher should give.

    Attributes:
        skill: What it trains, a key of `SKILLS`.
        module: Of the problem; of several, the first one's.
        messages: The chat.
        answer: As text.
        difficulty: Of the problem where the chat asks for its answer, else None.
    """

    skill: str
    module: str
    messages: tuple[Mapping[str, str], ...]
    answer: str
    difficulty: int | None = None


def draw_problem(
    rng: np.random.Generator, module: str, split: Split, difficulty: int | None = None
) -> Problem:
    """A problem from a stream, in the wordings' natural mixture."""
    if difficulty is None:
        difficulty = pick(rng, DIFFICULTIES)
    draft = draw(rng, module, difficulty, split)
    return word(rng, module, difficulty, split, draft, bool(rng.random() < 0.3))


def answer_task(rng: np.random.Generator, module: str, split: Split) -> Task:
    """The problem as it stands."""
    problem = draw_problem(rng, module, split)
    messages = ({"role": "user", "content": problem.prompt},)
    return Task("answer", module, messages, problem.reference, problem.difficulty)


def solve_task(rng: np.random.Generator, module: str, split: Split) -> Task:
    """The problem as the Adapter's verification asks it."""
    problem = draw_problem(rng, module, split)
    return Task(
        "solve", module, render_solve("micro", problem.prompt, problem.domain), problem.reference
    )


def name_task(rng: np.random.Generator, module: str, split: Split) -> Task:
    """The name of a seed's module."""
    problem = draw_problem(rng, module, split)
    return Task("name", module, render_module_name("micro", problem.prompt), module)


def choice_task(rng: np.random.Generator, module: str, split: Split) -> Task:
    """The name of a seed's module, out of a list."""
    problem = draw_problem(rng, module, split)
    others = _some(rng, [one for one in MODULES if one != module], between(rng, 1, 6))
    offered = _some(rng, [*others, module], len(others) + 1)
    return Task("choice", module, render_module_choice("micro", problem.prompt, offered), module)


def prior_task(rng: np.random.Generator, module: str, split: Split) -> Task:
    """A module's name without a seed: the names' prior."""
    return Task("prior", module, render_module_name("micro", ""), module)


def proposal_task(rng: np.random.Generator, module: str, split: Split) -> Task:
    """The modules of a batch of seeds, in the order in which the seeds first need them.

    Prerequisites are left empty: the world's graph isn't taught.
    """
    names = [module, *(pick(rng, list(MODULES)) for _ in range(between(rng, 2, 7)))]
    problems = [draw_problem(rng, name, split) for name in names]
    modules = [
        {
            "category": name.split("/")[0],
            "module": name.split("/")[1],
            "difficulty": _usual_difficulty(name),
            "prerequisites": [],
        }
        for name in dict.fromkeys(names)
    ]
    answer = json.dumps({"modules": modules}, separators=(",", ":"))
    messages = render_proposal("micro", [problem.prompt for problem in problems])
    return Task("proposal", module, messages, answer)


def similar_task(rng: np.random.Generator, module: str, split: Split) -> Task:
    """Another problem of the same module, as the baselines ask for it; the problem alone."""
    given, new = (draw_problem(rng, module, split) for _ in range(2))
    messages = render("micro", pick(rng, SIMILAR), prompt=given.prompt)
    return Task("similar", module, messages, new.prompt)


def harder_task(rng: np.random.Generator, module: str, split: Split) -> Task:
    """A problem of the same module at a higher difficulty; the problem alone."""
    given = draw_problem(rng, module, split)
    harder = min(given.difficulty + between(rng, 1, 2), DIFFICULTIES[-1])
    new = draw_problem(rng, module, split, harder)
    messages = render("micro", pick(rng, HARDER), prompt=given.prompt)
    return Task("harder", module, messages, new.prompt)


def synthesis_task(rng: np.random.Generator, module: str, split: Split) -> Task:
    """Examples as the Adapter asks for them (Eq. 1)."""
    seed = draw_problem(rng, module, split)
    level: Level = pick(rng, list(LEVELS))
    dimensions = _dimensions(rng)
    remedial = bool(rng.random() < 0.25)
    count = 1 if rng.random() < 0.85 else 2
    problems = [_new_problem(rng, seed, split, level, dimensions, remedial) for _ in range(count)]
    steps = [_steps(problem, dimensions) for problem in problems]
    prerequisites = tuple(_some(rng, list(MODULES), _few(rng)))
    spec = SynthesisSpec(
        domain=seed.domain,
        stage=between(rng, 1, 9),
        kind="remedial" if remedial else pick(rng, ("stage", "bridge")),
        module=module,
        modules=(module,),
        prerequisites=prerequisites,
        mastery=None if rng.random() < 0.2 else float(rng.random()),
        count=count,
        level=level,
        size_cap=_size_cap(rng, problems, level, remedial) if dimensions.cognitive_load else None,
        step_cap=_STEP_CAPS[level] if dimensions.cognitive_load else None,
        seed_id=seed.id,
        seed_prompt=seed.prompt,
        seed_reference=seed.reference if rng.random() < 0.8 else "",
        check=seed.draft.check["kind"],
        dimensions=dimensions,
    )
    examples = [_example(spec, problem, one) for problem, one in zip(problems, steps, strict=True)]
    return Task(
        "synthesis", module, render_synthesis("micro", spec, form="none"), write_examples(examples)
    )


def explain_task(rng: np.random.Generator, module: str, split: Split) -> Task:
    """The problem as it stands, answered in the form of the Adapter's lessons.

    A student reads this form before its first lesson: otherwise it would have to learn words from
    lessons that are about something else.
    """
    problem = draw_problem(rng, module, split)
    messages = ({"role": "user", "content": problem.prompt},)
    worked = problem.worked(_steps(problem, _LESSONS))
    return Task("explain", module, messages, worked, problem.difficulty)


def copy_task(rng: np.random.Generator, module: str, split: Split) -> Task:
    """Words of the world in any order, to be repeated: no module's skill, but used by many."""
    words = " ".join(_some(rng, WORDS, between(rng, 3, 20)))
    return Task("copy", module, ({"role": "user", "content": f"Repeat: {words}"},), words)


SKILLS: dict[str, Callable[[np.random.Generator, str, Split], Task]] = {
    "answer": answer_task,
    "solve": solve_task,
    "synthesis": synthesis_task,
    "name": name_task,
    "choice": choice_task,
    "prior": prior_task,
    "proposal": proposal_task,
    "similar": similar_task,
    "harder": harder_task,
    "copy": copy_task,
    "explain": explain_task,
}
# Those that the suite asks a teacher for.
ASKED = tuple(name for name in SKILLS if name not in ("copy", "explain"))


def _example(spec: SynthesisSpec, problem: Problem, steps: tuple[str, ...]) -> Example:
    on = spec.dimensions
    return Example(
        module=spec.module,
        prereq=spec.prerequisites,
        difficulty_tag=spec.level,
        problem=problem.prompt,
        solution=Solution(
            steps=steps,
            final_answer=problem.draft.answer,
            verification=problem.draft.verification,
        ),
        adapter_flags=AdapterFlags(
            concretization=on.concretization,
            decomposition=on.decomposition,
            cognitive_load=CognitiveLoad(scale="small" if on.cognitive_load else "any", notes=""),
            format_template=on.template if on.format else "none",
            simplified_language=on.language,
        ),
        metadata=Metadata(stage_id=str(spec.stage), seed_style_ref="seed"),
    )


def _new_problem(
    rng: np.random.Generator,
    seed: Problem,
    split: Split,
    level: Level,
    dimensions: DimensionSettings,
    remedial: bool,
) -> Problem:
    """Of the level; the smallest of some where small numbers or smaller instances are asked for."""
    small = dimensions.cognitive_load or remedial
    module, difficulty = seed.module, LEVELS[level][0] if small else pick(rng, LEVELS[level])
    tries = between(rng, 1, 4) if small else 1
    drafts = [draw(rng, module, difficulty, split, seed.draft) for _ in range(tries)]
    draft = min(drafts, key=lambda one: max(operands(one.wordings[0]), default=0))
    if dimensions.language and not dimensions.concretization:
        # The first wording is the plainest.
        return Problem(module, difficulty, split, draft.wordings[0], False, draft)
    return word(rng, module, difficulty, split, draft, dimensions.concretization)


def _steps(problem: Problem, dimensions: DimensionSettings) -> tuple[str, ...]:
    """The worked solution in the form that is asked for.

    Decomposed, it begins with what is given. By the template `labelled` each step says what it is.
    """
    given = [f"{number:g}" for number in operands(problem.draft.wordings[0])]
    first = f"Given: {', '.join(given)}" if given else ""
    labelled = dimensions.format and dimensions.template == "labelled"
    steps = list(problem.draft.steps)
    if labelled:
        first = f"Extract: {', '.join(given)}" if given else ""
        steps = [f"Solve: {step}" for step in steps]
    if dimensions.decomposition and first and problem.domain == "math":
        steps = [first, *steps]
    return tuple(steps)


def _dimensions(rng: np.random.Generator) -> DimensionSettings:
    """All on (half of the time), all off, or each by chance; the template is `lines` mostly."""
    kind = rng.random()
    if kind < 0.2:
        return PLAIN
    template: Template = pick(rng, ("numbered", "numbered", "lines", "lines", "labelled"))
    if kind < 0.7:
        return DimensionSettings(template=template)
    on = [bool(value) for value in rng.integers(2, size=5)]
    return DimensionSettings(
        concretization=on[0],
        decomposition=on[1],
        cognitive_load=on[2],
        format=on[3],
        language=on[4],
        template=template,
    )


def _size_cap(
    rng: np.random.Generator, problems: Sequence[Problem], level: Level, remedial: bool
) -> int | None:
    """A cap that the problems keep to, as the Adapter has them: any number, for maths alone."""
    largest = max((max(operands(problem.prompt), default=0) for problem in problems), default=0)
    usual = _SIZE_CAPS[level]
    if usual is None or problems[0].domain != "math":
        return None
    if remedial:
        usual //= 2
    if usual >= largest and rng.random() < 0.5:
        return usual
    return int(largest) + between(rng, 0, max(4, int(largest) // 2))


@functools.cache
def _usual_difficulty(module: str) -> int:
    """By the length of solutions alone: what builds on what isn't told."""
    lengths = [len(make_problem(module, 3, seed, "train").draft.steps) for seed in range(9)]
    return min(int(np.median(lengths)), 5)


def _few(rng: np.random.Generator) -> int:
    return int(rng.choice((0, 0, 1, 1, 2, 3)))


def _some(rng: np.random.Generator, items: Sequence[Picked], count: int) -> list[Picked]:
    return [items[int(place)] for place in rng.permutation(len(items))[:count]]
