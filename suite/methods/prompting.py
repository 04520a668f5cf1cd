"""The prompts that baselines send to the teacher, by pack, and what is read from its answers.

`prompts/paper` is for large instruct models. `prompts/micro` is for the embedded teacher, which
knows a few forms: to answer a task, and to write one new or one harder problem after a given one,
each alone in its answer.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined, TemplateNotFound

from ioa_jax.errors import InputError
from ioa_jax.graders.code import find_program
from ioa_jax.graders.maths import last_boxed
from ioa_jax.graders.numbers import extract_flexible
from ioa_jax.seeds import SeedItem

Pack = Literal["micro", "paper"]
Messages = tuple[dict[str, str], ...]

_NUMBERED = re.compile(r"^[ \t]*\**Task[ \t]+\d+\**[ \t]*[.:)]\**[ \t]*", re.MULTILINE)
_ANSWER = re.compile(r"^[ \t]*\**Answer:\**[ \t]*", re.MULTILINE)


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("suite.methods", "prompts"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Prompts are text, not HTML.
        autoescape=False,
    )


def render(pack: Pack, name: str, **values: Any) -> Messages:
    """A prompt as a chat of one turn.

    Args:
        pack: Its folder.
        name: Of the template.
        values: Everything that the template names.

    Raises:
        InputError: The pack has no such prompt.
    """
    try:
        template = _environment().get_template(f"{pack}/{name}.j2")
    except TemplateNotFound:
        raise InputError(f"the prompt pack {pack!r} has no prompt {name!r}") from None
    return ({"role": "user", "content": template.render(**values).strip()},)


def read_tasks(pack: Pack, text: str) -> list[str]:
    """The tasks in an answer to `new_tasks` or `topic_tasks`, in their order.

    The paper pack asks for "Task" and a number before each. Without any, the whole answer is one
    task, as it always is in the micro pack.
    """
    # What stands before the first number isn't a task.
    parts = [text] if pack == "micro" else _NUMBERED.split(text)[1:] or [text]
    return [part.strip() for part in parts if part.strip()]


def split_rationale(seed: SeedItem, text: str) -> tuple[str, str]:
    """(rationale, final answer) of a seed's answer to `rationale`.

    The answer begins at the last line that says "Answer:". Without one it is the last lines, as few
    as the seed's check judges as it judges the text: in code the program with its fence, in maths
    what has the last box, of numbers the last one. Where the whole text is judged, or there is no
    box and no number, all of it is the answer.

    Args:
        seed: What was asked.
        text: The teacher's answer.

    Returns:
        Both stripped; the rationale is empty where nothing stands before the answer.
    """
    marks = list(_ANSWER.finditer(text))
    if marks:
        return text[: marks[-1].start()].strip(), text[marks[-1].end() :].strip()
    lines = text.strip().split("\n")
    judged = _judged(seed, "\n".join(lines))
    start = len(lines) - 1
    while start > 0 and _judged(seed, "\n".join(lines[start:])) != judged:
        start -= 1
    return "\n".join(lines[:start]).strip(), "\n".join(lines[start:]).strip()


def _judged(seed: SeedItem, text: str) -> object:
    """What the seed's check takes from a text, and how; the text where it finds nothing in it."""
    if seed.kind == "code":
        return find_program(text, seed.check["entry_point"])
    if seed.kind == "math":
        return last_boxed(text) or text
    if seed.kind == "number":
        return extract_flexible(text) or text
    return text
