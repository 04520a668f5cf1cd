"""Items that are turns of a conversation: a later one names the item before it in `follows`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ioa_jax.graders.base import Item
from ioa_jax.thoughts import cut_thoughts
from suite.tasks.base import Example, Prompt, Style, Task

FOLLOWS = "follows"


def conversation(item: Item, items: Mapping[str, Item]) -> list[Item]:
    """The turns up to an item, the first one first; most items are alone.

    Args:
        item: The last turn.
        items: Of its task, by id.
    """
    turns = [item]
    while FOLLOWS in turns[0].data:
        turns.insert(0, items[turns[0].data[FOLLOWS]])
    return turns


def next_prompt(
    task: Task,
    turns: Sequence[Item],
    answers: Sequence[str],
    style: Style,
    examples: Sequence[Example],
) -> Prompt:
    """How the last turn is put to a model: after the earlier ones and what it answered to them.

    Args:
        task: Of the items.
        turns: As `conversation` gives them.
        answers: To all but the last; their thoughts are left out, as chat templates do.
        style: Of the prompt.
        examples: Before the first turn.
    """
    asked = [task.prompt(turn, style, () if i else examples) for i, turn in enumerate(turns)]
    messages: list[Mapping[str, str]] = []
    text = ""
    for prompt, answer in zip(asked, answers, strict=False):
        said = cut_thoughts(answer).answer or ""
        messages += [*prompt.messages, {"role": "assistant", "content": said}]
        text += f"{prompt.text}{said}\n\n"
    last = asked[-1]
    if last.messages:
        return Prompt(messages=(*messages, *last.messages), stop=last.stop)
    return Prompt(text=text + last.text, stop=last.stop)
