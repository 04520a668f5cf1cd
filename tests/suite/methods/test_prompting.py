"""What baselines read from the teacher's answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ioa_jax.graders.by_kind import Graders
from ioa_jax.seeds import SeedItem
from suite.methods.prompting import split_rationale
from suite.micro.measure import score
from suite.micro.world import MODULES, distinct_problems

FENCED = "```python\ndef half(x):\n    return x / 2\n```"


@pytest.fixture(scope="module")
def graders() -> Iterator[Graders]:
    with Graders() as found:
        yield found


def seed(kind: str) -> SeedItem:
    check = {"kind": kind, "entry_point": "half", "tests": "assert half(2) == 1"}
    return SeedItem("s", "A task.", "An answer.", check, "any")


@pytest.mark.parametrize("module", MODULES)
def test_a_label_of_the_world_is_an_answer_by_itself(module: str, graders: Graders) -> None:
    for problem in distinct_problems(module, 4, "train"):
        rationale, label = split_rationale(problem.seed_item(), problem.reference)
        assert score(graders, problem, label) == 1, label
        assert f"{rationale}\n{label}".strip() == problem.reference
        # An answer at once is shorter, but for instructions, where all is judged.
        assert bool(rationale) == (problem.domain != "instruction"), problem.reference


@pytest.mark.parametrize(
    ("kind", "text", "rationale", "label"),
    [
        ("math", "Add.\n**Answer:** 4", "Add.", "4"),
        ("exact", "Answer: no.\nNot yet.\nAnswer: red\nblue", "Answer: no.\nNot yet.", "red\nblue"),
        ("math", "So x = 4.\n\\boxed{4}\nThat is all.", "So x = 4.", "\\boxed{4}\nThat is all."),
        ("math", "\\boxed{3} is wrong.\n\\boxed{\n4}", "\\boxed{3} is wrong.", "\\boxed{\n4}"),
        ("math", "So x is 4.\nI am sure.", "", "So x is 4.\nI am sure."),
        ("number", "2 and 2.\nThat is 4.\nSure.", "2 and 2.", "That is 4.\nSure."),
        ("number", "I don't know.\nSorry.", "", "I don't know.\nSorry."),
        ("code", f"Divide.\n\n{FENCED}", "Divide.", FENCED),
        ("code", f"First:\n```\n2 / 2\n```\nThen:\n{FENCED}\nIt divides.",
         "First:\n```\n2 / 2\n```\nThen:", f"{FENCED}\nIt divides."),
        ("code", f"Divide.\n{FENCED}\nUse it:\n```\nhalf(2)\n```",
         "Divide.", f"{FENCED}\nUse it:\n```\nhalf(2)\n```"),
        ("code", "Divide.\nimport math\ndef half(x):\n    return x / 2",
         "Divide.", "import math\ndef half(x):\n    return x / 2"),
        ("code", "I can't.\nSorry.", "", "I can't.\nSorry."),
        ("instruction", "* red\n* blue", "", "* red\n* blue"),
        ("rouge", "A dog.\nA cat.", "", "A dog.\nA cat."),
        ("exact", "red", "", "red"),
        ("math", "", "", ""),
    ],
)  # fmt: skip
def test_a_label_is_what_the_check_judges(kind: str, text: str, rationale: str, label: str) -> None:
    assert split_rationale(seed(kind), text) == (rationale, label)
