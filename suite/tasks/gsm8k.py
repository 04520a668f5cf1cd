"""GSM8K (Cobbe et al., 2021): school word problems, in the layout of the field's 5-shot protocol.

The examples are the train set's first ones, indices 0 to n-1; the usual protocol draws its five at
random from the same set.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from ioa_jax.errors import InputError
from ioa_jax.graders.base import Item
from suite.data import DataSource
from suite.sources import Hub, Layout, Part, Row, Source
from suite.tasks.base import (
    Description,
    Example,
    GenerationSettings,
    Graded,
    MetricValues,
    Prompt,
    Style,
    TaskData,
    chat_prompt,
    content_ids,
    take_examples,
    values_of,
)

STOPS = ("Question:", "</s>", "<|im_end|>")
REVISION = "740312add88f781978c0658806c59bc2815b9866"

_ANSWER = re.compile(r"####\s*(-?[\d,]+(?:\.\d+)?)\s*$")

TRAIN = Source(
    name="gsm8k/train",
    folder="gsm8k",
    layouts=(
        Layout(
            (Part("train", ("17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",)),),
            7473,
        ),
    ),
    remote=Hub("openai/gsm8k", REVISION, "train", ("main",)),
    total=7473,
    fields=("question", "answer"),
    texts=("question", "answer"),
)
TEST = Source(
    name="gsm8k/test",
    folder="gsm8k",
    layouts=(
        Layout((Part("test"),), 1319),
        Layout(
            (
                Part(
                    "test_even",
                    ("8e349b15cfa77941cb7816023459e9e462adab5baceb2a5c135805274ab424aa",),
                ),
                Part("test_odd"),
            ),
            1319,
        ),
    ),
    remote=Hub("openai/gsm8k", REVISION, "test", ("main",)),
    total=1319,
    fields=("question", "answer"),
    texts=("question", "answer"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gsm8kTask(Description):
    """Word problems whose answer is a number."""

    def load(self, data: DataSource, shots: int = 0) -> TaskData:
        """Items with the number as reference."""
        test = data.load(TEST)
        items = _items(test.rows, TEST.name)
        if not shots:
            return TaskData(items, sources=(test.provenance,))
        train = data.load(TRAIN)
        answers = [row["answer"] for row in train.rows]
        examples = list(map(Example, _items(train.rows, TRAIN.name), answers))
        return TaskData(
            items,
            take_examples(self.name, examples, shots),
            sources=(test.provenance, train.provenance),
        )

    def prompt(self, item: Item, style: Style = "chat", examples: Sequence[Example] = ()) -> Prompt:
        """The question; in a chat with a request for the form that the strict rule reads."""
        pairs = [(example.item.prompt, example.answer) for example in examples]
        if style == "chat":
            asked = [(_question(question), answer) for question, answer in pairs]
            return chat_prompt(_question(item.prompt), asked)
        parts = [f"Question: {question}\nAnswer: {answer}\n\n" for question, answer in pairs]
        return Prompt(text="".join(parts) + f"Question: {item.prompt}\nAnswer:", stop=STOPS)

    def metrics(self, graded: Sequence[Graded]) -> dict[str, MetricValues]:
        """`flexible` takes the answer's last number, `strict` the one after `####`."""
        return {
            "flexible": values_of(graded, lambda verdict: float(verdict.parts["flexible"])),
            "strict": values_of(graded, lambda verdict: float(verdict.parts["strict"])),
        }


def _items(rows: Sequence[Row], source: str) -> tuple[Item, ...]:
    ids = content_ids([row["question"] for row in rows], "gsm8k")
    items: list[Item] = []
    for new_id, row in zip(ids, rows, strict=True):
        match = _ANSWER.search(row["answer"])
        if match is None:
            raise InputError(
                f"{source}: item {new_id}: field 'answer': it has to end in '#### ' and a number"
            )
        number = match[1].replace(",", "")
        data = {"solution": row["answer"]}
        items.append(Item(id=new_id, prompt=row["question"], references=(number,), data=data))
    return tuple(items)


def _question(question: str) -> str:
    return (
        f"{question}\n\nWork it out step by step. End with a line that has only #### and the final "
        "number."
    )


GSM8K = Gsm8kTask(
    name="gsm8k",
    version=1,
    summary="school mathematics in words, answers are numbers",
    source="Cobbe et al. 2021, github.com/openai/grade-school-math; hub openai/gsm8k",
    licence="MIT",
    grader_kind="number",
    settings=GenerationSettings(max_tokens=512),
    default_shots={"chat": 0, "base": 5},
)
