r"""How an example's answer is written for the student to learn."""

from __future__ import annotations

import re

from ioa_jax.adapter.dimensions import Template
from ioa_jax.adapter.schema import Example
from ioa_jax.graders.maths import last_boxed

_FENCED = re.compile(r"^\s*```[^\n`]*\n(.*?)\n?```\s*$", re.DOTALL)


def render_answer(
    example: Example, domain: str, template: Template = "numbered", steps: bool = True
) -> str:
    r"""The steps, a line each, then the final answer in the form that the domain's graders read.

    `math` ends in `\boxed{}`, `code` in a fenced block of Python, others in the plain text. In
    `instruction` the text stands alone, since steps before it would be judged as a part of it.

    Args:
        example: What the teacher wrote.
        domain: Of the problem.
        template: `numbered` puts a number before each step; the other two leave them as they are.
        steps: Whether the student learns to write the steps.
    """
    final = example.solution.final_answer
    if domain == "instruction":
        return final.strip()
    if domain == "math":
        final = rf"\boxed{{{plain_answer(final)}}}"
    elif domain == "code":
        final = f"```python\n{plain_program(final)}\n```"
    else:
        final = final.strip()
    lines = [step.strip() for step in example.solution.steps] if steps else []
    if template == "numbered":
        lines = [f"{number}. {line}" for number, line in enumerate(lines, start=1)]
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
