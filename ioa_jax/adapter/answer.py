r"""How an answer is written for the student to learn."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ioa_jax.adapter.dimensions import LABELS, Template
from ioa_jax.adapter.schema import Example
from ioa_jax.graders.maths import last_boxed
from ioa_jax.graders.numbers import extract_flexible

# Kinds of check that judge the whole text: steps before the answer would be a part of it.
WHOLE_TEXT = ("exact", "rouge", "instruction")

_FENCED = re.compile(r"^\s*```[^\n`]*\n(.*?)\n?```\s*$", re.DOTALL)


def render_answer(
    example: Example, kind: str, template: Template = "numbered", steps: bool = True
) -> str:
    """`write_answer` of an example's steps and final answer.

    Args:
        example: What the teacher wrote.
        kind: Of the seed's check.
        template: As of `write_answer`.
        steps: Whether the student learns to write the steps.
    """
    solution = example.solution
    return write_answer(solution.steps if steps else (), solution.final_answer, kind, template)


def write_answer(steps: Sequence[str], final: str, kind: str, template: Template) -> str:
    r"""The steps, a line each, then the final answer in the form that the check reads.

    `math` ends in `\boxed{}`, `code` in a fenced block of Python, `number` in the number. In
    `exact`, `rouge` and `instruction` the answer stands alone.

    Args:
        steps: How it is solved; may be empty.
        final: The answer alone.
        kind: Of the seed's check.
        template: `numbered` puts a number before each step; `labelled` puts `Solve:` before those
            that have none of the labels; `lines` leaves them as they are.
    """
    if kind in WHOLE_TEXT:
        return final.strip()
    if kind == "math":
        final = rf"\boxed{{{plain_answer(final)}}}"
    elif kind == "code":
        final = f"```python\n{plain_program(final)}\n```"
    else:
        final = extract_flexible(final) or final.strip()
    lines = [step.strip() for step in steps]
    if template == "numbered":
        lines = [f"{number}. {line}" for number, line in enumerate(lines, start=1)]
    elif template == "labelled":
        lines = [
            line if line.partition(":")[0] in LABELS and ":" in line else f"Solve: {line}"
            for line in lines
        ]
    return "\n".join([*lines, final])


def plain_answer(final: str) -> str:
    """A mathematical answer without the box and the delimiters that a teacher may put around it."""
    final = (last_boxed(final) or final).strip()
    for left, right in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]")):
        if final.startswith(left) and final.endswith(right) and len(final) > len(left + right):
            inner = final[len(left) : -len(right)].strip()
            return inner if "$" not in inner else final
    return final


def plain_program(final: str) -> str:
    """A program without the fence that a teacher may put around it."""
    fenced = _FENCED.match(final)
    return (fenced[1] if fenced else final).strip("\n").rstrip()
