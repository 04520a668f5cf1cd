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


def split_rationale(text: str) -> tuple[str, str]:
    """(rationale, final answer) of an answer to `rationale`.

    The answer begins at the last line that says "Answer:"; without one it is the last line. The
    rationale is empty where nothing stands before the answer.
    """
    marks = list(_ANSWER.finditer(text))
    if marks:
        return text[: marks[-1].start()].strip(), text[marks[-1].end() :].strip()
    before, _, last = text.strip().rpartition("\n")
    return before.strip(), last.strip()
